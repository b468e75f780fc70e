"""The stand-in as an ASGI application: reads requests, waits as the plan says, writes answers, fills the log.

Used by `StubServer` and `serve`. What to answer is decided in the service; this module decides nothing.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loopscope.stub.answers import make_id
from loopscope.stub.errors import ApiError, invalid
from loopscope.stub.log import LogEntry, RequestLog, redacted
from loopscope.stub.script import MAX_HANG_SECONDS, script_from_json
from loopscope.stub.service import Plan, Service
from loopscope.stub.sse import Event, assemble, encode, events_of, to_bytes

JsonDict = dict[str, Any]


@dataclass(frozen=True)
class Arrival:
    """What is known of a request before anything is decided."""

    number: int
    at_unix_nano: int
    started: float
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    request_id: str


class Channel:
    """The two ends of one HTTP exchange: sends, and knows when the client has gone."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._gone = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def read_body(self) -> bytes:
        """The request body. Afterwards the channel watches for the client to leave."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone.set()
                return b"".join(parts)
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        self._watcher = asyncio.create_task(self._watch())
        return b"".join(parts)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._gone.is_set()

    async def wait(self, seconds: float) -> bool:
        """Wait; at once False when the client leaves meanwhile."""
        if seconds > 0 and not self.gone:
            try:
                await asyncio.wait_for(self._gone.wait(), seconds)
            except TimeoutError:
                return True
        return not self.gone

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def send(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()


class MessagesEndpoint:
    """`POST /v1/messages`, as a plain ASGI application: only so can an answer be cut off midway."""

    def __init__(self, service: Service, log: RequestLog) -> None:
        self._service = service
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        channel = Channel(receive, send)
        try:
            arrival = await arrive(Request(scope), channel, self._log)
            if arrival.method != "POST":
                plan = Plan(error=ApiError(405, "Method Not Allowed", error_type="invalid_request_error"))
            else:
                key = arrival.headers.get("x-api-key") or arrival.headers.get("authorization") or ""
                plan = self._service.plan(arrival.body, arrival.headers, key)
            if plan.fault is not None and plan.fault.kind == "status":
                plan.error = plan.fault.error()
            if plan.error is not None:
                await self._refuse(arrival, plan, plan.error, channel)
            elif plan.fault is not None:
                await self._fail(arrival, plan, channel)
            elif plan.message is not None:
                if not await channel.wait(plan.latency):
                    plan.undo()
                    self._record(arrival, plan, None, "abandoned", None)
                elif plan.stream:
                    await self._stream(arrival, plan, plan.message, channel)
                else:
                    self._record(arrival, plan, 200, "answered", plan.message)
                    await channel.start(200, json_headers(arrival))
                    await channel.send(to_bytes(plan.message), more=False)
        finally:
            channel.close()

    async def _refuse(self, arrival: Arrival, plan: Plan, error: ApiError, channel: Channel) -> None:
        body = error.body(arrival.request_id)
        self._record(arrival, plan, error.status, "error", body)
        await channel.start(error.status, {**json_headers(arrival), **error.headers})
        await channel.send(to_bytes(body), more=False)

    async def _fail(self, arrival: Arrival, plan: Plan, channel: Channel) -> None:
        """Drop or hang: no answer. The server closes a connection whose promised body never came."""
        fault = plan.fault
        stayed = True
        if fault is not None and fault.kind == "hang":
            stayed = await channel.wait(min(fault.seconds, MAX_HANG_SECONDS))
        self._record(arrival, plan, None, "broken" if stayed else "abandoned", None)
        await channel.start(200, {**json_headers(arrival), "content-length": "1"})

    async def _stream(self, arrival: Arrival, plan: Plan, message: JsonDict, channel: Channel) -> None:
        pacing = plan.pacing
        events = events_of(message, pacing.chunk_chars)
        broken_at = None if pacing.break_at is None else int(len(events) * pacing.break_at)
        error_at = None if pacing.error_at is None else int(len(events) * pacing.error_at)
        silent_at = int(len(events) * pacing.silence_at) if pacing.silence else None
        sent: list[Event] = []
        await channel.start(200, {**json_headers(arrival), "content-type": "text/event-stream; charset=utf-8"})
        for position, event in enumerate(events):
            pause = pacing.chunk_delay + (pacing.first_token if position == 0 else 0)
            stayed = await channel.wait(pause + (pacing.silence if position == silent_at else 0))
            if not stayed:
                self._record(arrival, plan, 200, "abandoned", assemble(sent))
                return
            if position == broken_at:
                self._record(arrival, plan, 200, "broken", assemble(sent))
                return
            if position == error_at:
                self._record(arrival, plan, 200, "error", assemble(sent))
                error = ApiError(529).body(arrival.request_id)
                await channel.send(encode(("error", error)), more=False)
                return
            sent.append(event)
            last = position == len(events) - 1
            if last:
                # Before the bytes leave: whoever has read the answer finds it in the log.
                self._record(arrival, plan, 200, "answered", assemble(sent))
            await channel.send(encode(event), more=not last)

    def _record(self, arrival: Arrival, plan: Plan, status: int | None, ended: str, response: JsonDict | None) -> None:
        self._log.append(
            LogEntry(
                number=arrival.number,
                at_unix_nano=arrival.at_unix_nano,
                method=arrival.method,
                path=arrival.path,
                query=arrival.query,
                headers=redacted(arrival.headers),
                body=arrival.body,
                retry=_retry_count(arrival.headers),
                script=plan.script,
                session=plan.session_name,
                step=plan.step,
                status=status,
                ended=ended,
                stream=plan.stream,
                request_id=arrival.request_id,
                response=response,
                duration_ms=(time.monotonic() - arrival.started) * 1_000,
            )
        )


async def arrive(request: Request, channel: Channel, log: RequestLog) -> Arrival:
    """Read a request and give it its number."""
    at, started = time.time_ns(), time.monotonic()
    body = await channel.read_body()
    number = log.next_number()
    return Arrival(
        number=number,
        at_unix_nano=at,
        started=started,
        method=request.method,
        path=request.url.path,
        query=request.url.query,
        headers=dict(request.headers),
        body=body,
        request_id=make_id("req", at, number),
    )


def json_headers(arrival: Arrival) -> dict[str, str]:
    """Headers of every answer."""
    return {
        "content-type": "application/json",
        "request-id": arrival.request_id,
        "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
    }


def make_app(service: Service, log: RequestLog, key: str | None) -> Starlette:
    """The application. With a `key`, every request must carry it, as `x-api-key` or bearer token; the log's too."""

    def refused(request: Request) -> Response | None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-api-key") or bearer
        if key is None or hmac.compare_digest(given.encode(), key.encode()):
            return None
        return _error(ApiError(401, "invalid x-api-key"))

    async def count_tokens(request: Request) -> Response:
        try:
            body = await request.body()
            return JSONResponse({"input_tokens": service.count_tokens(body, request.headers)})
        except ApiError as error:
            return _error(error)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def read_log(request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        try:
            since = int(request.query_params.get("since", "0"))
            limit = int(request.query_params.get("limit", "1000"))
        except ValueError:
            return _error(invalid("since and limit: Input should be a valid integer"))
        entries = log.entries(since)[: max(0, limit)]
        found = {"entries": [entry.to_json() for entry in entries], "dropped": log.dropped}
        return Response(to_bytes(found), media_type="application/json")

    async def read_body(request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        number = request.path_params["number"]
        for entry in log.entries(number - 1)[:1]:
            if entry.number == number:
                return Response(entry.body, media_type="application/json")
        return _error(ApiError(404, f"The log has no request {number}"))

    async def clear_log(request: Request) -> Response:
        if (no := refused(request)) is None:
            log.reset()
        return no or Response(status_code=204)

    async def reset(request: Request) -> Response:
        if (no := refused(request)) is None:
            service.reset()
            log.reset()
        return no or Response(status_code=204)

    async def put_script(request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        try:
            service.add_script(request.path_params["name"], script_from_json(await request.json()))
        except (ValueError, TypeError) as error:
            return _error(invalid(f"not a script: {error}"))
        return Response(status_code=204)

    messages = MessagesEndpoint(service, log)

    async def guarded_messages(scope: Scope, receive: Receive, send: Send) -> None:
        no = refused(Request(scope))
        await (messages(scope, receive, send) if no is None else no(scope, receive, send))

    async def unknown(request: Request, _: Exception) -> Response:
        return _error(ApiError(404, f"Not Found: {request.method} {request.url.path}"))

    return Starlette(
        routes=[
            Route("/v1/messages", _Raw(guarded_messages)),
            Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
            Route("/healthz", health),
            Route("/stub/log", read_log, methods=["GET"]),
            Route("/stub/log", clear_log, methods=["DELETE"]),
            Route("/stub/log/{number:int}/body", read_body),
            Route("/stub/reset", reset, methods=["POST"]),
            Route("/stub/scripts/{name}", put_script, methods=["PUT"]),
        ],
        exception_handlers={404: unknown},
    )


class _Raw:
    """An ASGI application as a route's endpoint: Starlette takes functions for request handlers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _error(error: ApiError) -> Response:
    request_id = make_id("req", time.time_ns())
    headers = {**error.headers, "request-id": request_id}
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)


def _retry_count(headers: Mapping[str, str]) -> int:
    text = headers.get("x-stainless-retry-count", "0")
    return int(text) if text.isdecimal() else 0

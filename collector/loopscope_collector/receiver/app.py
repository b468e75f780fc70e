"""The receiver: a bare ASGI application that answers 200 when the queue has the body on disk, and not before.

One instance on one event loop (see `serving`). A bad request costs its sender a clear 4xx and nobody else anything.
Recorded content is never logged and never part of a metric.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from loopscope_collector.keys import accepts, key_of, names_loopback
from loopscope_collector.metrics import CONTENT_TYPE, Metrics
from loopscope_collector.queue import DurableQueue, QueueFullError, QueueUnavailableError, Record
from loopscope_collector.receiver.answers import JSON, Answer, RefusedError, accepted
from loopscope_collector.receiver.protobuf import Decoded
from loopscope_collector.receiver.requests import Head, Limits, content_type_of, decode_body, read_head, too_large
from loopscope_schemas.wire import IDENTITY_PATH, PRODUCT, STARTS_PATH, TRACES_PATH, WIRE_VERSION

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INGEST_PATHS: Final = {TRACES_PATH: "traces", STARTS_PATH: "starts"}
DRAIN_SECONDS: Final = 5.0
"""After an early refusal the sender's body is read for so long at most: most clients look at the answer only then."""

log = logging.getLogger("loopscope.receiver")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the collector as a whole works, and what it says about itself."""

    ready: bool
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _ClientGoneError(Exception):
    """The client left in the middle of its request."""


class Receiver:
    """The ASGI application."""

    def __init__(
        self,
        queue: DurableQueue,
        *,
        limits: Limits,
        metrics: Metrics,
        ingest_keys: Sequence[str] = (),
        read_keys: Sequence[str] = (),
        readiness: Callable[[], Readiness] = lambda: Readiness(ready=True),
        inflight_max_bytes: int = 256 * 1024 * 1024,
        body_idle_seconds: float = 30.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._queue = queue
        self._limits = limits
        self._metrics = metrics
        self._ingest_keys = tuple(ingest_keys)
        self._read_keys = tuple(read_keys)
        self._readiness = readiness
        self._inflight_max_bytes = inflight_max_bytes
        self._body_idle_seconds = body_idle_seconds
        self._clock = clock
        self._inflight_bytes = 0
        self._identity = json.dumps({"product": PRODUCT, "version": version(PRODUCT), "wire": WIRE_VERSION}).encode()
        # Two: one long body must not hold up the next; more would only fight over the interpreter's lock.
        self._decoders = ThreadPoolExecutor(2, "receiver-decode")
        _describe(metrics)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        try:
            answer = await self._answer(scope["method"], path, headers, receive)
        except RefusedError as refusal:
            answer = refusal.answer(content_type_of(headers))
            self._metrics.count("receiver_refused", reason=refusal.reason, status=refusal.status)
            if refusal.close and refusal.reason != "idle" and b"expect" not in headers:
                await self._drain(receive)
        except _ClientGoneError:
            self._metrics.count("receiver_refused", reason="client_gone", status=0)
            return
        except Exception:
            log.exception("a request failed in a way that was not foreseen")
            refusal = RefusedError(503, "internal", "the collector failed on this request; it is logged there")
            answer = refusal.answer(content_type_of(headers))
            self._metrics.count("receiver_refused", reason="internal", status=503)
        if path in INGEST_PATHS:
            self._metrics.observe("receiver_request_seconds", time.monotonic() - began, path=path)
        await _send(answer, send, with_body=scope["method"] != "HEAD")

    def close(self) -> None:
        """End the worker threads."""
        self._decoders.shutdown(wait=True)

    async def _answer(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        self._check_sender(headers)
        kind = INGEST_PATHS.get(path)
        if kind is not None:
            _check_method(method, path, ("POST",))
            self._check_key(headers, self._ingest_keys, "LOOPSCOPE_INGEST_KEYS")
            return await self._ingest(kind, headers, receive)
        if path == IDENTITY_PATH:
            # Without a key: an agent whose key is wrong must still learn that this is its collector, and wait.
            _check_method(method, path, ("GET", "HEAD"))
            return Answer(200, JSON, self._identity)
        if path == "/healthz":
            _check_method(method, path, ("GET", "HEAD"))
            return self._health()
        if path == "/metrics":
            _check_method(method, path, ("GET", "HEAD"))
            self._check_key(headers, (*self._read_keys, *self._ingest_keys), "LOOPSCOPE_READ_KEYS")
            self._metrics.gauge("receiver_inflight_bytes", self._inflight_bytes)
            return Answer(200, CONTENT_TYPE, self._metrics.exposition().encode())
        served = ", ".join(
            (*(f"POST {known}" for known in INGEST_PATHS), f"GET {IDENTITY_PATH}", "GET /healthz", "GET /metrics")
        )
        raise RefusedError(404, "path", f"there is nothing at {path[:80]!r}; here are {served}", close=True)

    def _check_sender(self, headers: Mapping[bytes, bytes]) -> None:
        """Without keys a web page in a browser on this machine could send here, under a name it rebinds to loopback."""
        if self._ingest_keys:
            return
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        for what, name in (("Host", host), ("Origin", origin.partition("://")[2] or origin)):
            if name and not names_loopback(name):
                text = f"{what} {name[:80]!r} is not this machine; use 127.0.0.1, or set LOOPSCOPE_INGEST_KEYS"
                raise RefusedError(403, "host", text, close=True)

    def _check_key(self, headers: Mapping[bytes, bytes], keys: Sequence[str], setting: str) -> None:
        if not keys or accepts(keys, key_of(headers)):
            return
        what = "the key is none of" if key_of(headers) else "a key is needed, one of"
        raise RefusedError(
            401,
            "key",
            f"{what} {setting}; send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
            headers=((b"www-authenticate", b"Bearer"),),
            close=True,
        )

    async def _ingest(self, kind: str, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        head = read_head(headers, self._limits)
        received_at = self._clock()
        held = 0
        try:
            pieces: list[bytes] = []
            while True:
                message = await self._next(receive)
                piece: bytes = message.get("body", b"")
                held += self._hold(len(piece))
                if held > self._limits.body_bytes:
                    raise too_large(f"more than {self._limits.body_bytes} bytes", self._limits)
                pieces.append(piece)
                if not message.get("more_body", False):
                    break
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            decoded = await self._decode(head, body)
            self._metrics.count("receiver_wire_bytes", len(body), path=kind)
            held += self._hold(max(0, len(decoded.body) - len(body)))
            del body
            if decoded.spans:
                await self._keep(Record(kind, "protobuf", received_at, decoded.body))
        finally:
            self._inflight_bytes -= held
        self._count(kind, head, decoded)
        return accepted(head.content_type, rejected_spans=decoded.rejected_spans, message=decoded.message)

    def _hold(self, size: int) -> int:
        """Count bytes of a body as held. Raises RefusedError 503 when all bodies together are too many."""
        if self._inflight_bytes + size > self._inflight_max_bytes:
            text = f"bodies of {self._inflight_bytes} bytes are being taken in already; try again later"
            raise RefusedError(503, "inflight_bytes", text, close=True)
        self._inflight_bytes += size
        return size

    async def _next(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._body_idle_seconds):
                message = await receive()
        except TimeoutError as error:
            raise RefusedError(
                408,
                "idle",
                f"no byte of the body came for {self._body_idle_seconds:g} s; send it in one go",
                close=True,
            ) from error
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        return message

    async def _decode(self, head: Head, body: bytes) -> Decoded:
        if head.is_small(len(body)):
            return decode_body(head, body, self._limits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, decode_body, head, body, self._limits)

    async def _keep(self, record: Record) -> None:
        """Wait until the record is on disk. Raises RefusedError 503."""
        try:
            await asyncio.wrap_future(self._queue.submit(record))
        except QueueFullError as error:
            raise RefusedError(503, "queue_full", f"{error}; try again later") from error
        except QueueUnavailableError as error:
            raise RefusedError(503, "queue_unavailable", f"{error}; try again later") from error

    def _count(self, kind: str, head: Head, decoded: Decoded) -> None:
        encoding = "json" if head.content_type == JSON else "protobuf"
        self._metrics.count("receiver_requests", kind=kind, encoding=encoding)
        self._metrics.count("receiver_spans", decoded.spans, kind=kind)
        self._metrics.count("receiver_bytes", len(decoded.body), kind=kind)
        if decoded.mended:
            self._metrics.count("receiver_mended_strings", decoded.mended, kind=kind)
        if decoded.rejected_spans:
            self._metrics.count("receiver_rejected_spans", decoded.rejected_spans, kind=kind)

    def _health(self) -> Answer:
        state = self._readiness()
        held, bound = self._queue.held_bytes, self._queue.max_bytes
        ready = state.ready and held < bound
        detail = {"ready": ready, "queue_bytes": held, "queue_max_bytes": bound, **state.detail}
        return Answer(200 if ready else 503, JSON, json.dumps(detail).encode())

    async def _drain(self, receive: Receive) -> None:
        """Read what the sender is still busy sending, within bounds, so that it gets to see the answer."""
        left = self._limits.body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return


def _check_method(method: str, path: str, allowed: Sequence[str]) -> None:
    if method not in allowed:
        text = f"{method[:20]} {path} is not served; use {' or '.join(allowed)}"
        allow = ((b"allow", ", ".join(allowed).encode()),)
        raise RefusedError(405, "method", text, headers=allow, close=True)


async def _send(answer: Answer, send: Send, *, with_body: bool) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    if answer.close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


def _describe(metrics: Metrics) -> None:
    for name, text in (
        ("receiver_requests", "OTLP requests acknowledged: on disk in the queue."),
        ("receiver_spans", "Spans (or start markers) in acknowledged requests."),
        ("receiver_bytes", "Bytes of acknowledged bodies as protobuf, decompressed."),
        ("receiver_wire_bytes", "Bytes of bodies as sent."),
        ("receiver_refused", "Requests refused, by reason and HTTP status."),
        ("receiver_mended_strings", "Strings that protobuf refuses, rewritten so that their batch is kept."),
        ("receiver_rejected_spans", "Spans left out of acknowledged requests because they could not be read."),
        ("receiver_request_seconds", "From the headers to the answer of an ingest request."),
        ("receiver_inflight_bytes", "Bytes of bodies in memory."),
        ("queue_bytes", "Bytes in the queue that the store has not taken."),
        ("queue_max_bytes", "Bound on queue_bytes; when it is reached, senders get 503."),
        ("queue_segments", "Sealed segments that wait for the writer."),
        ("queue_oldest_segment_unix_seconds", "When the oldest waiting segment was begun; 0 when none waits."),
        ("queue_commit_seconds", "One group of records written and synced."),
        ("queue_commit_errors", "Groups of records that the disk refused."),
        ("queue_torn_bytes", "Bytes cut off at the start: a write that a crash interrupted, never acknowledged."),
        ("queue_damaged_bytes", "Bytes of segments that could not be read back."),
        ("dead_letters", "Records set aside because the store will not take them."),
        ("dead_letter_bytes", "Bytes of records set aside."),
        ("dead_letters_dropped", "Records set aside that had to give way to newer ones."),
    ):
        metrics.describe(name, text)

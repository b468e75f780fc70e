"""A call that a limit forbids: nothing is sent; the host gets a message that says so, or LimitExceeded.

The answer is made of an HTTP response that the SDK itself turns into what this call style returns (Message, stream, raw
response, ...), so that a loop of any kind ends as it would at the model's own end of turn. This is the one place where
Loopscope changes what the host gets, and only where its owner set a limit.
"""

from __future__ import annotations

import base64
import datetime as dt
import inspect
import json
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from loopscope._internal import guard, runtime
from loopscope._internal.inferred import InferredRun
from loopscope._internal.recording import INTERNAL
from loopscope.exceptions import LimitExceeded
from loopscope_schemas import attributes as at

from .placing import Place

if TYPE_CHECKING:
    from loopscope._internal.limits import Hit
    from loopscope._internal.runs import Run
    from loopscope._internal.runtime import Runtime

MAX_RECORDED = 20
"""Stopped calls of one run that are spans; a loop that takes no end of turn for an answer would make any number."""
_UNANSWERABLE = object()


class StoppedCall:
    """In place of an LLMCall."""

    def __init__(self, active: Runtime, place: Place, hit: Hit) -> None:
        self._hit = hit
        run = place.run
        self._run = run
        self._text = (
            f"[Loopscope] Limit reached: {hit.sentence}. No further request was sent to the model. "
            "What was done so far stands, but this result is partial."
        )
        if run is not None:
            self._record(active, place, run)

    @guard.guarded
    def _record(self, active: Runtime, place: Place, run: Run) -> None:
        if isinstance(run, InferredRun):
            active.chains.stopped(run)
        run.allowance.stopped_calls += 1
        if run.allowance.stopped_calls > MAX_RECORDED:
            return
        guard.warn_once(f"limit-{self._hit.name}", "loopscope: a run was stopped by its limit: %s", self._hit.sentence)
        attributes = place.attributes(active)
        attributes |= {at.OPERATION_NAME: "limit", at.RUN_LIMIT_HIT: self._hit.name, at.TURN: max(run.turn, 1)}
        recording = runtime.start(active, f"limit {self._hit.name}", INTERNAL, place.parent, attributes)
        attributes[at.RUN_ID] = run.id
        place.begun(active, recording.start.start_time)  # its results are of tools that were called, though never sent
        runtime.end(recording)
        if isinstance(run, InferredRun):
            told = self._text if self._hit.on_hit == "partial" else None
            run.end_at(recording.end_time, "limit", answer=told)

    # --- what the host gets ---

    def answer(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the SDK's `request` returns. Raises LimitExceeded where its owner chose that."""
        self._tell()
        if self._hit.on_hit == "raise":
            raise self._error()
        for with_text in (True, False):
            result = self._processed(client, args, kwargs, with_text=with_text)
            if result is not None and result is not _UNANSWERABLE:
                return result
        raise self._error()

    async def answer_async(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `answer`, of an asynchronous client."""
        self._tell()
        if self._hit.on_hit == "raise":
            raise self._error()
        for with_text in (True, False):
            pending = self._processed(client, args, kwargs, with_text=with_text)
            if pending is None or pending is _UNANSWERABLE:
                continue
            try:
                return await pending
            except Exception as error:  # noqa: BLE001 - a parser of the host's that takes no text of ours
                guard.warn_once("limit-answer", "loopscope: the answer of a limit could not be parsed: %s", error)
        raise self._error()

    def _tell(self) -> None:
        if self._run is not None:
            self._run.allowance.tell_stopped()

    def _error(self) -> LimitExceeded:
        hit = self._hit
        return LimitExceeded(
            f"stopped by Loopscope: {hit.sentence}; the next request was not sent",
            limit=hit.name,
            maximum=hit.maximum,
            used=hit.used,
            run_id=self._run.id if self._run is not None else "",
        )

    def _processed(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, with_text: bool) -> Any:
        """What the SDK makes of the answer (of an asynchronous client: what is to be awaited)."""
        try:
            given = inspect.signature(type(client).request).bind(client, *args, **kwargs).arguments
            options = given["options"]
            copy = getattr(options, "model_copy", None) or options.copy
            options = copy()
            body = options.json_data if isinstance(options.json_data, dict) else {}
            stream = bool(given.get("stream", False))
            # An answer that must be JSON of a schema cannot be our text: it has no content then.
            message = _message(body, self._text if with_text and not _structured(body) else None)
            response = _response(client, options, message, stream=stream)
            cast_to = client._maybe_override_cast_to(given["cast_to"], options)
            wanted = {
                "cast_to": cast_to,
                "options": options,
                "response": response,
                "stream": stream,
                "stream_cls": given.get("stream_cls") or (client._default_stream_cls if stream else None),
                "retries_taken": 0,
            }
            known = inspect.signature(client._process_response).parameters
            return client._process_response(**{name: value for name, value in wanted.items() if name in known})
        except Exception as error:  # noqa: BLE001 - an SDK that changed, or a parser that takes no text of ours
            guard.warn_once("limit-answer", "loopscope: the answer of a limit could not be made: %s", error)
            return _UNANSWERABLE


def _structured(body: Mapping[str, Any]) -> bool:
    output = body.get("output_config")
    return bool(
        body.get("output_format") or (isinstance(output, dict) and cast("dict[str, Any]", output).get("format"))
    )


def _message(body: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    return {
        "id": f"msg_loopscope_limit_{os.urandom(8).hex()}",
        "type": "message",
        "role": "assistant",
        "model": str(body.get("model", "")),
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _response(client: Any, options: Any, message: dict[str, Any], *, stream: bool) -> Any:
    """An answer of the API over the HTTP library that this client uses."""
    http = _http_library(client)
    headers = {name: value for name, value in dict(options.headers or {}).items() if isinstance(value, str)}
    request = http.Request("POST", str(client.base_url), headers=headers)
    content_type = "application/json"
    content = json.dumps(message).encode()
    if stream:
        framed = "EventStream" in type(client._make_sse_decoder()).__name__
        content_type = "application/vnd.amazon.eventstream" if framed else "text/event-stream"
        content = b"".join(_frame(event) if framed else _sse(event) for event in _events(message))
    response = http.Response(
        200, headers={"content-type": content_type, "request-id": message["id"]}, content=content, request=request
    )
    response.elapsed = dt.timedelta(0)
    return response


def _http_library(client: Any) -> Any:
    """httpx, or the one that newer SDKs use in its place."""
    for cls in type(client._client).__mro__:
        package = sys.modules.get(cls.__module__.partition(".")[0])
        if package is not None and hasattr(package, "Response") and hasattr(package, "AsyncClient"):
            return package
    raise LookupError(f"no HTTP library is known behind {type(client._client)!r}")


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    begun = message | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(message["content"]):
        events += [
            {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": "text_delta", "text": block["text"]},
            },
            {"type": "content_block_stop", "index": index},
        ]
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0}},
        {"type": "message_stop"},
    ]


def _sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _frame(event: dict[str, Any]) -> bytes:
    """A frame of AWS' event stream: lengths, headers and payload, each part closed by a CRC-32."""
    headers = b""
    for name, value in (
        (":event-type", "chunk"),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        headers += struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    framed = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return framed + struct.pack(">I", zlib.crc32(framed))

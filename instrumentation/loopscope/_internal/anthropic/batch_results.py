"""Reading what batches give: the answer to a submission, and each line of the results. Worker thread.

**Nothing counts twice.** Results are downloaded as often as their owner likes, in whichever process. So the ids of a
result's span are made of the batch's id and the custom id, and its start is the moment the batch was created, which the
SDK asks for before each download: the same result is the same row, whoever downloads it. Where that moment is not known
(a host that requests the results' address by itself), it is the beginning of the day of the download, UTC: twice on
one day is the same row.

What is remembered of batches, in this process only, is bounded: the times of `KNOWN_BATCHES`, and requests of
`KEPT_REQUESTS_BYTES` together, so that a result can be shown with what was asked.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from loopscope._internal.errors import DETERMINISTIC, TRANSIENT, UNKNOWN, class_of_api_type
from loopscope._internal.jsontext import json_text
from loopscope._internal.recording import Recording, SpanIds
from loopscope_schemas import attributes as at

from .answers import Answer, decoded, keep_bodies, message_attributes, request_id

if TYPE_CHECKING:
    from loopscope._internal.recording import Payload

KNOWN_BATCHES = 1_000
KEPT_REQUESTS_BYTES = 8 * 1024 * 1024
"""A larger submission is not kept at all: the most recent small ones are worth more than a part of it."""
BREATH_BYTES = 64 * 1024
BREATH_SECONDS = 0.0001
"""After this much of a submission the worker sleeps, so that no host thread waits long for the interpreter."""
DAY_NANOSECONDS = 24 * 3600 * 1_000_000_000

_REQUESTS = re.compile(r'\s*\{\s*"requests"\s*:\s*\[\s*')
_BETWEEN = re.compile(r"\s*,\s*")

# Result type -> (whether a retry may help, what happened).
_WITHOUT_ANSWER = {
    "canceled": (UNKNOWN, "the batch was canceled before this request was sent to the model"),
    "expired": (TRANSIENT, "the batch expired before this request was sent to the model"),
}


@dataclass(frozen=True, slots=True)
class Times:
    """When a batch was created, and when all of it was done; Unix nanoseconds."""

    created: int
    ended: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch whose results are downloaded."""

    id: str
    times: Times | None
    """None where this process never looked at the batch."""
    attributes: Mapping[str, Any]
    """What all of its spans begin with."""


class _Memory:
    """What this process knows of batches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: OrderedDict[str, Times] = OrderedDict()
        self._requests: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._request_bytes = 0

    def times(self, batch_id: str) -> Times | None:
        with self._lock:
            return self._times.get(batch_id)

    def note(self, batch_id: str, times: Times) -> None:
        with self._lock:
            self._times[batch_id] = times
            self._times.move_to_end(batch_id)
            while len(self._times) > KNOWN_BATCHES:
                self._times.popitem(last=False)

    def request(self, batch_id: str, custom_id: str) -> bytes | None:
        with self._lock:
            return self._requests.get((batch_id, custom_id))

    def keep(self, batch_id: str, custom_id: str, request: bytes) -> None:
        with self._lock:
            self._request_bytes += len(request) - len(self._requests.pop((batch_id, custom_id), b""))
            self._requests[batch_id, custom_id] = request
            while self._request_bytes > KEPT_REQUESTS_BYTES:
                _, dropped = self._requests.popitem(last=False)
                self._request_bytes -= len(dropped)


_memory = _Memory()


def remember(batch_id: str, description: bytes) -> None:
    """Take the times from a batch as the API describes it (JSON). What is no such description is passed over."""
    batch = _object(description)
    created = _nanoseconds(batch.get("created_at"))
    if created is not None:
        _memory.note(batch_id, Times(created, _nanoseconds(batch.get("ended_at"))))


def times_of(batch_id: str) -> Times | None:
    """What this process knows of a batch's times."""
    return _memory.times(batch_id)


def forget() -> None:
    """Forget all batches: in a forked child, whose copy of the lock nobody may ever release; and for tests."""
    global _memory
    _memory = _Memory()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)


# --- the submission ---


def complete_submission(answer: Answer, payload: Payload) -> Mapping[str, Any]:
    """Both bodies onto the payload; the batch's id and size back. Its requests are kept for when results come."""
    body = decoded(answer) if answer.streamed else answer.body
    attributes = request_id(answer)
    if answer.streamed and not answer.exhausted:
        attributes[at.PARTIAL] = True
    batch_id = _object(body).get("id")
    if isinstance(batch_id, str) and payload.failed is None:
        attributes[at.BATCH_ID] = batch_id
        remember(batch_id, body or b"")
        _keep_requests(batch_id, answer.request_body or b"")
    keep_bodies(answer, body, payload)
    return attributes


def _keep_requests(batch_id: str, body: bytes) -> None:
    if len(body) > KEPT_REQUESTS_BYTES:
        return
    for custom_id, params in requests_of(body):
        _memory.keep(batch_id, custom_id, json_text(params))


def requests_of(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """(custom id, parameters) of each request of a submission, read one by one."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return
    found, decoder, breath = _REQUESTS.match(text), json.JSONDecoder(), 0
    while found is not None:
        try:
            entry, position = decoder.raw_decode(text, found.end())
        except (ValueError, RecursionError):
            return  # an empty list, or JSON that is written in another way
        if isinstance(entry, dict):
            custom_id = cast("dict[str, Any]", entry).get("custom_id")
            params = cast("dict[str, Any]", entry).get("params")
            if isinstance(custom_id, str) and isinstance(params, dict):
                yield custom_id, cast("dict[str, Any]", params)
        if position - breath > BREATH_BYTES:
            breath = position
            time.sleep(BREATH_SECONDS)
        found = _BETWEEN.match(text, position)


# --- a result ---


def complete_result(recording: Recording, batch: Batch, line: bytes, payload: Payload) -> Mapping[str, Any]:
    """A line of the results as the LLM call that it tells of: its identity onto the recording, the rest as usual."""
    entry = _object(line)
    custom_id = entry.get("custom_id")
    known = custom_id if isinstance(custom_id, str) else ""
    ids = identity(batch.id, known or hashlib.sha256(line).hexdigest())
    attributes: dict[str, Any] = {at.RUN_ID: f"{ids.trace_id:032x}"}
    if known:
        attributes[at.BATCH_CUSTOM_ID] = known
    params = _memory.request(batch.id, known)
    asked = _object(params).get("model")
    answer, found = _read(_dict(entry.get("result")), payload)
    attributes |= found
    model = asked if isinstance(asked, str) else found.get(at.RESPONSE_MODEL)
    if isinstance(model, str):
        attributes[at.REQUEST_MODEL] = model
    if params is not None:
        payload.bodies[at.REQUEST_BODY] = params
    payload.bodies[at.RESPONSE_BODY] = answer if answer is not None else line
    times = batch.times or Times(time.time_ns() // DAY_NANOSECONDS * DAY_NANOSECONDS, None)
    recording.ids = ids
    recording.start = recording.start._replace(
        trace_id=ids.trace_id,
        span_id=ids.span_id,
        start_time=times.created,
        name=f"chat {model}" if isinstance(model, str) else "chat",
    )
    # The store keeps the row that ended last: one with its request is not replaced by one without, whenever that comes.
    recording.end_time = max(times.ended or times.created, times.created) + (params is not None)
    return attributes


def identity(batch_id: str, custom_id: str) -> SpanIds:
    """The ids of a result's span: the same in every process, at every download."""
    digest = hashlib.sha256(
        f"loopscope batch result\0{batch_id}\0{custom_id}".encode("utf-8", "surrogatepass")
    ).digest()
    return SpanIds(int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big"))


def _read(result: Mapping[str, Any], payload: Payload) -> tuple[bytes | None, dict[str, Any]]:
    """The answer's JSON and what it says; marks the payload as failed where there is no message."""
    kind = result.get("type")
    message = result.get("message")
    if kind == "succeeded" and isinstance(message, dict):
        found = message_attributes(cast("dict[str, Any]", message), partial=False)
        found[at.SERVICE_TIER] = "batch"
        return json_text(message), found
    if kind == "errored":
        # The API's error body, {"type": "error", "error": {"type": ..., "message": ...}}.
        outer = _dict(result.get("error"))
        error = _dict(outer.get("error")) or outer
        name = error.get("type")
        name = name if isinstance(name, str) else "error"
        payload.failed = str(error.get("message") or name)
        return json_text(outer), {at.ERROR_TYPE: name, at.ERROR_CLASS: class_of_api_type(name)}
    name = kind if isinstance(kind, str) else "unreadable_batch_result"
    klass, happened = _WITHOUT_ANSWER.get(name, (DETERMINISTIC, "the result is none that Loopscope can read"))
    payload.failed = happened
    return None, {at.ERROR_TYPE: name, at.ERROR_CLASS: klass}


def _nanoseconds(value: object) -> int | None:
    """An RFC 3339 time, exactly."""
    if not isinstance(value, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _object(body: bytes | None) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return _dict(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

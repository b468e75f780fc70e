"""Requests about batches of messages, as they happen on the host's thread. Called by `calls.begin_call`.

Submitting a batch is one span (`create_batch`, no turn, no usage). Downloading its results is none, but each line of it
is one LLM call: lines are cut from the chunks as these pass, and read by the worker (`batch_results`). Retrieving a
batch is not recorded; it tells when the batch began and ended. Everything else about batches passes.

A download is never held: a line is given away as soon as it is whole.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from loopscope._internal import guard, runtime, scope
from loopscope._internal.errors import class_of_status, error_class_of
from loopscope._internal.recording import CLIENT, Recording, host_span, qualified_name
from loopscope._internal.runs import agent_attributes
from loopscope._internal.tools import recording_run_id
from loopscope_schemas import attributes as at

from .answers import Answer
from .batch_results import Batch, complete_result, complete_submission, remember
from .providers import provider_of
from .streams import CAPTURE_MAX_BYTES, StreamCapture, listen

if TYPE_CHECKING:
    from loopscope._internal.runtime import Runtime

CREATE_BATCH = "create_batch"
LOOKED_AT_MAX_BYTES = 64 * 1024
"""A batch's description has under 1 KB; a larger answer to a request for one is something else."""

_PATH = re.compile(r"/messages/batches(?:/(?P<id>[^/?]+)(?P<results>/results)?)?/?(?:\?.*)?$")


class Call(Protocol):
    """What `patching` tells of one request, in the order of events."""

    def attempt(self, request: Any, options: Any) -> Any: ...
    def answered(self, response: Any) -> Any: ...
    def returned(self) -> Any: ...
    def failed(self, error: BaseException) -> Any: ...


def begin_batch_call(active: Runtime, client: Any, options: Any) -> Call | None:
    """What listens to this request; None when it is about no batch or of no interest."""
    found = _PATH.search(options.url)
    if found is None:
        return None
    method, batch_id = options.method.lower(), found["id"]
    if method == "post" and batch_id is None:
        return BatchSubmission(active, client, options)
    if method == "get" and batch_id is not None:
        return BatchResults(active, client, unquote(batch_id)) if found["results"] else BatchLookup(unquote(batch_id))
    return None


class BatchLookup:
    """A batch is retrieved: its times are remembered, nothing is recorded."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    def attempt(self, request: Any, options: Any) -> None:
        pass

    @guard.guarded
    def answered(self, response: Any) -> None:
        body = _content(response) if response is not None and response.status_code == 200 else None
        if body is not None and len(body) <= LOOKED_AT_MAX_BYTES:
            remember(self._batch_id, body)

    def returned(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


class BatchSubmission:
    """A batch is submitted: one span, from the request to the answer."""

    def __init__(self, active: Runtime, client: Any, options: Any) -> None:
        outer = scope.current.get()
        run = outer.run if outer is not None else None
        attributes = dict(run.shared_attributes) if run is not None else _own_attributes(active)
        attributes[at.OPERATION_NAME] = CREATE_BATCH
        attributes |= _where(client)
        body = options.json_data
        requests = body.get("requests") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if isinstance(requests, list | tuple):
            attributes[at.BATCH_REQUESTS] = len(requests)  # pyright: ignore[reportUnknownArgumentType]
        parent = outer.span if outer is not None else host_span()
        self._recording: Recording = runtime.start(active, CREATE_BATCH, CLIENT, parent, attributes)
        if outer is not None:
            attributes[at.RUN_ID] = outer.run_id
        else:
            trace_id = self._recording.ids.trace_id
            attributes[at.RUN_ID] = f"{trace_id:032x}" if parent is None else recording_run_id()
        self._attempts = 0
        self._answer = Answer(requested=time.perf_counter(), capture_content=active.config.capture_content)
        self._stream: StreamCapture | None = None
        runtime.announce(self._recording, heartbeat=run is None)

    @guard.guarded
    def attempt(self, request: Any, options: Any) -> None:  # noqa: ARG002 - as `patching` calls it
        self._attempts += 1
        self._answer.request_body = _content(request)

    @guard.guarded
    def answered(self, response: Any) -> None:
        if response is None:
            return
        self._answer.status, self._answer.headers = response.status_code, response.headers
        self._answer.body = _content(response)
        if self._answer.body is None:
            capture = StreamCapture(self._stream_ended)
            if listen(response, capture):
                self._stream = capture

    @guard.guarded
    def returned(self) -> None:
        if self._stream is None:
            self._end()

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        kind, name = error_class_of(error), qualified_name(type(error))
        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            self._answer.status, self._answer.body = status, _content(response)
            if status >= 400:
                kind = class_of_status(status)
        self._recording.error(error, error_type=name, error_class=kind)
        self._end()

    @guard.guarded
    def _stream_ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
        self._end()

    def _end(self) -> None:
        if not self._recording.open:
            return
        answer, stream = self._answer, self._stream
        attributes: dict[str, Any] = {at.HTTP_ATTEMPTS: self._attempts}
        if answer.status is not None:
            attributes[at.HTTP_STATUS_CODE] = answer.status
        self._recording.set(attributes)
        if stream is not None:
            answer.chunks, answer.streamed, answer.exhausted = stream.chunks, True, stream.exhausted
            stream.release()
        payload = self._recording.payload
        payload.size = len(answer.request_body or b"") + len(answer.body or b"") + sum(map(len, answer.chunks))
        payload.complete = functools.partial(complete_submission, answer)
        self._stream = None
        runtime.end(self._recording)


class BatchResults:
    """The results of a batch are downloaded: each line becomes a span of its own."""

    def __init__(self, active: Runtime, client: Any, batch_id: str) -> None:
        attributes = _own_attributes(active)
        attributes[at.OPERATION_NAME] = "chat"
        attributes[at.TURN] = 1
        attributes[at.BATCH_ID] = batch_id
        attributes |= _where(client)
        self._batch = Batch(batch_id, attributes, capture_content=active.config.capture_content)

    def attempt(self, request: Any, options: Any) -> None:
        pass

    @guard.guarded
    def answered(self, response: Any) -> None:
        if response is None or response.status_code != 200:
            return
        body = _content(response)
        if body is None:
            listen(response, ResultLines(self._batch, _decoder(response)))
        else:
            lines = ResultLines(self._batch, None)
            lines.decoded(body)
            lines.end(exhausted=True)

    def returned(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


class ResultLines(StreamCapture):
    """Listens to the body of a download and makes a span of each line."""

    def __init__(self, batch: Batch, decoder: Any) -> None:
        super().__init__(_nothing)
        self._batch = batch
        self._decoder = decoder
        self._open = True
        self._begun: list[bytes] = []
        """The parts of the line that is not whole yet."""
        self._begun_bytes = 0

    @guard.guarded
    def chunk(self, data: Any) -> None:
        if self._open:
            for piece in _pieces(self._decoder.decode(data) if self._decoder is not None else data):
                self.decoded(piece)

    def decoded(self, data: bytes) -> None:
        """A part of the JSON lines."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._line(b"".join([*self._begun, line]) if self._begun else line)
            self._begun, self._begun_bytes = [], 0
        self._begun_bytes += len(rest)
        if rest and self._begun_bytes <= CAPTURE_MAX_BYTES:
            self._begun.append(rest)

    @guard.guarded
    def end(self, error: BaseException | None = None, *, exhausted: bool = False) -> None:  # noqa: ARG002 - the base's
        """The download is over. A last line without its line break counts when the download was whole."""
        if not self._open:
            return
        self._open = False
        if exhausted:
            for piece in _pieces(self._decoder.flush() if self._decoder is not None else b""):
                self.decoded(piece)
            self.decoded(b"\n")
        self._begun = []

    def _line(self, line: bytes) -> None:
        active = runtime.active()
        if self._begun_bytes > CAPTURE_MAX_BYTES:
            guard.count("spans_dropped")
            guard.warn_once("batch line", "loopscope: a batch's result is too large to hold; it is not recorded")
        elif active is not None and line.strip():
            # A dictionary of its own: what the line says is added by the worker.
            recording = runtime.start(active, "chat", CLIENT, None, dict(self._batch.attributes))
            recording.payload.size = len(line)
            recording.payload.complete = functools.partial(complete_result, recording, self._batch, line)
            runtime.end(recording)


def _own_attributes(active: Runtime) -> dict[str, Any]:
    config = active.config
    return agent_attributes(
        agent=config.agent,
        version=config.agent_version,
        conversation_id=config.conversation_id,
        user_id=config.user_id,
    )


def _where(client: Any) -> dict[str, Any]:
    base_url = client.base_url
    port = base_url.port or (443 if base_url.scheme == "https" else 80)
    return {at.PROVIDER_NAME: provider_of(client), at.SERVER_ADDRESS: base_url.host, at.SERVER_PORT: port}


def _content(message: Any) -> bytes | None:
    """The body of a request or response that is in memory, by reference; None when it is a stream."""
    try:
        content = message.content
    except Exception:  # noqa: BLE001 - "not read yet", in the words of httpx or of a stand-in for it
        return None
    return content if isinstance(content, bytes) else None


def _decoder(response: Any) -> Any:
    """What undoes the content encoding of the chunks of a body: the HTTP library's own, as it must be one that it asked
    for. None when the chunks are plain."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return None
    library = sys.modules[type(response).__module__.partition(".")[0] + "._decoders"]
    return library.SUPPORTED_DECODERS[encoding]()


def _pieces(decoded: Any) -> Iterable[bytes]:
    """What a decoder gave: bytes from httpx, pieces of bounded size from httpx2."""
    return (decoded,) if isinstance(decoded, bytes) else decoded


def _nothing(error: BaseException | None) -> None:
    """A download's end ends no span."""

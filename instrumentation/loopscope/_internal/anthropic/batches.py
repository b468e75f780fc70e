"""Looking at a batch and downloading its results, as it happens on the host's thread. Called by `calls.begin_call`.

Downloading is no span, but each line of the results is one LLM call: lines are cut from the chunks as these pass, and
read by the worker (`batch_results`). Retrieving a batch is not recorded; it tells when the batch was created and ended.
Submitting one is an operation like others (`calls`).

A download is never held: a line is given away as soon as it is whole.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from loopscope._internal import guard, runtime
from loopscope._internal.recording import CLIENT
from loopscope._internal.runs import owner_attributes
from loopscope_schemas import attributes as at

from .batch_results import Batch, complete_result, remember, times_of
from .operations import CHAT
from .providers import provider_of
from .streams import CAPTURE_MAX_BYTES, StreamCapture, listen

if TYPE_CHECKING:
    from loopscope._internal.runtime import Runtime

LOOKED_AT_MAX_BYTES = 64 * 1024
"""A batch's description has under 1 KB; a larger answer to a request for one is something else."""

_PATH = re.compile(r"/messages/batches/(?P<id>[^/?]+)(?P<results>/results)?/?(?:\?.*)?$")


class Listener:
    """Of a request that is no call of its own: only its answer is of interest."""

    def attempt(self, client: Any, request: Any, options: Any) -> None: ...
    def refused(self, response: Any) -> None: ...
    def retrying(self, delay: Any) -> None: ...
    def answered(self, response: Any) -> Any: ...
    def returned(self) -> None: ...
    def failed(self, error: BaseException) -> None: ...


def begin_batch_request(active: Runtime, client: Any, options: Any) -> Listener | None:
    """What listens to this request; None when it is about no batch or of no interest."""
    found = _PATH.search(options.url) if options.method.lower() == "get" else None
    if found is None:
        return None
    batch_id = unquote(found["id"])
    return BatchResults(active, client, batch_id) if found["results"] else BatchLookup(batch_id)


class BatchLookup(Listener):
    """A batch is retrieved: its times are remembered, nothing is recorded."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    @guard.guarded
    def answered(self, response: Any) -> None:
        body = _content(response) if response is not None and response.status_code == 200 else None
        if body is not None and len(body) <= LOOKED_AT_MAX_BYTES:
            remember(self._batch_id, body)


class BatchResults(Listener):
    """The results of a batch are downloaded: each line becomes a span of its own."""

    def __init__(self, active: Runtime, client: Any, batch_id: str) -> None:
        attributes = _own_attributes(active)
        attributes[at.OPERATION_NAME] = CHAT
        attributes[at.TURN] = 1
        attributes[at.BATCH_ID] = batch_id
        base_url = client.base_url
        attributes[at.PROVIDER_NAME] = provider_of(client)
        attributes[at.SERVER_ADDRESS] = base_url.host
        attributes[at.SERVER_PORT] = base_url.port or (443 if base_url.scheme == "https" else 80)
        times = times_of(batch_id)
        self._batch = Batch(batch_id, times, attributes)

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
            recording = runtime.start(active, CHAT, CLIENT, None, dict(self._batch.attributes))
            recording.payload.size = len(line)
            recording.payload.complete = functools.partial(complete_result, recording, self._batch, line)
            runtime.end(recording)


def _own_attributes(active: Runtime) -> dict[str, Any]:
    return owner_attributes(active.config, None)


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

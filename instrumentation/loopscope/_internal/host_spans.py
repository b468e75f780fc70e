"""Standard GenAI spans in the host's own OpenTelemetry pipeline, where its owner asks for them.

Made afterwards, through the host's global TracerProvider, on a thread of their own: its sampler, limits, processors and
exporters apply, and however long they take, neither the host nor our own recording waits. Bounded; what does not fit is
counted. The copies have the ids that the host's provider gives them.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from loopscope_schemas import attributes as at

from . import guard

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.trace import Tracer

    from .recording import Start

QUEUE_MAX_ITEMS = 10_000
QUEUE_MAX_BYTES = 32 * 1024 * 1024
OPEN_MAX = 10_000
"""Spans begun and not ended; beyond it the oldest is forgotten, and its children stand alone."""
SCOPE = "loopscope.genai"


class _Began(NamedTuple):
    start: Start
    parent: Any
    size: int = 0


class _Ended(NamedTuple):
    start: Start
    end_time: int
    span: bytes
    size: int


class _Done(NamedTuple):
    reached: threading.Event
    size: int = 0


def current_host_context(start: Start) -> Any:
    """The host's span context that is this span's parent, if it is one of the host's. On the host's thread."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not start.parent_id:
        return None
    context = api.get_current_span().get_span_context()
    return context if context.span_id == start.parent_id else None


class HostSpans:
    def __init__(self, version: str, *, content: bool) -> None:
        self._version = version
        self._content = content
        self._queue: queue.SimpleQueue[_Began | _Ended | _Done] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._held_items = 0
        self._thread: threading.Thread | None = None
        self._open: dict[int, Any] = {}
        """Our span id -> the host's span, or the context that stands for a run that nobody declared."""

    # --- called by the worker ---

    def began(self, start: Start, parent: Any) -> None:
        """A span began, below this context of the host's where it has one."""
        self._put(_Began(start, parent))

    def ended(self, start: Start, end_time: int, parts: Sequence[bytes]) -> None:
        """A span ended; its encoded parts, the one without large content first."""
        span = b"".join(parts) if self._content else parts[0]
        self._put(_Ended(start, end_time, span, len(span)))

    def wait(self, seconds: float) -> None:
        """Wait until the host's pipeline has what was handed over so far."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put(_Done(done))
            done.wait(max(seconds, 0.0))

    def _put(self, item: _Began | _Ended) -> None:
        with self._lock:
            full = self._held_items and self._held_bytes + item.size > QUEUE_MAX_BYTES
            if full or self._held_items >= QUEUE_MAX_ITEMS:
                guard.count("host_spans_dropped")
                return
            self._held_items += 1
            self._held_bytes += item.size
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="loopscope-host-spans", daemon=True)
            self._thread.start()
        self._queue.put(item)

    # --- the thread ---

    def _run(self) -> None:
        from . import forks

        with forks.importing:
            from opentelemetry import trace

            from . import genai_spans  # noqa: F401  # pyright: ignore[reportUnusedImport] - imported under the lock
        tracer = trace.get_tracer(SCOPE, self._version)
        while True:
            item = self._queue.get()
            if isinstance(item, _Done):
                item.reached.set()
                continue
            try:
                if isinstance(item, _Began):
                    self._begin(tracer, item.start, item.parent)
                else:
                    self._end(tracer, item)
            except Exception as error:  # noqa: BLE001 - the host's processors and ours alike: the next one goes on
                guard.swallowed("loopscope host spans", error)
            with self._lock:
                self._held_items -= 1
                self._held_bytes -= item.size

    def _begin(self, tracer: Tracer, start: Start, parent: Any) -> None:
        if len(self._open) >= OPEN_MAX:
            del self._open[next(iter(self._open))]
        self._open[start.span_id] = self._made(tracer, start, parent)

    def _made(self, tracer: Tracer, start: Start, parent: Any) -> Any:
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

        above = self._open.get(start.parent_id)
        if above is None and parent is not None:
            above = NonRecordingSpan(parent)
        if start.attributes.get(at.RUN_INFERRED) and start.attributes.get(at.OPERATION_NAME) == "invoke_agent":
            return above
        return tracer.start_span(
            start.name,
            context=Context() if above is None else set_span_in_context(above, Context()),
            kind=SpanKind(start.kind - 1),  # OTLP counts from 1
            attributes=self._known_at_start(start.attributes),
            start_time=start.start_time,
        )

    def _known_at_start(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What a sampler may look at."""
        from .genai_spans import CONTENT, OPERATIONS

        known = {
            name: value
            for name, value in attributes.items()
            if not name.startswith(at.OWN_PREFIX)
            and (self._content or name not in CONTENT)
            and isinstance(value, str | bool | int | float)
        }
        if known.get(at.OPERATION_NAME) not in OPERATIONS:
            known.pop(at.OPERATION_NAME, None)
        return known

    def _end(self, tracer: Tracer, item: _Ended) -> None:
        from opentelemetry.trace import Status, StatusCode

        from .genai_spans import standard_span

        span = self._open.pop(item.start.span_id, None)
        standard = standard_span(item.span, content=self._content)
        if standard is None:
            return
        if span is None:
            # Its beginning was dropped. Attributes of the finished span are scrubbed, those of its start may not be.
            span = self._made(tracer, item.start._replace(attributes={}), None)
        if not span.is_recording():
            span.end(item.end_time)
            return
        span.set_attributes({attribute.key: _value(attribute.value) for attribute in standard.attributes})
        for event in standard.events:
            values = {attribute.key: _value(attribute.value) for attribute in event.attributes}
            span.add_event(event.name, values, event.time_unix_nano)
        if standard.status.code == standard.status.STATUS_CODE_ERROR:
            span.set_status(Status(StatusCode.ERROR, standard.status.message or None))
        span.end(item.end_time)


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case None:
            return ""
        case name:
            return getattr(value, name)

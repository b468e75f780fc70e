"""One span being recorded: begun, given attributes, ended once. Runs, LLM calls and tool calls are made of these.

This is Loopscope's private tracer: every span is recorded, nothing is limited, nothing is global, and the host's own
tracer provider is neither used nor changed. It writes down ids, times and references and nothing else. (A span of
OpenTelemetry's SDK does the same for 200 us more on the host's thread, measured between calls 30 ms apart, and reads
limits and samplers from the environment that were set for the host's telemetry.) Encoding as OTLP is the worker's job.

Nothing here may block, parse or copy what is large; it runs on the host's thread.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from loopscope_schemas import attributes as at

INTERNAL, CLIENT = 1, 3
"""OTLP's numbers of the span kinds we use."""
STACKTRACE_MAX_CHARS = 20_000
"""The innermost part of a stack trace is kept; a recursion error's would be megabytes."""


class SpanIds(NamedTuple):
    """Which span."""

    trace_id: int
    span_id: int


NOWHERE = SpanIds(0, 0)
"""No span of ours."""


def new_trace_id() -> int:
    """From the operating system: a host that seeds the shared `random` would give two processes the same ids, and would
    see its own random numbers shifted by ours."""
    return int.from_bytes(os.urandom(16), "big") or 1


def new_span_id() -> int:
    return int.from_bytes(os.urandom(8), "big") or 1


def host_span() -> SpanIds | None:
    """The span that the host has current in OpenTelemetry's context, if any. Without OpenTelemetry there is none."""
    otel: Any = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return None
    context = otel.get_current_span().get_span_context()
    return SpanIds(context.trace_id, context.span_id) if context.is_valid else None


class Payload:
    """What goes on a span beside its start: filled by the host's thread by reference, completed by the worker."""

    __slots__ = ("attributes", "awaited", "bodies", "complete", "events", "failed", "settled", "size", "texts")

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        """What became known after the start."""
        self.texts: dict[str, bytes] = {}
        """Attribute name -> UTF-8 text, becomes a string value."""
        self.bodies: dict[str, bytes] = {}
        """Attribute name -> bytes, becomes a bytes value."""
        self.events: list[tuple[int, str, Mapping[str, Any]]] = []
        """(Unix nanoseconds, name, attributes)."""
        self.complete: Callable[[Payload], Mapping[str, Any]] | None = None
        """Run by the worker before encoding: may parse, adds bodies, returns further attributes."""
        self.failed: str | None = None
        """The error's message, when the span failed."""
        self.settled: Callable[[Mapping[str, Any]], None] | None = None
        """Told all attributes by the worker, once they are complete."""
        self.awaited = False
        """Whether the host's thread will have to read the content itself if the worker does not do so soon."""
        self.size = 0
        """Bytes that `complete` holds; they count towards the queue's bound."""

    def release(self) -> None:
        """Let go of the content: it is written."""
        self.texts.clear()
        self.bodies.clear()
        self.events.clear()
        self.complete = None
        self.settled = None


class Start(NamedTuple):
    """A span as it began: what a start marker is made of. Its attributes do not change once it was announced."""

    trace_id: int
    span_id: int
    parent_id: int
    kind: int
    name: str
    start_time: int
    attributes: Mapping[str, Any]
    content: bool = True
    """Whether text may be recorded; without it the worker keeps numbers and names only."""


class Recording:
    """A span that is open. It ends once; a copy that a forked child inherited never does."""

    __slots__ = ("_clock", "end_time", "generation", "ids", "payload", "start")

    def __init__(
        self,
        generation: int,
        name: str,
        kind: int,
        parent: SpanIds | None,
        attributes: Mapping[str, Any],
        *,
        content: bool = True,
    ) -> None:
        self.generation = generation
        self.payload = Payload()
        self.ids = SpanIds(parent.trace_id if parent is not None else new_trace_id(), new_span_id())
        self.start = Start(
            self.ids.trace_id,
            self.ids.span_id,
            parent.span_id if parent is not None else 0,
            kind,
            name,
            time.time_ns(),
            attributes,
            content,
        )
        self.end_time = 0
        """Unix nanoseconds; 0 while open."""
        # Duration by the monotonic clock: a wall clock that is set back must not give a negative one.
        self._clock = time.perf_counter_ns()

    @classmethod
    def again(cls, other: Recording) -> Recording:
        """The same span, open and without what became known after its start: for one that turned out to go on."""
        twin = cls.__new__(cls)
        twin.generation, twin.ids, twin.start = other.generation, other.ids, other.start
        twin.payload, twin.end_time, twin._clock = Payload(), 0, other._clock
        return twin

    @property
    def content(self) -> bool:
        """Whether text may be recorded."""
        return self.start.content

    @property
    def open(self) -> bool:
        return self.end_time == 0

    def now(self, at_clock: int | None = None) -> int:
        """Unix ns by this span's own clock: the wall clock at its start, monotonic since. Or of an earlier
        `time.perf_counter_ns()`."""
        passed = (time.perf_counter_ns() if at_clock is None else at_clock) - self._clock
        return self.start.start_time + max(passed, 0)

    def close(self, at_time: int | None = None) -> bool:
        """End now, or at a time in Unix ns; False when it had ended before."""
        if self.end_time:
            return False
        self.end_time = at_time or self.now()
        return True

    def began(self, at_clock: int) -> None:
        """It began earlier than it was noticed, at this `time.perf_counter_ns()`. Before it is announced only."""
        self.start = self.start._replace(start_time=self.start.start_time - self._clock + at_clock)
        self._clock = at_clock

    def set(self, attributes: Mapping[str, Any]) -> None:
        self.payload.attributes.update(attributes)

    def event(self, name: str, attributes: Mapping[str, Any]) -> None:
        self.payload.events.append((time.time_ns(), name, attributes))

    def error(self, error: BaseException, *, error_type: str, error_class: str) -> None:
        """Mark the span as failed with this exception."""
        message = safe_text(error)
        self.payload.failed = message
        self.set({at.ERROR_TYPE: error_type, at.ERROR_CLASS: error_class})
        self.event(
            at.EXCEPTION_EVENT,
            {
                at.EXCEPTION_TYPE: qualified_name(type(error)),
                at.EXCEPTION_MESSAGE: message,
                at.EXCEPTION_STACKTRACE: stack_of(error),
            },
        )


def qualified_name(cls: type) -> str:
    """`module.Class`, without the module for a builtin."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def safe_text(error: BaseException) -> str:
    """An exception's message; one whose own `__str__` raises is named by its class."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the host's code; whatever it raises, we only wanted a text
        return f"<{qualified_name(type(error))} without a readable message>"


def stack_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error, limit=-50))
    except Exception:  # noqa: BLE001 - formatting calls __str__ and __repr__ of the host's objects
        return ""
    return text[-STACKTRACE_MAX_CHARS:]

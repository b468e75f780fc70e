"""One span being recorded: begun, given attributes, ended once. Runs, LLM calls and tool calls are made of these.

Large content (bodies, arguments, results) travels beside the span in a Payload, by reference: the worker scrubs and
encodes it. Nothing here may block, parse or copy what is large; it runs on the host's thread.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loopscope_schemas import attributes as at

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import SpanContext

INTERNAL, CLIENT = 1, 3
"""OTLP's numbers of the span kinds we use."""
STACKTRACE_MAX_CHARS = 20_000
"""The innermost part of a stack trace is kept; a recursion error's would be megabytes."""


@dataclass(slots=True)
class Payload:
    """What goes on a span besides its small attributes."""

    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    """What became known after the start. Kept here and not on the SDK's span, which would check and copy each value."""
    texts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Attribute name -> UTF-8 text, becomes a string value."""
    bodies: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Attribute name -> bytes, becomes a bytes value."""
    complete: Callable[[Payload], Mapping[str, Any]] | None = None
    """Run by the worker before encoding: may parse, adds bodies, returns further attributes."""
    failed: str | None = None
    """Set by `complete`: description of an error that only the content shows (a stream's error event)."""
    size: int = 0
    """Bytes held beyond the object itself; what the queue's bound counts."""


@dataclass(slots=True)
class Start:
    """A span as it began: what a start marker is made of. Not changed after it was announced."""

    trace_id: int
    span_id: int
    parent_id: int
    kind: int
    name: str
    start_time: int
    attributes: Mapping[str, Any]


class Recording:
    """A span that is open. `end` works once; a copy that a forked child inherited never ends."""

    __slots__ = ("_clock", "_ended", "context", "generation", "payload", "span", "start")

    def __init__(
        self,
        span: Span,
        generation: int,
        name: str,
        kind: int,
        parent: SpanContext | None,
        attributes: Mapping[str, Any],
        start_time: int,
    ) -> None:
        self.span = span
        self.context: SpanContext = span.get_span_context()
        self.generation = generation
        self.payload = Payload()
        self.start = Start(
            trace_id=self.context.trace_id,
            span_id=self.context.span_id,
            parent_id=parent.span_id if parent is not None else 0,
            kind=kind,
            name=name,
            start_time=start_time,
            attributes=attributes,
        )
        # Duration by the monotonic clock: a wall clock that is set back must not give a negative one.
        self._clock = time.perf_counter_ns()
        self._ended = False

    @property
    def open(self) -> bool:
        return not self._ended

    def elapsed_ns(self) -> int:
        return time.perf_counter_ns() - self._clock

    def set(self, attributes: Mapping[str, Any]) -> None:
        self.payload.attributes.update(attributes)

    def error(self, error: BaseException, *, error_type: str, error_class: str, description: str | None = None) -> None:
        """Mark the span as failed with this exception."""
        from opentelemetry.trace import Status, StatusCode

        message = safe_text(error) if description is None else description
        self.span.set_status(Status(StatusCode.ERROR, message))
        self.set({at.ERROR_TYPE: error_type, at.ERROR_CLASS: error_class})
        self.span.add_event(
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

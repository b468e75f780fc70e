"""Where in the recording the running code is: which run, and which of our spans encloses it.

A context variable of ours, so asyncio tasks and threads that copy their context inherit it. Our spans are deliberately
never made current in OpenTelemetry's own context: a host's span would then hang below a parent that its backend never
receives, and its ParentBased sampler would follow our always-on flag. Our tree is complete in itself; a run that begins
inside a host's trace takes the trace id and, as its parent, the span of the host.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config
    from .recording import SpanIds
    from .runs import Run


current: ContextVar[Scope | None] = ContextVar("loopscope_scope", default=None)


def inherited() -> str | None:
    """How much the enclosing run records; None outside of any."""
    outer = current.get()
    return outer.capture if outer is not None else None


@dataclass(frozen=True, slots=True)
class Scope:
    """The innermost span of ours around the running code, and its run (None inside a tool outside of any run)."""

    span: SpanIds
    """`recording.NOWHERE` inside a run that is not recorded (capture off) and that nothing of ours encloses."""
    run: Run | None
    run_id: str
    capture: str | None = field(default_factory=inherited)
    """How much is recorded here: that of the innermost run; None outside of any."""


def capture_here(config: Config) -> str:
    """How much is recorded where the running code is: full, metadata or off."""
    return inherited() or config.capture.of(config.agent)


def leave(previous: Scope | None) -> None:
    """Go back to an outer scope. No token: a generator may be closed from another context than it was entered in."""
    current.set(previous)

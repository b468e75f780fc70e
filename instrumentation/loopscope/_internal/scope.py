"""Where in the recording the running code is: which run, and which of our spans encloses it. Ask `here()`.

A context variable of ours, so asyncio tasks and threads that copy their context inherit it. Our spans are deliberately
never made current in OpenTelemetry's own context: a host's span would then hang below a parent that its backend never
receives, and its ParentBased sampler would follow our always-on flag. Our tree is complete in itself; a run that begins
inside a host's trace takes the trace id and, as its parent, the span of the host.

A context variable that a generator sets stays set in the code that consumes it, and is gone where the consumer resumes
it in another context (a web framework that streams from a thread pool). So a scope that was entered in a generator's
own frame is *anchored* to that frame: it holds while the frame executes, wherever that is, and nowhere else. A
generator that only serves as the two halves of a `with` block (contextlib, test fixtures) is not anchored.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import guard

if TYPE_CHECKING:
    from .config import Config
    from .recording import SpanIds
    from .runs import Run

MAX_ANCHORS = 10_000
"""Generators at once; beyond it a scope is not anchored, so that abandoned generators cannot fill the memory."""
_BLOCK_DRIVERS = ("contextlib", "_pytest", "pytest_asyncio", "pytest_trio")
"""Modules that resume a generator so that other code runs inside of it."""
_Owner = tuple[int, Any]

frame_above = sys._getframe  # pyright: ignore[reportPrivateUsage] - inspect.currentframe() is this, one call slower
"""The frame so many calls above the one that asks (0: its own)."""


current: ContextVar[Scope | None] = ContextVar("loopscope_scope", default=None)
"""Set it only with what `here()` gave or `entered` made; read it only to put it back."""


def inherited() -> str | None:
    """How much the enclosing run records; None outside of any."""
    outer = here()
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
    anchor: Anchor | None = None
    """The innermost anchored generator that was executing when the scope was entered."""

    def detached(self) -> Scope:
        """The same place, for another thread, task or process: bound to no generator of this one."""
        return self if self.anchor is None else replace(self, anchor=None)


class Anchor:
    """A scope entered in a generator's own frame."""

    __slots__ = ("frame", "outer", "owner", "scope")

    def __init__(self, frame: FrameType, outer: Scope | None) -> None:
        self.frame = frame
        self.outer = outer
        """Where the code around the generator was."""
        self.owner = _owner()
        """Thread and task whose context the scope was put into; there it may be left behind."""
        self.scope: Scope | None = None


_anchors: dict[FrameType, list[Anchor]] = {}


def capture_here(config: Config) -> str:
    """How much is recorded where the running code is: full, metadata or off."""
    return inherited() or config.capture.of(config.agent)


def here() -> Scope | None:
    """The scope that the calling code is in, or None."""
    inside = current.get()
    if not amid_generators(inside):
        return inside
    return _resolve(inside, frame_above(1))


def amid_generators(inside: Scope | None) -> bool:
    """Whether the variable alone may be wrong: a generator has a run of its own open, or left `inside` behind."""
    return bool(_anchors) or (inside is not None and inside.anchor is not None)


@guard.guarded
def _resolve(inside: Scope | None, frame: FrameType | None) -> Scope | None:
    step = _event_loop_step()
    while frame is not None and frame.f_code is not step:
        entries = _anchors.get(frame)
        if entries:
            innermost = entries[-1]
            return inside if inside is not None and inside.anchor is innermost else innermost.scope
        frame = frame.f_back
    # No anchored generator executes here: one's scope is either left behind by it, or was inherited.
    me: _Owner | None = None
    while inside is not None and inside.anchor is not None:
        me = me or _owner()
        if inside.anchor.owner != me:
            return inside.detached()
        inside = inside.anchor.outer
    return inside


def generator(frame: FrameType | None) -> FrameType | None:
    """The frame, when it is a generator's that does not merely serve as a `with` block; else None."""
    if frame is None or not frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return None
    driver = frame.f_back
    name = str(driver.f_globals.get("__name__", "")) if driver is not None else ""
    return None if name.partition(".")[0] in _BLOCK_DRIVERS else frame


def entered(inside: Scope, outer: Scope | None, frame: FrameType | None) -> Scope:
    """The scope to make current for code in `outer` (as `here()` gave it); anchored to `frame` if that is given."""
    if frame is None or len(_anchors) >= MAX_ANCHORS:
        return replace(inside, anchor=outer.anchor if outer is not None else None)
    anchor = Anchor(frame, outer)
    anchor.scope = inside = replace(inside, anchor=anchor)
    _anchors.setdefault(frame, []).append(anchor)
    return inside


def left(inside: Scope) -> None:
    """The generator that `inside` is anchored to, if it is, has left it."""
    anchor = inside.anchor
    if anchor is None or anchor.scope is not inside:
        return
    entries = _anchors.get(anchor.frame, [])
    if anchor in entries:
        entries.remove(anchor)
    if not entries:
        _anchors.pop(anchor.frame, None)


def leave(inside: Scope, outer: Scope | None) -> None:
    """Go back to `outer`. No token: a generator may be closed from another context than it was entered in; then the
    scope that is current there is not ours to replace."""
    left(inside)
    now = current.get()
    anchored = inside.anchor is not None and inside.anchor.scope is inside
    if anchored and now is not inside and (now is None or now.anchor is not inside.anchor):
        return
    current.set(outer)


def _owner() -> _Owner:
    """Whose context this is: contexts have no identity of their own that could be asked for."""
    task: Any = None
    asyncio: Any = sys.modules.get("asyncio.tasks")
    if asyncio is not None and sys.modules["asyncio.events"]._get_running_loop() is not None:
        task = asyncio.current_task()
    elif trio := sys.modules.get("trio"):
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:
            task = None  # not in a trio task
    return threading.get_ident(), weakref.ref(task) if task is not None else None


def _event_loop_step() -> Any:
    """The code of the frame below which the event loop's own caller stands: another task's matter."""
    events: Any = sys.modules.get("asyncio.events")
    return events.Handle._run.__code__ if events is not None else None

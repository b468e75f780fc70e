"""`run.step(name)`: a named part of a run, as a span of its own; and the helpers `step`, `event` and `route` that act
on the run the calling code is in.

A step is a context manager (sync and async) and a decorator of functions of every kind but generators. Outside of any
run, or while nothing is configured, it does nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, NamedTuple, TypeVar, cast

from loopscope_schemas import attributes as at

from . import guard, runtime, scope
from .errors import error_class_of
from .recording import INTERNAL, Recording, qualified_name
from .runs import Run, current_run, is_failure

F = TypeVar("F", bound=Callable[..., Any])


class _Entry(NamedTuple):
    recording: Recording
    inside: scope.Scope
    outer: scope.Scope | None


class Step:
    """A named part of a run. Get one from `run.step(name)` or `loopscope.step(name)`; it may be entered repeatedly."""

    def __init__(self, name: str, run: Run | None = None) -> None:
        self._name = name
        self._run = run
        """None: a step of whichever run the code is in when it enters."""
        self._entries: list[_Entry | None] = []

    @property
    def name(self) -> str:
        """What the step was called."""
        return self._name

    def __enter__(self) -> Step:
        self._entries.append(self._begin(scope.frame_above(1)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    async def __aenter__(self) -> Step:
        self._entries.append(self._begin(scope.frame_above(1)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def __call__(self, function: F) -> F:
        """Make each call of a function a step of this name."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_async_step(*args: Any, **kwargs: Any) -> Any:
                with Step(self._name, self._run):
                    return await function(*args, **kwargs)

            return cast("F", in_async_step)

        @functools.wraps(function)
        def in_step(*args: Any, **kwargs: Any) -> Any:
            with Step(self._name, self._run):
                return function(*args, **kwargs)

        return cast("F", in_step)

    @guard.guarded
    def _begin(self, caller: FrameType | None) -> _Entry | None:
        active, around = runtime.active(), scope.here()
        run = self._run or (around.run if around is not None else None)
        if active is None or run is None:
            return None
        outer = around if around is not None and around.run is run else run.scope
        if outer is None:
            return None
        attributes = dict(run.shared_attributes)
        attributes[at.OPERATION_NAME] = "step"
        attributes[at.STEP_NAME] = str(self._name)
        recording = runtime.start(active, f"step {self._name}", INTERNAL, outer.span, attributes)
        attributes[at.RUN_ID] = run.id
        runtime.announce(recording, heartbeat=False)
        inside = scope.entered(scope.Scope(recording.ids, run, run.id), around, scope.generator(caller))
        scope.current.set(inside)
        return _Entry(recording, inside, around)

    @guard.guarded
    def _end(self, error: BaseException | None) -> None:
        entry = self._entered_here()
        if entry is None:
            return
        scope.leave(entry.inside, entry.outer)
        if error is not None and is_failure(error):
            entry.recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
        runtime.end(entry.recording)

    def _entered_here(self) -> _Entry | None:
        """The entry that is being left: one object may be entered by several threads or tasks at once."""
        now = scope.here()
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            if entry is not None and entry.inside is now:
                return self._entries.pop(index)
        return self._entries.pop() if self._entries else None


def step(name: str) -> Step:
    """A step of the run that the code is in when it enters; see `Run.step`. Without a run it does nothing."""
    return Step(name)


@guard.guarded
def event(name: str, **attributes: Any) -> None:
    """Note something that happened now in the current run; see `Run.event`. Without a run it does nothing."""
    run = current_run()
    if run is not None:
        run.event(name, **attributes)


@guard.guarded
def route(
    chosen: str,
    *,
    name: str | None = None,
    alternatives: Iterable[object] | None = None,
    reason: str | None = None,
    **attributes: Any,
) -> None:
    """Note a routing decision in the current run; see `Run.route`. Without a run it does nothing."""
    run = current_run()
    if run is not None:
        run.route(chosen, name=name, alternatives=alternatives, reason=reason, **attributes)

"""`@loopscope.agent`: each call of the decorated function is a run. Plain, async, and both kinds of generators.

The wrapped function's result, exceptions and signature stay as they are. A generator's run is current only while the
generator itself executes, never in the code that consumes it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from types import FrameType
from typing import Any, TypeVar, cast, overload

from . import guard, runtime, scope
from .arguments import bound_arguments
from .capture import CaptureMode, mode_of
from .limits import Limits, limits_of
from .runs import Run

F = TypeVar("F", bound=Callable[..., Any])


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(
    *,
    name: str | None = None,
    version: str | None = None,
    config: Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    capture: CaptureMode | None = None,
) -> Callable[[F], F]: ...
def agent(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    config: Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    capture: CaptureMode | None = None,
) -> F | Callable[[F], F]:
    """Record each call of a function as a run.

    `name` is the agent's (default: the function's name), `version` the agent's version, `config` whatever it is
    configured with, `limits` what each run may use (default: the configured limits). The run's input is the arguments,
    its final answer the return value. `capture`: how much is recorded of it and of all that it calls, "full",
    "metadata" (no text) or "off" (nothing).

    Raises ConfigurationError, when the function is decorated, for another `capture` or `limits` that cannot be.
    """
    if capture is not None:
        mode_of(capture, "agent(capture=...)")

    allowed = limits_of(limits, "agent(limits)")

    def decorate(target: F) -> F:
        label = name or getattr(target, "__name__", type(target).__name__)

        def new_run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
            given = bound_arguments(target, args, kwargs) if runtime.configured() is not None else None
            return Run(label, input=given, version=version, config=config, limits=allowed, capture=capture)

        return cast("F", guard.guarded(_wrap)(target, guard.guarded(new_run)) or target)

    return decorate if function is None else decorate(function)


NewRun = Callable[[tuple[Any, ...], dict[str, Any]], Run | None]
"""Gives None where something of ours fails: the function is then called as if it were not decorated."""


def _wrap(target: Callable[..., Any], new_run: NewRun) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(target):
        return _async_generator(target, new_run)
    if inspect.isgeneratorfunction(target):
        return _generator(target, new_run)
    if inspect.iscoroutinefunction(target):

        @functools.wraps(target)
        async def in_async_run(*args: Any, **kwargs: Any) -> Any:
            run = new_run(args, kwargs)
            if run is None:
                return await target(*args, **kwargs)
            with run:
                result = await target(*args, **kwargs)
                _answer(run, result)
                return result

        return in_async_run

    @functools.wraps(target)
    def in_run(*args: Any, **kwargs: Any) -> Any:
        run = new_run(args, kwargs)
        if run is None:
            return target(*args, **kwargs)
        with run:
            result = target(*args, **kwargs)
            _answer(run, result)
            return result

    return in_run


@guard.guarded
def _answer(run: Run | None, result: object) -> None:
    if run is not None and run.final_answer is None and result is not None:
        run.final_answer = result


class _Inside:
    """Makes a run current for one step of its generator, whose frame the run is anchored to until `finish`."""

    __slots__ = ("_around", "_run", "_scope")

    def __init__(self, run: Run, frame: FrameType | None) -> None:
        self._run = run
        self._scope: scope.Scope | None = None
        self._anchor(frame)

    @guard.guarded
    def _anchor(self, frame: FrameType | None) -> None:
        if self._run.scope is not None:
            self._scope = scope.entered(self._run.scope, scope.here(), frame)

    @guard.guarded
    def __enter__(self) -> None:
        self._around = scope.current.get()
        if self._scope is not None:
            scope.current.set(self._scope)

    @guard.guarded
    def __exit__(self, *_: object) -> None:
        scope.current.set(self._around)

    @guard.guarded
    def finish(self, error: BaseException | None) -> None:
        """The generator has ended, and with it the run."""
        self._left()
        self._run.finish(error)

    @guard.guarded
    def _left(self) -> None:
        if self._scope is not None:
            scope.left(self._scope)


class _Nothing:
    """In place of `_Inside` where something of ours fails."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def finish(self, error: BaseException | None) -> None:
        pass


@guard.guarded
def _entered(run: Run | None, frame: FrameType) -> _Inside | None:
    if run is None:
        return None
    run.begin()
    return _Inside(run, frame)


def _generator(target: Callable[..., Generator[Any, Any, Any]], new_run: NewRun) -> Callable[..., Any]:
    @functools.wraps(target)
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        run = new_run(args, kwargs)
        inside = _entered(run, scope.frame_above(0)) or _Nothing()
        error: BaseException | None = None
        try:
            with inside:
                inner = target(*args, **kwargs)
            resume: Callable[[], Any] = functools.partial(next, inner)
            while True:
                try:
                    with inside:
                        item = resume()
                except StopIteration as stop:
                    _answer(run, stop.value)
                    return stop.value
                try:
                    sent = yield item
                    resume = functools.partial(inner.send, sent)
                except GeneratorExit:
                    with inside:
                        inner.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - whatever the consumer throws goes to the generator
                    resume = functools.partial(inner.throw, thrown)
        except BaseException as raised:
            error = raised
            raise
        finally:
            inside.finish(error)

    return steps


def _async_generator(target: Callable[..., AsyncGenerator[Any, Any]], new_run: NewRun) -> Callable[..., Any]:
    @functools.wraps(target)
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        run = new_run(args, kwargs)
        inside = _entered(run, scope.frame_above(0)) or _Nothing()
        error: BaseException | None = None
        try:
            with inside:
                inner = target(*args, **kwargs)
            resume: Callable[[], Any] = functools.partial(inner.asend, None)
            while True:
                try:
                    with inside:
                        item = await resume()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                    resume = functools.partial(inner.asend, sent)
                except GeneratorExit:
                    with inside:
                        await inner.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - whatever the consumer throws goes to the generator
                    resume = functools.partial(inner.athrow, thrown)
        except BaseException as raised:
            error = raised
            raise
        finally:
            inside.finish(error)

    return steps

"""`@loopscope.tool`: each call of the decorated function is a tool call, with its arguments, result and attempt.

Arguments are written down before the tool runs, since it may change them. The tool's result, exceptions and signature
stay as they are.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from loopscope_schemas import attributes as at

from . import guard, runtime, scope
from .arguments import bound_arguments
from .errors import error_class_of
from .jsontext import json_text
from .recording import INTERNAL, Recording, host_span, new_trace_id, qualified_name
from .runs import Run, owner_attributes

F = TypeVar("F", bound=Callable[..., Any])


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *, name: str | None = None, side_effects: bool | None = None, idempotent: bool | None = None
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    side_effects: bool | None = None,
    idempotent: bool | None = None,
) -> F | Callable[[F], F]:
    """Record each call of a function as a tool call.

    `side_effects` says whether it changes something outside, `idempotent` whether calling it again with the same
    arguments is harmless. A call with the same arguments that follows a failed one in the same run is its next attempt.
    """

    def decorate(target: F) -> F:
        label = name or getattr(target, "__name__", type(target).__name__)
        return cast("F", _decorated(target, label, side_effects, idempotent) or target)

    return decorate if function is None else decorate(function)


@guard.guarded
def _decorated(
    target: Callable[..., Any], name: str, side_effects: bool | None, idempotent: bool | None
) -> Callable[..., Any]:
    return _wrap(target, _Tool(name, target, side_effects, idempotent))


def _wrap(target: Callable[..., Any], made: _Tool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(target):

        @functools.wraps(target)
        async def in_async_tool(*args: Any, **kwargs: Any) -> Any:
            call = made.begin(args, kwargs)
            if call is None:
                return await target(*args, **kwargs)
            try:
                result = await target(*args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.leave()
            call.returned(result)
            return result

        return in_async_tool

    @functools.wraps(target)
    def in_tool(*args: Any, **kwargs: Any) -> Any:
        call = made.begin(args, kwargs)
        if call is None:
            return target(*args, **kwargs)
        try:
            result = target(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            call.leave()
        call.returned(result)
        return result

    return in_tool


class _Tool:
    def __init__(
        self, name: str, function: Callable[..., Any], side_effects: bool | None, idempotent: bool | None
    ) -> None:
        self.name = name
        self.function = function
        self.side_effects = side_effects
        self.idempotent = idempotent

    @guard.guarded
    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        active = runtime.active()
        if active is None:
            return None
        outer = scope.here()
        run = outer.run if outer is not None else active.chains.owner_of_tool(self.name)
        around = outer if outer is not None else run.scope if run is not None else None
        config = active.config
        attributes = owner_attributes(config, run)
        attributes[at.OPERATION_NAME] = "execute_tool"
        attributes[at.TOOL_NAME] = self.name
        attributes[at.TOOL_TYPE] = "function"
        if self.side_effects is not None:
            attributes[at.TOOL_SIDE_EFFECTS] = self.side_effects
        if self.idempotent is not None:
            attributes[at.TOOL_IDEMPOTENT] = self.idempotent
        arguments = json_text(bound_arguments(self.function, args, kwargs))
        key = (self.name, hashlib.blake2b(arguments, digest_size=16).digest())
        attempt = 1
        if run is not None:
            attributes[at.TURN] = max(run.turn, 1)
            attempt = run.failed_attempts.get(key, 0) + 1
        attributes[at.TOOL_ATTEMPT] = attempt
        parent = around.span if around is not None else host_span()
        recording = runtime.start(active, f"execute_tool {self.name}", INTERNAL, parent, attributes)
        if around is not None:
            run_id = around.run_id
        else:
            run_id = f"{recording.ids.trace_id:032x}" if parent is None else recording_run_id()
        attributes[at.RUN_ID] = run_id
        recording.payload.texts[at.TOOL_CALL_ARGUMENTS] = arguments
        if run is not None:
            recording.payload.complete = run.tool_uses.matcher(self.name)
        runtime.announce(recording, heartbeat=around is None)
        inside = scope.entered(scope.Scope(recording.ids, run, run_id), outer, None)
        scope.current.set(inside)
        return _Call(recording, inside, outer, run, key, attempt)


def recording_run_id() -> str:
    """A run id for a span outside of any run, in a trace that the host began."""
    return f"{new_trace_id():032x}"


class _Call:
    __slots__ = ("_inside", "_outer", "attempt", "key", "recording", "run")

    def __init__(
        self,
        recording: Recording,
        inside: scope.Scope,
        outer: scope.Scope | None,
        run: Run | None,
        key: tuple[str, bytes],
        attempt: int,
    ) -> None:
        self.recording = recording
        self._inside = inside
        self._outer = outer
        self.run = run
        self.key = key
        self.attempt = attempt

    @guard.guarded
    def leave(self) -> None:
        scope.leave(self._inside, self._outer)

    @guard.guarded
    def returned(self, result: object) -> None:
        self.recording.payload.texts[at.TOOL_CALL_RESULT] = json_text(result)
        if self.run is not None:
            self.run.failed_attempts.pop(self.key, None)
        runtime.end(self.recording)

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        if self.run is not None:
            self.run.failed_attempts[self.key] = self.attempt
        self.recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
        runtime.end(self.recording)

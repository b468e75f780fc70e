"""Runs: one invocation of an agent, as a context manager (`with loopscope.run(...)`), and its public face `Run`.

The decorators in `agents` open runs; the LLM and tool hooks ask the run for the turn. A run that is used while nothing
is configured works and records nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from loopscope_schemas import attributes as at

from . import guard, runtime, scope
from .allowance import Allowance
from .capture import METADATA, MODES, OFF, CaptureMode
from .errors import error_class_of
from .jsontext import json_text
from .ledger import Ledger, RunStats
from .limits import Limits, limits_of
from .recording import INTERNAL, NOWHERE, Recording, host_span, qualified_name
from .tooluse import ToolUses

if TYPE_CHECKING:
    from .config import Config
    from .steps import Step

Outcome = Literal["completed", "partial", "limit", "failed", "escalated"]
OUTCOMES: tuple[str, ...] = ("completed", "partial", "limit", "failed", "escalated")
MAX_EVENTS = 10_000
"""Events of one run; those beyond are counted, not kept, so that an endless loop cannot fill the host's memory."""
_UNSET: Any = object()


class Run:
    """One invocation of an agent. Get one from `loopscope.run(...)`; the running one is `loopscope.current_run()`."""

    def __init__(
        self,
        name: str | None = None,
        *,
        input: object = None,  # noqa: A002 - the word users know; it is keyword-only
        task_id: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        version: str | None = None,
        config: Mapping[str, Any] | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        capture: CaptureMode | None = None,
    ) -> None:
        self._name = name
        self._capture = _mode(capture)
        self._input = input
        self._task_id = task_id
        self._conversation_id = conversation_id
        self._user_id = user_id
        self._version = version
        self._config = config
        self._id = os.urandom(16).hex()
        self._recording: Recording | None = None
        self._outer: scope.Scope | None = None
        self._scope: scope.Scope | None = None
        self._outcome: str | None = None
        self._final_answer: object = _UNSET
        self.allowance = Allowance(limits_of(limits, "run(limits)"))
        """What the run may use, and has used."""
        self._failed = False
        self._events = 0
        self._handed_over = False
        self.tool_uses = ToolUses()
        """What its answers asked for."""
        self.shared_attributes: dict[str, Any] = {}
        """Attributes that every span of this run carries."""
        self.failed_attempts: dict[tuple[str, bytes], int] = {}
        """(tool, digest of its arguments) -> failed attempts in a row."""

    @classmethod
    def handed_over(cls, name: str | None, *, run_id: str, shared_attributes: Mapping[str, Any]) -> Run:
        """A run that another process has begun and will end, for the work that this one was given."""
        run = cls(name)
        run._id = run_id
        run._handed_over = True
        run.shared_attributes = dict(shared_attributes)
        return run

    @property
    def name(self) -> str | None:
        """The agent's name that the run was given; None for the configured one."""
        return self._name

    @property
    def id(self) -> str:
        """The run's id: 32 hex digits. Final once the run has begun."""
        return self._id

    @property
    def trace_id(self) -> str | None:
        """The trace the run belongs to (32 hex digits); None when the run is not recorded."""
        return f"{self._recording.ids.trace_id:032x}" if self._recording else None

    @property
    def content_allowed(self) -> bool:
        """Whether text of this run is recorded: with capture "full" alone."""
        return self._recording is not None and self._recording.content

    @property
    def turn(self) -> int:
        """Number of LLM calls begun so far."""
        return self.ledger.turns

    @property
    def ledger(self) -> Ledger:
        """What the run has used, for Loopscope's own instrumentations."""
        return self.allowance.ledger

    @property
    def limits(self) -> Limits | None:
        """The limits of this run: its own, else the configured ones; None when nothing is limited."""
        return self.allowance.limits

    @property
    def limit_hit(self) -> str | None:
        """The limit that stopped the run (`max_turns`, ...); None when none did."""
        return self.allowance.hit

    @property
    def stats(self) -> RunStats:
        """What the run has used so far, sub-agents not included: turns, tokens, cost, and whether it is complete."""
        complete = self.limit_hit is None and not self._failed and self._outcome in (None, "completed")
        return self.ledger.stats(completed=complete)

    @property
    def final_answer(self) -> object:
        """What the run answered; settable. A decorated function's return value unless it was set."""
        return None if self._final_answer is _UNSET else self._final_answer

    @final_answer.setter
    def final_answer(self, value: object) -> None:
        self._final_answer = value

    @guard.guarded
    def outcome(self, value: Outcome) -> None:
        """Say how the run ended: completed, partial, limit, failed or escalated.

        Without it a run is completed, or failed when an exception left it. Another word is logged and passed over.
        """
        if value in OUTCOMES:
            self._outcome = value
        else:
            guard.warn_once(
                "outcome", "loopscope: outcome(%r) is passed over: use one of %s", value, ", ".join(OUTCOMES)
            )

    @guard.guarded
    def event(self, name: str, **attributes: Any) -> None:
        """Note something that happened now. Values that are not text, number or bool are kept as JSON text."""
        recording = self._recording
        if self._handed_over or (recording is not None and not runtime.owns(recording)):
            guard.count("events_dropped")
            guard.warn_once(
                "event", "loopscope: event(%r) is passed over: the run was begun by another process, which alone can "
                "write to it; record a tool or a step instead", name,
            )  # fmt: skip
            return
        if recording is None or not recording.open:
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            guard.count("events_dropped")
            return
        recording.event(str(name), {key: _event_value(value) for key, value in attributes.items()})

    @guard.guarded
    def route(
        self,
        chosen: str,
        *,
        name: str | None = None,
        alternatives: Iterable[object] | None = None,
        reason: str | None = None,
        **attributes: Any,
    ) -> None:
        """Note a routing decision: what was chosen (a model, a sub-agent, a tool, a branch), and from what.

        `name` says what was decided, `alternatives` what could have been chosen instead, `reason` why. Further
        attributes are kept as those of an event are.
        """
        decided = {
            at.ROUTE_CHOSEN: chosen,
            at.ROUTE_NAME: name,
            at.ROUTE_ALTERNATIVES: None if alternatives is None else list(alternatives),
            at.ROUTE_REASON: reason,
        }
        self.event(at.ROUTE_EVENT, **{key: value for key, value in decided.items() if value is not None}, **attributes)

    def step(self, name: str) -> Step:
        """A named part of the run, as a span: `with run.step("retrieve"):`, `async with`, or as a decorator.

        Calls, tools and sub-agents inside are its children and still belong to the run. An exception that leaves it
        marks it as failed and goes on.
        """
        from .steps import Step

        return Step(name, self)

    def next_turn(self) -> int:
        """Begin a turn (an LLM call of this run) and give its number, from 1."""
        return self.ledger.begin_turn()

    def shared(self) -> dict[str, Any]:
        """Further attributes that all spans of this kind of run carry."""
        return {}

    def at_least_turn(self, turn: int) -> None:
        """Number on from this turn if the run is not there yet."""
        self.ledger.at_least_turn(turn)

    def after_fork_in_child(self) -> None:
        """A lock that another thread held when the process forked would never be released here."""
        self.tool_uses.after_fork_in_child()

    # --- entering and leaving ---

    def __enter__(self) -> Run:
        self.begin()
        self._enter(scope.frame_above(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self.finish(error)

    async def __aenter__(self) -> Run:
        self.begin()
        self._enter(scope.frame_above(1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @guard.guarded
    def _enter(self, caller: FrameType | None) -> None:
        if self._scope is not None:
            self._outer = scope.here()
            self._scope = scope.entered(self._scope, self._outer, scope.generator(caller))
            scope.current.set(self._scope)

    @guard.guarded
    def _leave(self) -> None:
        if self._scope is not None:
            scope.leave(self._scope, self._outer)

    @property
    def recording(self) -> Recording | None:
        """The run's span, for Loopscope's own instrumentations; None when the run is not recorded."""
        return self._recording

    @property
    def stated_outcome(self) -> str | None:
        """The outcome that was set so far."""
        return self._outcome

    @property
    def scope(self) -> scope.Scope | None:
        """Where code of this run is; None when the run is not recorded."""
        return self._scope

    @guard.guarded
    def begin(self) -> None:
        """Start recording the run, inside the run or the host's span that is current. A second time does nothing."""
        active = runtime.configured()
        if active is None or self._recording is not None or self._scope is not None or self._handed_over:
            return
        config, outer = active.config, scope.here()
        around = outer.run if outer is not None else None
        self.allowance.begin(config.limits, around.allowance if around is not None else None)
        name = self._name or config.agent
        policy = config.capture
        self._capture = self._capture or policy.by_agent.get(name) or scope.inherited() or policy.default
        shared = agent_attributes(
            agent=name,
            version=self._version or (config.agent_version if name == config.agent else None),
            conversation_id=self._conversation_id
            or (outer and _shared(outer, at.CONVERSATION_ID))
            or config.conversation_id,
            user_id=self._user_id or (outer and _shared(outer, at.USER_ID)) or config.user_id,
            task_id=self._task_id or (outer and _shared(outer, at.TASK_ID)),
        )
        self.shared_attributes = dict(shared)
        if self._capture == OFF:
            # Nothing of it is recorded; what records again inside hangs below what encloses this run.
            span, run_id = (outer.span, outer.run_id) if outer is not None else (NOWHERE, "")
            self._scope = scope.Scope(span, self, run_id, OFF)
            self._input = self._config = None
            return
        if outer is not None and outer.span != NOWHERE:
            parent = outer.span
            shared[at.RUN_PARENT_ID] = outer.run_id
        else:
            parent = host_span()
        shared |= self.shared()
        recording = runtime.start(active, f"invoke_agent {name}", INTERNAL, parent, shared, capture=self._capture)
        if parent is None:
            self._id = f"{recording.ids.trace_id:032x}"
        shared[at.RUN_ID] = self._id
        self.shared_attributes = dict(shared)
        shared[at.OPERATION_NAME] = "invoke_agent"
        if self.limits is not None and self.limits.any:
            shared[at.RUN_LIMITS] = self.limits.as_json()
        self._recording = recording
        self._scope = scope.Scope(recording.ids, self, self._id, self._capture)
        if self._input is not None:
            recording.payload.texts[at.RUN_INPUT] = json_text(self._input)
        if self._config is not None:
            recording.payload.texts[at.RUN_CONFIG] = json_text(self._config)
        self._input = self._config = None  # the run may live long; what it was given need not live with it
        runtime.announce(recording, heartbeat=True)

    @guard.guarded
    def finish(self, error: BaseException | None = None) -> None:
        """End the run; `error` is the exception that left it, if one did."""
        recording = self._recording
        if recording is None or not recording.open:
            return
        outcome = self._outcome
        if self.limit_hit is not None:
            outcome = "limit"
            recording.set({at.RUN_LIMIT_HIT: self.limit_hit})
        if error is not None and is_failure(error):
            self._failed = True
            recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
            outcome = outcome or "failed"
        elif isinstance(error, GeneratorExit):
            outcome = outcome or "partial"
        recording.set({at.RUN_OUTCOME: outcome or "completed"})
        if self._final_answer is not _UNSET and self._final_answer is not None:
            recording.payload.texts[at.RUN_FINAL_ANSWER] = json_text(self._final_answer)
        runtime.end(recording)
        self.failed_attempts.clear()


def _mode(capture: object) -> str | None:
    """The mode that was asked for. A word that is none must not have recorded what its owner wanted kept out."""
    if capture is None or capture in MODES:
        return cast("str | None", capture)
    guard.warn_once(
        "capture", "loopscope: run(capture=%r) is none of %s; only metadata is recorded", capture, ", ".join(MODES)
    )
    return METADATA


def is_failure(error: BaseException) -> bool:
    """Whether an exception means that a run failed: not a generator closed early, nor a wanted exit."""
    if isinstance(error, SystemExit):
        return error.code not in (None, 0)
    return not isinstance(error, GeneratorExit | StopIteration | StopAsyncIteration)


def run(
    name: str | None = None,
    *,
    input: object = None,  # noqa: A002 - the word users know; it is keyword-only
    task_id: str | None = None,
    conversation_id: str | None = None,
    user_id: str | None = None,
    version: str | None = None,
    config: Mapping[str, Any] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    capture: CaptureMode | None = None,
) -> Run:
    """A run to be entered with `with` or `async with`; every LLM and tool call inside belongs to it.

    `name` is the agent's (default: the configured one), `task_id` the business work that several runs may attempt,
    `config` what the run was configured with, `limits` what it may use (default: the configured limits). A run inside a
    run is a sub-agent of it. `capture` says how much is recorded of it and of all that it calls: "full", "metadata" (no
    text) or "off" (nothing); default: as configured for this agent, else as the enclosing run.
    """
    return Run(
        name,
        input=input,
        task_id=task_id,
        conversation_id=conversation_id,
        user_id=user_id,
        version=version,
        config=config,
        limits=limits,
        capture=capture,
    )


@guard.guarded
def current_run() -> Run | None:
    """The run that the calling code is in, or None."""
    inside = scope.here()
    return inside.run if inside is not None else None


def agent_attributes(
    *, agent: str, version: str | None, conversation_id: str | None, user_id: str | None, task_id: str | None = None
) -> dict[str, Any]:
    """The attributes that tell whose span it is; what is None stays out."""
    named = {
        at.AGENT_NAME: agent,
        at.AGENT_VERSION: version,
        at.CONVERSATION_ID: conversation_id,
        at.USER_ID: user_id,
        at.TASK_ID: task_id,
    }
    return {key: value for key, value in named.items() if value is not None}


def owner_attributes(config: Config, run: Run | None) -> dict[str, Any]:
    """Whose span it is: the run's, or the configured agent's outside of any."""
    if run is not None:
        return dict(run.shared_attributes)
    return agent_attributes(
        agent=config.agent,
        version=config.agent_version,
        conversation_id=config.conversation_id,
        user_id=config.user_id,
    )


def _shared(outer: scope.Scope, name: str) -> Any:
    return outer.run.shared_attributes.get(name) if outer.run is not None else None


def _event_value(value: object) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    return json_text(value).decode("utf-8")

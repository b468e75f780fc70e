"""Runs: one invocation of an agent, as a context manager (`with loopscope.run(...)`), and its public face `Run`.

The decorators in `agents` open runs; the LLM and tool hooks ask the run for the turn. A run that is used while nothing
is configured works and records nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from loopscope_schemas import attributes as at

from . import guard, runtime, scope
from .errors import error_class_of
from .jsontext import json_text
from .recording import INTERNAL, Recording, host_span, qualified_name

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
    ) -> None:
        self._name = name
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
        self._turn = 0
        self._turn_lock = threading.Lock()
        self._events = 0
        self.shared_attributes: dict[str, Any] = {}
        """Attributes that every span of this run carries."""
        self.failed_attempts: dict[tuple[str, bytes], int] = {}
        """(tool, digest of its arguments) -> failed attempts in a row."""

    @property
    def id(self) -> str:
        """The run's id: 32 hex digits. Final once the run has begun."""
        return self._id

    @property
    def trace_id(self) -> str | None:
        """The trace the run belongs to (32 hex digits); None when the run is not recorded."""
        return f"{self._recording.ids.trace_id:032x}" if self._recording else None

    @property
    def turn(self) -> int:
        """Number of LLM calls begun so far."""
        return self._turn

    @property
    def final_answer(self) -> object:
        """What the run answered; settable. A decorated function's return value unless it was set."""
        return None if self._final_answer is _UNSET else self._final_answer

    @final_answer.setter
    def final_answer(self, value: object) -> None:
        self._final_answer = value

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
        if recording is None or not recording.open:
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            guard.count("events_dropped")
            return
        recording.event(str(name), {key: _event_value(value) for key, value in attributes.items()})

    def next_turn(self) -> int:
        """Begin a turn (an LLM call of this run) and give its number, from 1."""
        with self._turn_lock:
            self._turn += 1
            return self._turn

    # --- entering and leaving ---

    def __enter__(self) -> Run:
        self.begin()
        self._outer = scope.current.get()
        if self._scope is not None:
            scope.current.set(self._scope)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scope is not None:
            scope.leave(self._outer)
        self.finish(error)

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

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
        active = runtime.active()
        if active is None or self._recording is not None:
            return
        config, outer = active.config, scope.current.get()
        parent = outer.span if outer is not None else host_span()
        name = self._name or config.agent
        shared = agent_attributes(
            agent=name,
            version=self._version or (config.agent_version if name == config.agent else None),
            conversation_id=self._conversation_id
            or (outer and _shared(outer, at.CONVERSATION_ID))
            or config.conversation_id,
            user_id=self._user_id or (outer and _shared(outer, at.USER_ID)) or config.user_id,
            task_id=self._task_id or (outer and _shared(outer, at.TASK_ID)),
        )
        if outer is not None:
            shared[at.RUN_PARENT_ID] = outer.run_id
        recording = runtime.start(active, f"invoke_agent {name}", INTERNAL, parent, shared)
        if parent is None:
            self._id = f"{recording.ids.trace_id:032x}"
        shared[at.RUN_ID] = self._id
        self.shared_attributes = dict(shared)
        shared[at.OPERATION_NAME] = "invoke_agent"
        self._recording = recording
        self._scope = scope.Scope(recording.ids, self, self._id)
        if config.capture_content:
            if self._input is not None:
                recording.payload.texts[at.RUN_INPUT] = json_text(self._input)
            if self._config is not None:
                recording.payload.texts[at.RUN_CONFIG] = json_text(self._config)
        self._input = self._config = None  # the run may live long; what it was given need not live with it
        runtime.announce(recording, heartbeat=True)

    def finish(self, error: BaseException | None = None) -> None:
        """End the run; `error` is the exception that left it, if one did."""
        self._finish(error)

    @guard.guarded
    def _finish(self, error: BaseException | None) -> None:
        recording, active = self._recording, runtime.active()
        if recording is None or not recording.open:
            return
        outcome = self._outcome
        if error is not None and is_failure(error):
            recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
            outcome = outcome or "failed"
        elif isinstance(error, GeneratorExit):
            outcome = outcome or "partial"
        recording.set({at.RUN_OUTCOME: outcome or "completed"})
        answered = self._final_answer is not _UNSET and self._final_answer is not None
        if answered and active is not None and active.config.capture_content:
            recording.payload.texts[at.RUN_FINAL_ANSWER] = json_text(self._final_answer)
        runtime.end(recording)
        self.failed_attempts.clear()


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
) -> Run:
    """A run to be entered with `with` or `async with`; every LLM and tool call inside belongs to it.

    `name` is the agent's (default: the configured one), `task_id` the business work that several runs may attempt,
    `config` what the run was configured with. A run inside a run is a sub-agent of it.
    """
    return Run(
        name,
        input=input,
        task_id=task_id,
        conversation_id=conversation_id,
        user_id=user_id,
        version=version,
        config=config,
    )


def current_run() -> Run | None:
    """The run that the calling code is in, or None."""
    inside = scope.current.get()
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


def _shared(outer: scope.Scope, name: str) -> Any:
    return outer.run.shared_attributes.get(name) if outer.run is not None else None


def _event_value(value: object) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    return json_text(value).decode("utf-8")

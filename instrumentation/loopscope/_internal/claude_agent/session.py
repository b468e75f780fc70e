"""One connection to a CLI: which run is going on, which loop a message belongs to, and what a result settles.

`patching` calls it from the SDK's own methods, on the host's event loop. A connection of `query()` is one run from its
first step to its last. A connection of a `ClaudeSDKClient` has a run for each `query()` of the client, ended by its
result; several that are sent at once are answered, and so recorded, in their order. Sub-agents may outlive the run that
called them, so they belong to the connection.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from loopscope._internal import guard, runtime, scope, toolcalls
from loopscope._internal.jsontext import json_text
from loopscope._internal.recording import INTERNAL
from loopscope._internal.runs import Run
from loopscope_schemas import attributes as at

from .loops import Loop, text_of
from .results import Ending, ending_of
from .usage import COST_NOISE_USD, ModelUsage, Tokens, attributes_of, by_model, number, provider_of, remainders, since

_CONFIG = (
    "model",
    "fallback_model",
    "system_prompt",
    "permission_mode",
    "allowed_tools",
    "disallowed_tools",
    "max_turns",
    "max_budget_usd",
    "cwd",
)
"""Options that say how an agent was set up; nothing that may hold a secret (env, headers of MCP servers, settings)."""
MAX_PAST_AGENTS = 256
"""So many ended sub-agents are remembered, so that a late word of one begins no new run."""
_DONE = {"completed", "failed", "stopped", "killed", "cancelled"}


class Session:
    """The recorder of one connection."""

    def __init__(self, options: Any, *, one_run: bool) -> None:
        self.stepping = False
        """While the host runs a step of `query()`: whoever drives it will see how it ends."""
        self._options = options
        self._one_run = one_run
        self._provider = _provider(options)
        self._resumed = bool(getattr(options, "resume", None) or getattr(options, "continue_conversation", False))
        self._main: Loop | None = None
        self._waiting: deque[Loop] = deque()
        self._agents: dict[str, Loop] = {}
        """Sub-agents by the id of the tool call that called them."""
        self._tasks: dict[str, str] = {}
        """The CLI's id of a sub-agent -> the id of that tool call."""
        self._done: dict[str, bool] = {}
        """Sub-agents that have ended, and whether they failed; a notification or a result will say with what answer."""
        self._past: deque[str] = deque(maxlen=MAX_PAST_AGENTS)
        self._session_id: str | None = getattr(options, "resume", None)
        self._reported: dict[str, ModelUsage] = {}
        self._reported_cost: float | None = None
        self._seen: dict[str, Tokens] = {}
        """What calls carry whose loops have ended, since the last result."""

    # --- what the host does ---

    @guard.guarded
    def asked(self, prompt: object) -> Run | None:
        """A prompt is about to be sent: a run begins, inside the run that is current."""
        loop = self._begin(prompt)
        if loop is None:
            return None
        if self._main is None:
            self._main = loop
        else:
            self._waiting.append(loop)
        return loop.run

    @guard.guarded
    def prompted(self, message: object, run: Run | None) -> None:
        """One message of a prompt that is a stream."""
        recording = run.recording if run is not None else None
        active = runtime.active()
        if recording is None or active is None or not isinstance(message, dict):
            return
        inner = cast("dict[str, Any]", message).get("message")
        content = cast("dict[str, Any]", inner).get("content") if isinstance(inner, dict) else None
        before = recording.payload.texts.get(at.RUN_INPUT)
        one = json_text(content)
        recording.payload.texts[at.RUN_INPUT] = b"[" + one + b"]" if before is None else before[:-1] + b"," + one + b"]"

    @guard.guarded
    def not_sent(self, run: Run | None, error: BaseException) -> None:
        """A prompt could not be sent: its run has failed."""
        for loop in [*self._waiting, *([self._main] if self._main is not None else [])]:
            if loop.run is run:
                self._retire(loop)
                loop.run.finish(error)
                if loop is self._main:
                    self._main = self._waiting.popleft() if self._waiting else None
                else:
                    self._waiting.remove(loop)

    def inside(self) -> scope.Scope | None:
        """Where code that runs for the current run is."""
        return self._main.run.scope if self._main is not None else None

    @guard.guarded
    def ended(self, error: BaseException | None = None) -> None:
        """The connection is over; so is everything that is still open on it."""
        self._agents_done()
        for agent in self._agents.values():
            self._retire(agent, broken=True)
            agent.run.finish(GeneratorExit())
        self._agents.clear()
        self._tasks.clear()
        while self._main is not None:
            main = self._main
            self._retire(main, broken=error is not None and main.run.stated_outcome is None)
            main.run.finish(error)
            self._main = self._waiting.popleft() if self._waiting else None

    # --- what the CLI says ---

    @guard.guarded
    def arrived(self, raw: object) -> None:
        """A message, before the host sees it."""
        if not isinstance(raw, dict) or runtime.active() is None:
            return
        raw = cast("dict[str, Any]", raw)
        kind = raw.get("type")
        if kind == "system":
            self._system(raw)
        elif kind == "result":
            self._result(raw)
        elif kind == "error":
            self._broke(raw.get("exception"))
        elif kind in ("assistant", "user", "stream_event"):
            loop = self._loop_of(raw)
            if loop is None:
                return
            if kind == "assistant":
                loop.assistant(raw)
            elif kind == "stream_event":
                loop.partial(cast("dict[str, Any]", raw.get("event") or {}), raw.get("ttft_ms"))
            else:
                for call_id, content, failed in loop.user(raw):
                    self._tool_ended(call_id, content, raw, failed=failed)

    @guard.guarded
    def where(self, request: object) -> scope.Scope | None:
        """Where code of the host runs that the CLI asks for: a hook, a permission, a tool of an in-process server."""
        asked = _part(request, "request")
        if asked is None:
            return None
        meta = _part(_part(_part(asked, "message"), "params"), "_meta")
        call_id = asked.get("tool_use_id") or (meta or {}).get("claudecode/toolUseId")
        if (found := toolcalls.find(call_id)) is not None:
            return found
        agent_id = asked.get("agent_id") or (_part(asked, "input") or {}).get("agent_id")
        agent = self._agents.get(self._tasks.get(str(agent_id), "")) if agent_id else None
        return agent.run.scope if agent is not None else self.inside()

    # --- parts ---

    def _begin(self, prompt: object) -> Loop | None:
        active = runtime.active()
        if active is None:
            return None
        outer = scope.here()
        shared = outer.run.shared_attributes if outer is not None and outer.run is not None else {}
        options = self._options
        run = Run(
            shared.get(at.AGENT_NAME),
            input=prompt if isinstance(prompt, str) else None,
            version=shared.get(at.AGENT_VERSION),
            config={name: value for name in _CONFIG if (value := _plain(getattr(options, name, None)))},
        )
        run.begin()
        if run.recording is None:
            return None
        limits = {"max_turns": "max_turns", "max_cost_usd": "max_budget_usd"}
        set_ = {name: value for name, option in limits.items() if (value := getattr(options, option, None)) is not None}
        if set_:
            run.recording.set({at.RUN_LIMITS: json_text(set_).decode()})
        self._identify(run)
        return Loop(active, run, self._provider)

    def _identify(self, run: Run) -> None:
        """The CLI's session on the run and on what it records from now on; a conversation of the owner's own stays."""
        if self._session_id is None or run.recording is None:
            return
        known = {at.SESSION_ID: self._session_id}
        if at.CONVERSATION_ID not in run.shared_attributes:
            known[at.CONVERSATION_ID] = self._session_id
        run.shared_attributes.update(known)
        run.recording.set(known)

    def _current(self) -> Loop | None:
        """The loop of the run; a run of its own when the CLI goes on without being asked."""
        if self._main is None:
            self._main = self._begin(None)
        return self._main

    def _loop_of(self, raw: Mapping[str, Any]) -> Loop | None:
        called_by = raw.get("parent_tool_use_id")
        if not isinstance(called_by, str):
            return self._current()
        return self._agent(called_by, raw.get("subagent_type"), raw.get("agent_id"), None)

    def _agent(self, called_by: str, kind: object, agent_id: object, prompt: object) -> Loop | None:
        """The loop of a sub-agent; its run begins with the first that is heard of it."""
        loop, active, main = self._agents.get(called_by), runtime.active(), self._main
        if loop is None and active is not None and called_by not in self._past:
            where = toolcalls.find(called_by)
            if where is None and main is None:
                return None
            if prompt is None:
                prompt = next((p for one in self._loops() if (p := one.prompt_of(called_by)) is not None), None)
            run = Run(kind if isinstance(kind, str) and kind else "sub-agent", input=prompt)
            around = scope.put(where or self.inside())
            try:
                run.begin()
            finally:
                scope.put_back(around)
            self._identify(run)
            loop = self._agents[called_by] = Loop(active, run, self._provider)
        if isinstance(agent_id, str):
            self._tasks[agent_id] = called_by
        return loop

    def _loops(self) -> list[Loop]:
        return [*([self._main] if self._main is not None else []), *self._agents.values()]

    def _system(self, raw: Mapping[str, Any]) -> None:
        subtype = raw.get("subtype")
        session_id = raw.get("session_id")
        if isinstance(session_id, str) and session_id != self._session_id:
            self._session_id = session_id
            for loop in self._loops():
                self._identify(loop.run)
        if subtype == "init" and self._main is not None:
            self._main.asked()  # the CLI has started and has the prompt
        call_id = raw.get("tool_use_id") or self._tasks.get(str(raw.get("task_id")))
        if subtype == "task_started" and isinstance(call_id, str) and raw.get("task_type") in (None, "local_agent"):
            self._agent(call_id, raw.get("subagent_type"), raw.get("task_id"), raw.get("prompt"))
        elif subtype == "task_notification" and isinstance(call_id, str):
            self._agent_ended(call_id, raw.get("summary"), failed=raw.get("status") == "failed")
        elif subtype == "task_updated" and isinstance(call_id, str):
            status = (_part(raw, "patch") or {}).get("status")
            if status in _DONE and call_id in self._agents:
                self._done[call_id] = status == "failed"

    def _tool_ended(self, call_id: str, content: object, raw: Mapping[str, Any], *, failed: bool) -> None:
        told = _part(raw, "tool_use_result") or {}
        if told.get("isAsync") or told.get("status") == "async_launched":
            return  # it works on in the background; a notification will tell
        self._agent_ended(call_id, text_of(content), failed=failed)

    def _agent_ended(self, call_id: str, answer: object, *, failed: bool) -> None:
        agent = self._agents.pop(call_id, None)
        failed = self._done.pop(call_id, False) or failed
        if agent is None:
            return
        self._past.append(call_id)
        for task in [task for task, called_by in self._tasks.items() if called_by == call_id]:
            del self._tasks[task]
        self._retire(agent)
        if answer:
            agent.run.final_answer = answer
        if failed:
            agent.run.outcome("failed")
        agent.run.finish()

    def _agents_done(self) -> None:
        """End the sub-agents of whose answer nothing more was heard."""
        for call_id in list(self._done):
            self._agent_ended(call_id, None, failed=False)

    def _retire(self, loop: Loop, *, broken: bool = False) -> None:
        loop.close(broken=broken)
        for model, tokens in loop.visible.items():
            self._seen[model] = self._seen[model].plus(tokens) if model in self._seen else tokens
        loop.visible.clear()

    def _result(self, raw: Mapping[str, Any]) -> None:
        main = self._current()
        if main is None:
            return
        stop, ending = raw.get("stop_reason"), ending_of(raw)
        main.end_call(stop if isinstance(stop, str) else None, broken=ending.outcome == "partial")
        self._settle(raw, main)
        _put_ending(main.run, ending)
        self._agents_done()
        if self._one_run:
            return
        self._retire(main)
        main.run.finish()
        self._main = None
        while self._waiting and self._main is None:
            loop = self._waiting.popleft()
            if raw.get("queued_turn_count") == 0 and loop.sent_at < main.last_ready:
                # Nothing waits, and the model was asked again after this prompt was sent: it went along.
                _put_ending(loop.run, ending)
                loop.run.finish()
            else:
                self._main = loop
                loop.asked()

    def _settle(self, raw: Mapping[str, Any], main: Loop) -> None:
        """What was reported since the last result, less what the calls carry: one span a model, with its cost."""
        visible, self._seen = self._seen, {}
        for loop in self._loops():
            for model, tokens in loop.visible.items():
                visible[model] = visible[model].plus(tokens) if model in visible else tokens
            loop.visible.clear()
        now, total = by_model(raw.get("modelUsage")), number(raw.get("total_cost_usd"))
        stated = raw.get("model_usage_since_last_result")
        # A resumed session's figures go on from those of earlier processes, whose runs have them already.
        unknown_before = self._resumed and not self._reported and self._reported_cost is None
        if isinstance(stated, dict):
            used, unnamed = by_model(stated), 0.0
        elif unknown_before:
            used, unnamed = {}, 0.0
        else:
            used = since(now, self._reported)
            before = self._reported_cost or 0.0
            spent = None if total is None else total - before if total >= before else total
            unnamed = 0.0 if spent is None else spent - sum(usage.cost_usd or 0.0 for usage in used.values())
        self._reported = now or self._reported
        self._reported_cost = total if total is not None else self._reported_cost
        for model, usage in remainders(used, visible).items():
            self._summary(main, model, usage)
        if unnamed > COST_NOISE_USD:
            # The total is what the owner is told; what no model accounts for is not left out.
            self._summary(main, None, ModelUsage(Tokens(), unnamed))

    def _summary(self, main: Loop, model: str | None, usage: ModelUsage) -> None:
        active, run = runtime.active(), main.run
        inside = run.scope
        if active is None or inside is None:
            return
        attributes = run.shared_attributes | {
            at.OPERATION_NAME: "usage_summary",
            at.TURN: max(run.turn, 1),
            at.PROVIDER_NAME: provider_of(usage.provider) if usage.provider else self._provider,
            at.COST_SOURCE: "reported" if usage.cost_usd is not None else "unknown",
        }
        if model is not None:
            attributes[at.RESPONSE_MODEL] = model.partition("[")[0]
            attributes |= attributes_of(usage.tokens)
        if usage.cost_usd is not None:
            attributes[at.COST_USD] = usage.cost_usd
        recording = runtime.start(active, f"usage_summary {model or ''}".strip(), INTERNAL, inside.span, attributes)
        recording.began(time.perf_counter_ns())
        runtime.end(recording)

    def _broke(self, error: object) -> None:
        """The connection broke: whoever waits for an answer will be told."""
        if not self._one_run and isinstance(error, BaseException):
            self.ended(error)


def _put_ending(run: Run, ending: Ending) -> None:
    recording = run.recording
    run.outcome(ending.outcome)
    if ending.answer is not None:
        run.final_answer = ending.answer
    if recording is None:
        return
    if ending.limit is not None:
        recording.set({at.RUN_LIMIT_HIT: ending.limit})
    if ending.error is not None:
        recording.payload.failed = ending.error
        recording.set({at.ERROR_TYPE: ending.error_type, at.ERROR_CLASS: ending.error_class})


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _provider(options: Any) -> str:
    env = getattr(options, "env", None)
    given: Mapping[Any, Any] = cast("Mapping[Any, Any]", env) if isinstance(env, Mapping) else {}
    if given.get("CLAUDE_CODE_USE_BEDROCK"):
        return "aws.bedrock"
    return "gcp.vertex_ai" if given.get("CLAUDE_CODE_USE_VERTEX") else "anthropic"


def _part(whole: object, name: str) -> dict[str, Any] | None:
    part = cast("dict[str, Any]", whole).get(name) if isinstance(whole, dict) else None
    return cast("dict[str, Any]", part) if isinstance(part, dict) else None

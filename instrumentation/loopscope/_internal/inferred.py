"""Runs that nobody declared, found as their calls are made: a call that continues an earlier one's history is its run.

A call belongs to the run whose last answer it carries on: by the id of a tool use that it brings the result of, by the
id of the answer (message threads), or by the first message of the user and the last answer as text. Equal histories of
runs that go on at once are told apart by the thread or task they are called from. A bare call that continues nothing
begins a run. Runs declared with `loopscope.run` or `@loopscope.agent` never come here.

`Chains.place` runs on the host's thread; what an answer says is read by the worker, or by `place` where the next call
comes sooner.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from loopscope_schemas import attributes as at

from . import guard, runtime
from .fingerprints import digest_of, digest_of_content, field_of
from .jsontext import json_text
from .recording import Recording
from .runs import Run
from .tooluse import results_in

MAX_RUNS = 2_000
"""Runs that may still be continued (some kilobytes each); beyond it the one that was quiet for longest ends."""
IDLE_SECONDS = 900.0
"""A run whose last answer asked for tools, and that says nothing for so long, has ended: its loop was left. A later
call still continues it."""
_GOES_ON = ("tool_use", "pause_turn")
"""Stop reasons after which an agent is expected to call again."""

Read = Callable[[], Mapping[str, Any] | None]
Where = tuple[int, int]


class InferredRun(Run):
    """A run of bare calls. Its span ends with each answer that asks for nothing, and again later if the run goes on."""

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.root = b""
        """Digest of the first message of the user."""
        self.request: tuple[int, bytes] = (0, b"")
        """Number of messages of the last request, and the digest of its last one."""
        self.answer_at: tuple[int, ...] = ()
        """Where in the next request the last answer may stand."""
        self.last_failed = False
        self.tail: bytes | None = None
        """Digest of the last answer."""
        self.response_id: str | None = None
        self.call_ids: list[str] = []
        """Tool uses of the last answer."""
        self.calls_open = 0
        self.touched = time.monotonic()
        self._unread: Read | None = None
        self._answered_at = 0

    def shared(self) -> dict[str, Any]:
        return {at.RUN_INFERRED: True}

    def expects(self, read: Read, answered_at: int) -> None:
        """An answer came; `read` gives its message."""
        self._unread, self._answered_at = read, answered_at

    def learn(self) -> None:
        """Read the last answer, unless that was done."""
        read, self._unread = self._unread, None
        if read is None:
            return
        message = read()
        if message is None:
            self.tail = None
            return
        self.tail = digest_of_content("assistant", message.get("content"))
        self.response_id = message["id"] if isinstance(message.get("id"), str) else None
        self.call_ids = self.tool_uses.learn(message, self._answered_at, self.turn)

    @property
    def unread(self) -> bool:
        return self._unread is not None

    @guard.guarded
    def end_at(
        self, moment: int, outcome: str, error: Mapping[str, Any] | None = None, answer: str | None = None
    ) -> None:
        """Say that the run has ended, at Unix ns, as far as one can tell now; `answer` where no LLM call gave it."""
        recording, active = self._recording, runtime.configured()
        if recording is None or active is None or recording.generation != active.generation:
            return
        # Not before its own last heartbeat, which would say that the run goes on.
        moment = max(moment, active.pipeline.silence(recording.ids.span_id), recording.start.start_time)
        ended = Recording.again(recording)
        ended.set({at.RUN_OUTCOME: "limit" if self.limit_hit else outcome})
        if self.limit_hit is not None:
            ended.set({at.RUN_LIMIT_HIT: self.limit_hit})
        if error is not None and not self.limit_hit:
            ended.payload.failed = str(error.get("message", ""))
            ended.set({name: value for name, value in error.items() if name != "message"})
        if answer is not None:
            ended.payload.texts[at.RUN_FINAL_ANSWER] = json_text(answer)
        ended.payload.events.extend(recording.payload.events)
        runtime.end(ended, at_time=moment)

    def go_on(self) -> None:
        """The run may have been said to have ended: it goes on."""
        if self._recording is not None:
            runtime.announce(self._recording, heartbeat=True)


class Chains:
    """The runs of bare calls of this process that may be continued."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: OrderedDict[int, InferredRun] = OrderedDict()
        self._by_call_id: dict[str, InferredRun] = {}
        self._by_response: dict[str, InferredRun] = {}
        self._by_root: dict[bytes, dict[int, InferredRun]] = {}
        self._unread: dict[int, InferredRun] = {}

    # --- host's thread ---

    def place(self, body: Mapping[str, Any]) -> InferredRun:
        """The run that a bare call with this request belongs to; begun when it is its first."""
        messages: Sequence[Any] = ()
        if isinstance(given := body.get("messages"), list | tuple):
            messages = cast("Sequence[Any]", given)
        where = _where()
        root = _root(messages)
        request = (len(messages), digest_of(messages[-1]) if messages else b"")
        with self._lock:
            run = self._find(body, messages, root, request, where)
            fresh = run is None
            if run is None:
                run = InferredRun(where)
                run.begin()
                run.root = root
                self._runs[id(run)] = run
                self._by_root.setdefault(root, {})[id(run)] = run
            self._forget_answer(run)
            run.request, run.where, run.last_failed = request, where, False
            run.answer_at = (len(messages),)
            if messages and field_of(messages[-1], "role") == "assistant":
                run.answer_at += (len(messages) - 1,)  # an answer that was begun by the host, or paused
            run.calls_open += 1
            run.touched = time.monotonic()
            self._runs.move_to_end(id(run))
            dropped = self._runs.popitem(last=False)[1] if len(self._runs) > MAX_RUNS else None
            if dropped is not None:
                self._drop(dropped)
        if not fresh:
            run.go_on()
        if dropped is not None and dropped.call_ids:
            dropped.end_at(time.time_ns(), "partial")
        return run

    def _find(
        self, body: Mapping[str, Any], messages: Sequence[Any], root: bytes, request: tuple[int, bytes], where: Where
    ) -> InferredRun | None:
        thread = body.get("thread")
        previous = field_of(thread, "previous_message_id") if thread is not None else None
        if isinstance(previous, str):
            return self._known(lambda: self._by_response.get(previous))
        if not messages:
            return None
        for result in results_in(messages):
            if (run := self._known(lambda id_=result.call_id: self._by_call_id.get(id_))) is not None:
                return run
        candidates = list(self._by_root.get(root, {}).values())
        if not candidates:
            return None
        position = next(
            (i for i in range(len(messages) - 1, -1, -1) if field_of(messages[i], "role") == "assistant"), None
        )
        if position is not None:
            tail = digest_of_content("assistant", field_of(messages[position], "content"))
            found = [
                run
                for run in candidates
                if not run.calls_open and position in run.answer_at and self._tail_of(run) == tail
            ]
            if found:
                return _nearest(found, where)
        # The host tries a request again that failed.
        return _nearest([run for run in candidates if run.last_failed and run.request == request], where)

    def _known(self, look: Callable[[], InferredRun | None]) -> InferredRun | None:
        run = look()
        if run is None and self._unread:
            for other in list(self._unread.values()):
                self._learn(other)
            run = look()
        return run

    def _tail_of(self, run: InferredRun) -> bytes | None:
        if run.unread:
            self._learn(run)
        return run.tail

    def owner_of_tool(self, name: str) -> InferredRun | None:
        """The run of this thread or task whose last answer asked for this tool, when exactly one did."""
        where = _where()
        with self._lock:
            for run in list(self._unread.values()):
                if run.where == where:
                    self._learn(run)
            found = [run for run in self._runs.values() if run.where == where and name in run.tool_uses.names]
        return found[-1] if found else None

    def answered(self, run: InferredRun, read: Read, at_time: int) -> None:
        """A call of the run was answered, at Unix ns."""
        with self._lock:
            run.calls_open = max(run.calls_open - 1, 0)
            run.touched = time.monotonic()
            run.expects(read, at_time)
            self._unread[id(run)] = run

    def stopped(self, run: InferredRun) -> None:
        """A limit forbade a call of the run."""
        with self._lock:
            run.calls_open = max(run.calls_open - 1, 0)

    def failed(self, run: InferredRun) -> None:
        """A call of the run failed."""
        with self._lock:
            run.calls_open = max(run.calls_open - 1, 0)
            run.last_failed = True

    # --- worker's thread ---

    def settle(self, run: InferredRun, attributes: Mapping[str, Any], ended_at: int, failed: str | None) -> None:
        """A call of the run is complete: read its answer, and say that the run has ended if it seems so."""
        with self._lock:
            self._learn(run)
            if run.calls_open:
                return
        if failed is not None:
            error = {name: attributes[name] for name in (at.ERROR_TYPE, at.ERROR_CLASS) if name in attributes}
            run.end_at(ended_at, "failed", {"message": failed, **error})
            return
        reasons: Sequence[str] = attributes.get(at.RESPONSE_FINISH_REASONS, ())
        if not any(reason in _GOES_ON for reason in reasons):
            run.end_at(ended_at, "partial" if attributes.get(at.PARTIAL) else "completed")

    def sweep(self) -> None:
        """End runs whose loop was left. Called every few seconds while a run is open."""
        now = time.monotonic()
        with self._lock:
            idle = [
                run
                for run in self._runs.values()
                if run.call_ids and not run.calls_open and now - run.touched > IDLE_SECONDS
            ]
            for run in idle:
                run.touched = now + 365 * 86_400.0  # said once; a later call makes it young again
        for run in idle:
            run.end_at(time.time_ns(), "partial")

    def close(self) -> None:
        """The process ends, or stops recording: so do the runs that are under way."""
        with self._lock:
            left = [run for run in self._runs.values() if run.call_ids or run.unread or run.calls_open]
            for run in left:
                self._learn(run)
            self._runs.clear()
            self._by_call_id.clear()
            self._by_response.clear()
            self._by_root.clear()
            self._unread.clear()
        for run in left:
            if run.call_ids or run.calls_open:
                run.end_at(time.time_ns(), "partial")

    # --- under the lock ---

    def _learn(self, run: InferredRun) -> None:
        if self._unread.pop(id(run), None) is None:
            return
        run.learn()
        if id(run) not in self._runs:
            return
        for call_id in run.call_ids:
            self._by_call_id[call_id] = run
        if run.response_id is not None:
            self._by_response[run.response_id] = run

    def _forget_answer(self, run: InferredRun) -> None:
        """Its last answer is being continued: it leads nowhere else."""
        if run.unread:
            self._learn(run)
        for call_id in run.call_ids:
            self._by_call_id.pop(call_id, None)
        if run.response_id is not None:
            self._by_response.pop(run.response_id, None)
        run.call_ids, run.response_id, run.tail = [], None, None

    def _drop(self, run: InferredRun) -> None:
        if self._unread.pop(id(run), None) is not None:
            run.learn()
        for call_id in run.call_ids:
            self._by_call_id.pop(call_id, None)
        if run.response_id is not None:
            self._by_response.pop(run.response_id, None)
        siblings = self._by_root.get(run.root, {})
        siblings.pop(id(run), None)
        if not siblings:
            self._by_root.pop(run.root, None)


def _root(messages: Sequence[Any]) -> bytes:
    first = next((message for message in messages if field_of(message, "role") == "user"), None)
    return digest_of(first) if first is not None else b""


def _nearest(runs: Sequence[InferredRun], where: Where) -> InferredRun | None:
    """Of runs with equal histories the one called from here, else the one that has waited longest."""
    return next((run for run in runs if run.where == where), runs[0] if runs else None)


def _where() -> Where:
    """The thread and, inside of an event loop, the task of the caller."""
    asyncio: Any = sys.modules.get("asyncio")
    task: Any = None
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None  # no event loop runs in this thread
    return threading.get_ident(), id(task) if task is not None else 0

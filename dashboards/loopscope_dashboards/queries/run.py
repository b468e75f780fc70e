"""Questions of the *Run* page about a whole run: its row, its spans, its prompts, its events."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import streamlit as st

from loopscope_dashboards.client import ask

MAX_SPANS: Final = 20_000
"""Spans of one trace that are read for a timeline; beyond it the page says so."""
_HOUR_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as the view `runs` has it. Times are Unix nanoseconds."""

    run_id: str
    trace_id: str
    parent_run_id: str | None
    agent: str | None
    agent_version: str | None
    prompt_version: str | None
    environment: str | None
    user_id: str | None
    conversation_id: str | None
    task_id: str | None
    started_ns: int
    ended_ns: int | None
    last_event_ns: int
    last_seen_ns: int
    outcome: str
    error_class: str | None
    error_type: str | None
    input: str | None
    input_chars: int
    final_answer: str | None
    final_answer_chars: int
    turns: int
    llm_calls: int
    tool_calls: int
    errors: int
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None
    cost_usd: Decimal | None
    cost_unknown_calls: int
    models: tuple[str, ...]
    max_context_tokens: int | None
    context_window: int | None
    estimate_usd: Decimal | None
    limits: str | None
    limit_hit: str | None
    config: str | None
    inferred: bool = False
    """Nobody declared it."""
    duplicate_of: str | None = None
    """The run that counts, where this one is only another recording of it."""

    @property
    def live(self) -> bool:
        """Whether it may still change by itself."""
        return self.outcome == "running"


@dataclass(frozen=True, slots=True)
class Span:
    """One line of the timeline. Times are Unix nanoseconds."""

    span_id: str
    trace_id: str
    parent_span_id: str | None
    run_id: str | None
    kind: str
    name: str
    agent: str | None
    tool: str | None
    model: str | None
    turn: int | None
    started_ns: int
    ended_ns: int | None
    status: str
    error_type: str | None
    status_message: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    input_bytes: int
    output_bytes: int
    stop_reason: str | None
    context_window: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    thinking_tokens: int | None
    inferred: bool = False
    duplicate_of: str | None = None
    """The span that counts, where this one recorded the same call."""


_RUN: Final = """
SELECT run_id, trace_id, parent_run_id, agent, agent_version, prompt_version, environment, user_id, conversation_id,
    task_id, toUnixTimestamp64Nano(started_at), toUnixTimestamp64Nano(ended_at), toUnixTimestamp64Nano(last_event_at),
    toUnixTimestamp64Nano(last_seen_at), outcome, error_class, error_type,
    substringUTF8(input, 1, {cut:UInt32}), lengthUTF8(ifNull(input, '')),
    substringUTF8(final_answer, 1, {cut:UInt32}), lengthUTF8(ifNull(final_answer, '')),
    turns, llm_calls, tool_calls, errors,
    input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, thinking_tokens, cost_usd, cost_unknown_calls,
    models, max_context_tokens, context_window, estimate_usd, limits, limit_hit, config, inferred, DUPLICATE_OF
FROM VIEW WHERE run_id = {run:String} ORDER BY started_at DESC LIMIT 1"""

_SPANS: Final = """
SELECT span_id, trace_id, parent_span_id, run_id, kind, leftUTF8(name, 200), agent, tool, model, turn,
    toUnixTimestamp64Nano(started_at), toUnixTimestamp64Nano(ended_at), status, error_type,
    leftUTF8(status_message, 300),
    input_tokens, output_tokens, cost_usd, input_bytes, output_bytes,
    stop_reason, context_window, cache_read_tokens, cache_write_tokens, thinking_tokens, inferred, duplicate_of
FROM spans
WHERE (trace_id = {trace:String} OR run_id = {run:String})
    AND started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Nano({until:Int64}, 'UTC')
ORDER BY started_at, span_id LIMIT {limit:UInt32}"""

_CUT: Final = 4_000


def time_bounds(run: Run) -> dict[str, int]:
    """Parameters `since` and `until`: where in the store a run's spans lie. The store is sorted by hour."""
    return {"since": run.started_ns - _HOUR_NS, "until": max(run.last_event_ns, run.last_seen_ns) + _HOUR_NS}


@st.cache_data(ttl=1, max_entries=128, show_spinner=False)
def get_run(run_id: str) -> Run | None:
    """A run; None for an unknown one. Input and final answer are cut to 4,000 characters, their lengths are whole."""
    values = {"run": run_id, "cut": _CUT}
    rows = ask(_RUN.replace("VIEW", "runs").replace("DUPLICATE_OF", "NULL"), values)
    if not rows:
        rows = ask(_RUN.replace("VIEW", "duplicate_runs").replace("DUPLICATE_OF", "duplicate_of"), values)
    if not rows:
        return None
    row: list[Any] = list(rows[0])
    models = 32  # the one column that is a list
    row[models] = tuple(row[models])
    return Run(*row)


@st.cache_data(ttl=1, max_entries=8, show_spinner=False)
def live_spans(run: Run) -> list[Span]:
    """All spans of a run's trace, sub-agents included, by start. Of a run that may still change."""
    return _spans(run)


@st.cache_data(ttl=120, max_entries=16, show_spinner=False)
def settled_spans(run: Run) -> list[Span]:
    """The same for a run that has ended; asked again when its row changes."""
    return _spans(run)


def spans_of(run: Run) -> list[Span]:
    """All spans of a run's trace, sub-agents included, by start; at most MAX_SPANS."""
    return live_spans(run) if run.live else settled_spans(run)


def _spans(run: Run) -> list[Span]:
    values = {"trace": run.trace_id, "run": run.run_id, "limit": MAX_SPANS} | time_bounds(run)
    return [Span(*row) for row in ask(_SPANS, values)]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened inside a span."""

    span_id: str
    at_ns: int
    name: str
    attributes: dict[str, str]


_EVENTS: Final = """
SELECT span_id, toUnixTimestamp64Nano(at), name, mapApply((k, v) -> (k, leftUTF8(v, 20000)), attributes)
FROM span_events WHERE run_id = {run:String} ORDER BY at, position LIMIT 500"""


@st.cache_data(ttl=2, max_entries=32, show_spinner=False)
def events_of(run_id: str) -> list[Event]:
    """The first 500 events of a run's spans, values cut to 20,000 characters."""
    return [Event(*row) for row in ask(_EVENTS, {"run": run_id})]


@dataclass(frozen=True, slots=True)
class PromptUse:
    """A pair of system prompt and tool definitions in use during a run."""

    system_hash: str | None
    tools_hash: str | None
    first_turn: int | None
    last_turn: int | None
    calls: int
    first_span: str


_PROMPT_USES: Final = """
SELECT system_hash, tools_hash, min(turn), max(turn), count(), argMin(span_id, started_at) FROM calls
WHERE run_id = {run:String} AND (duplicate_of IS NULL OR {all:Bool})
    AND started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Nano({until:Int64}, 'UTC')
GROUP BY system_hash, tools_hash ORDER BY min(started_at) LIMIT 50"""


@st.cache_data(ttl=2, max_entries=32, show_spinner=False)
def prompt_uses(run: Run) -> list[PromptUse]:
    """Which prompts a run used, in order of their first use."""
    return [
        PromptUse(*row)
        for row in ask(_PROMPT_USES, {"run": run.run_id, "all": run.duplicate_of is not None} | time_bounds(run))
    ]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A version of a system prompt or of tool definitions."""

    hash: str
    kind: str
    name: str | None
    version: str | None
    first_seen_ns: int
    last_seen_ns: int
    agents: list[str]
    body: str
    chars: int
    """Of the whole body."""
    shape: str
    """Of tool definitions; see `loopscope_schemas.content`."""


_PROMPTS: Final = """
SELECT hash, kind, name, version, toUnixTimestamp64Nano(first_seen_at), toUnixTimestamp64Nano(last_seen_at), agents,
    substringUTF8(body, 1, {cut:UInt32}), lengthUTF8(body), shape
FROM prompts WHERE hash IN {hashes:Array(String)}"""


@st.cache_data(ttl=60, max_entries=64, show_spinner=False)
def prompts_of(hashes: tuple[str, ...], cut: int) -> dict[str, Prompt]:
    """Prompts by hash, bodies cut to `cut` characters."""
    if not hashes:
        return {}
    rows = ask(_PROMPTS, {"hashes": list(hashes), "cut": cut})
    return {row[0]: Prompt(*row) for row in rows}

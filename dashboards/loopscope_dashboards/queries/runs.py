"""Questions of the *Runs* page: a page of the list, its totals, its chart, and what can be filtered by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import streamlit as st

from loopscope_dashboards.client import ask
from loopscope_dashboards.queries.search import (
    PRECISE_RUNS,
    RUNS_WITH_TEXT,
    RUNS_WITH_TEXT_AT_ONCE,
    SHARED_MOST,
    SHARED_TRACES,
    needle_of,
)

PAGE_RUNS: Final = 50
PREVIEW_CHARS: Final = 240
OUTCOMES: Final = ("running", "completed", "partial", "limit", "failed", "escalated", "crashed")
CHART_BUCKETS: Final = 60
_STEPS_SECONDS: Final = (
    10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000, 31_536_000,
)  # fmt: skip
NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs. Times are Unix nanoseconds, `until_ns` exclusive; empty tuples and texts filter nothing."""

    since_ns: int
    until_ns: int
    agents: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the list."""

    run_id: str
    trace_id: str
    parent_run_id: str | None
    agent: str | None
    agent_version: str | None
    environment: str | None
    started_ns: int
    last_event_ns: int
    duration_ms: float | None
    outcome: str
    error_type: str | None
    turns: int
    llm_calls: int
    tool_calls: int
    errors: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    cost_unknown_calls: int
    input: str | None
    """The first PREVIEW_CHARS characters."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Key figures over all runs of a filter."""

    runs: int
    running: int
    failed: int
    crashed: int
    llm_calls: int
    cost_usd: Decimal | None
    cost_unknown_calls: int
    p50_ms: float | None
    p95_ms: float | None
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Runs of one outcome that started in one interval."""

    start: datetime
    outcome: str
    runs: int
    cost_usd: Decimal | None
    cost_unknown_calls: int


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to filter by."""

    agents: tuple[str, ...]
    versions: tuple[str, ...]
    environments: tuple[str, ...]


_COLUMNS: Final = """
    run_id, trace_id, parent_run_id, agent, agent_version, environment,
    toUnixTimestamp64Nano(started_at), toUnixTimestamp64Nano(last_event_at), duration_ms, outcome, error_type,
    turns, llm_calls, tool_calls, errors, input_tokens, output_tokens, cost_usd, cost_unknown_calls"""

_IN_TIME: Final = """
    started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    AND started_at < fromUnixTimestamp64Nano({until:Int64}, 'UTC')"""

_FILTERS: Final = {
    "agents": "ifNull(agent, '') IN {agents:Array(String)}",
    "outcomes": "outcome IN {outcomes:Array(String)}",
    "environments": "ifNull(environment, '') IN {environments:Array(String)}",
    "versions": "ifNull(agent_version, '') IN {versions:Array(String)}",
}

# Keys first, the fat columns for the fifty that are shown: sorting whole rows would read every run's input.
_LIST: Final = """
SELECT COLUMNS, leftUTF8(input, {preview:UInt32})
FROM runs
WHERE (started_at, run_id) IN (
    SELECT started_at, run_id FROM runs WHERE CONDITION ORDER BY started_at DESC, run_id DESC LIMIT {limit:UInt32}
)
ORDER BY started_at DESC, run_id DESC LIMIT {limit:UInt32}"""

_OLDER: Final = """
    AND (started_at, run_id) < (fromUnixTimestamp64Nano({before_ns:Int64}, 'UTC'), {before_id:String})"""

_TOTALS: Final = """
SELECT
    count(), countIf(outcome = 'running'), countIf(outcome = 'failed'), countIf(outcome = 'crashed'),
    sum(llm_calls), sumOrNull(cost_usd), sum(cost_unknown_calls),
    quantileExactOrNullIf(0.5)(duration_ms, duration_ms IS NOT NULL),
    quantileExactOrNullIf(0.95)(duration_ms, duration_ms IS NOT NULL),
    toUnixTimestamp64Nano(min(started_at)), toUnixTimestamp64Nano(max(started_at))
FROM runs WHERE CONDITION"""

_CHART: Final = """
SELECT toUnixTimestamp(toStartOfInterval(started_at, toIntervalSecond({step:UInt32}), 'UTC')) AS start, outcome,
    count(), sumOrNull(cost_usd), sum(cost_unknown_calls)
FROM runs WHERE CONDITION GROUP BY start, outcome ORDER BY start, outcome"""

_CHOICES: Final = """
SELECT arraySort(groupUniqArray(500)(ifNull(agent, ''))), arraySort(groupUniqArray(500)(ifNull(agent_version, ''))),
    arraySort(groupUniqArray(500)(ifNull(environment, '')))
FROM runs WHERE started_at >= now() - toIntervalDay(90)"""

_SNIPPETS: Final = """
SELECT trace_id, role, source, snippet FROM (
    SELECT trace_id, role, source, first_seen_at,
        positionUTF8(lowerUTF8(body), lowerUTF8({needle:String})) AS place,
        substringUTF8(body, greatest(1, toInt64(place) - 60), 220) AS snippet
    FROM messages WHERE trace_id IN {traces:Array(String)} AND position(lowerUTF8(body), lowerUTF8({needle:String})) > 0
) ORDER BY first_seen_at LIMIT 1 BY trace_id"""

_PROMPTS: Final = """
SELECT hash, kind, agents, calls, runs_count FROM (
    SELECT hash, kind, agents FROM prompts WHERE MATCH ORDER BY last_seen_at DESC LIMIT 5
) AS found
LEFT JOIN (
    SELECT arrayJoin([system_hash, tools_hash]) AS hash, count() AS calls, uniqExact(run_id) AS runs_count FROM calls
    WHERE IN_TIME AND duplicate_of IS NULL GROUP BY hash
) AS used ON used.hash = found.hash"""


def _condition(wanted: RunFilter, more: str = "") -> tuple[str, dict[str, Any]]:
    parts = [_IN_TIME]
    values: dict[str, Any] = {"since": wanted.since_ns, "until": wanted.until_ns}
    for name, part in _FILTERS.items():
        chosen: tuple[str, ...] = getattr(wanted, name)
        if chosen:
            parts.append(part)
            values[name] = list(chosen)
    needle = needle_of(wanted.text)
    if needle:
        first_day = datetime.fromtimestamp(max(0, wanted.since_ns) // NANOSECONDS, UTC).date()
        shared, precise = shared_traces(wanted.text, first_day)
        condition = RUNS_WITH_TEXT if len(shared) <= SHARED_MOST else RUNS_WITH_TEXT_AT_ONCE
        parts.append(condition.replace("MATCH", needle.condition))
        values |= needle.parameters | {"first_day": first_day, "shared": list(shared), "precise": list(precise)}
    return " AND ".join(parts) + more, values


@st.cache_data(ttl=3, max_entries=64, show_spinner=False)
def shared_traces(text: str, first_day: date) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Traces of several runs that hold a text, and those of their runs that do (none worked out beyond SHARED_MOST)."""
    needle = needle_of(text)
    if needle is None:
        return (), ()
    values = needle.parameters | {"first_day": first_day}
    shared = tuple(row[0] for row in ask(SHARED_TRACES.replace("MATCH", needle.condition), values))
    if not shared or len(shared) > SHARED_MOST:
        return shared, ()
    values["shared"] = list(shared)
    return shared, tuple(row[0] for row in ask(PRECISE_RUNS.replace("MATCH", needle.condition), values))


@st.cache_data(ttl=1, max_entries=64, show_spinner=False)
def list_runs(wanted: RunFilter, before: tuple[int, str] | None = None, limit: int = PAGE_RUNS + 1) -> list[RunRow]:
    """The newest runs, or the newest before a run (its start in ns and its id)."""
    condition, values = _condition(wanted, _OLDER if before else "")
    if before:
        values |= {"before_ns": before[0], "before_id": before[1]}
    sql = _LIST.replace("COLUMNS", _COLUMNS).replace("CONDITION", condition)
    rows = ask(sql, values | {"limit": limit, "preview": PREVIEW_CHARS})
    return [RunRow(*row) for row in rows]


@st.cache_data(ttl=3, max_entries=64, show_spinner=False)
def totals(wanted: RunFilter) -> Totals:
    """Key figures of a filter."""
    condition, values = _condition(wanted)
    return Totals(*ask(_TOTALS.replace("CONDITION", condition), values)[0])


def step_seconds(first_ns: int, last_ns: int) -> int:
    """Width of the chart's intervals: a round number of which CHART_BUCKETS cover the time."""
    span = max(1, (last_ns - first_ns) // NANOSECONDS)
    return next((step for step in _STEPS_SECONDS if span / step <= CHART_BUCKETS), _STEPS_SECONDS[-1])


@st.cache_data(ttl=5, max_entries=64, show_spinner=False)
def over_time(wanted: RunFilter, step: int) -> list[Bucket]:
    """Runs by interval of `step` seconds and outcome, oldest first; intervals without runs are left out."""
    condition, values = _condition(wanted)
    rows = ask(_CHART.replace("CONDITION", condition), values | {"step": step})
    return [Bucket(datetime.fromtimestamp(row[0], UTC), *row[1:]) for row in rows]


@st.cache_data(ttl=20, max_entries=4, show_spinner=False)
def choices() -> Choices:
    """Agents, versions and environments of the last 90 days."""
    row = ask(_CHOICES, {})[0]
    return Choices(*(tuple(value for value in column if value) for column in row))


@st.cache_data(ttl=60, max_entries=64, show_spinner=False)
def snippets(trace_ids: tuple[str, ...], text: str) -> dict[str, tuple[str, str]]:
    """Where a text was found, by trace: (source, some text around it)."""
    needle = needle_of(text)
    if not needle or not trace_ids:
        return {}
    rows: Sequence[Sequence[Any]] = ask(_SNIPPETS, {"traces": list(trace_ids), "needle": needle.text})
    return {row[0]: (row[2], row[3]) for row in rows}


@dataclass(frozen=True, slots=True)
class PromptHit:
    """A system prompt or set of tool definitions that holds the text."""

    hash: str
    kind: str
    agents: tuple[str, ...]
    calls: int
    runs: int


@st.cache_data(ttl=20, max_entries=64, show_spinner=False)
def prompts_with(wanted: RunFilter) -> list[PromptHit]:
    """Prompt versions that hold the filter's text, and how many runs in its time used them."""
    needle = needle_of(wanted.text)
    if not needle:
        return []
    sql = _PROMPTS.replace("MATCH", needle.condition).replace("IN_TIME", _IN_TIME)
    rows = ask(sql, needle.parameters | {"since": wanted.since_ns, "until": wanted.until_ns})
    return [PromptHit(row[0], row[1], tuple(row[2]), row[3] or 0, row[4] or 0) for row in rows]

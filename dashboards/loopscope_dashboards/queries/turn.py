"""Questions of the *Run* page about one turn: its calls in detail, the texts they name, its tool calls, the record."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import streamlit as st

from loopscope_dashboards.client import ask, store_dsn
from loopscope_dashboards.text import CUT_CHARS
from loopscope_schemas import recall
from loopscope_schemas.content import Json


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call. Hashes are in hex."""

    span_id: str
    trace_id: str
    turn: int | None
    provider: str | None
    model: str | None
    request_model: str | None
    response_id: str | None
    started_ns: int
    ended_ns: int | None
    duration_ms: float | None
    ttft_ms: float | None
    longest_gap_ms: float | None
    http_attempts: int | None
    stop_reason: str | None
    status: str
    status_message: str | None
    error_class: str | None
    error_type: str | None
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None
    cost_usd: Decimal | None
    cost_source: str
    reported_cost_usd: Decimal | None
    price_version: str | None
    context_window: int | None
    messages: int
    input_hashes: list[str]
    output_hashes: list[str]
    system_hash: str | None
    tools_hash: str | None
    input_shape: str
    output_shape: str
    request_params: str | None
    partial: bool
    dialect: str | None


@dataclass(frozen=True, slots=True)
class Text:
    """A content block's text, cut, and how long it is in full (characters)."""

    body: str
    chars: int


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call, texts cut."""

    span_id: str
    tool: str | None
    call_id: str | None
    started_ns: int
    duration_ms: float | None
    arguments: str | None
    arguments_chars: int
    result: str | None
    result_chars: int
    attempt: int | None
    status: str
    status_message: str | None
    error_class: str | None
    error_type: str | None
    side_effects: bool | None
    idempotency: str
    key: str | None
    inferred: bool = False
    duplicate_of: str | None = None


_AT: Final = """
    AND started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Nano({until:Int64}, 'UTC')"""

_CALLS: Final = (
    """
SELECT span_id, trace_id, turn, provider, model, request_model, response_id, toUnixTimestamp64Nano(started_at),
    toUnixTimestamp64Nano(ended_at), duration_ms, ttft_ms, longest_gap_ms, http_attempts, stop_reason, status,
    leftUTF8(status_message, 20000), error_class, error_type, input_tokens, cache_read_tokens, cache_write_tokens,
    output_tokens, thinking_tokens, cost_usd, cost_source, reported_cost_usd, price_version, context_window,
    messages, input_hashes, output_hashes, system_hash, tools_hash, input_shape, output_shape, request_params,
    partial, dialect
FROM calls WHERE trace_id IN {traces:Array(String)} AND span_id IN {spans:Array(String)}"""
    + _AT
    + " ORDER BY started_at, span_id"
)

_TEXTS: Final = """
SELECT hash, substringUTF8(body, 1, {cut:UInt32}), lengthUTF8(body) FROM messages
WHERE trace_id = {trace:String} AND hash IN {hashes:Array(String)} LIMIT 1 BY hash"""

_TOOLS: Final = (
    """
SELECT span_id, tool, call_id, toUnixTimestamp64Nano(started_at), duration_ms,
    substringUTF8(arguments, 1, {cut:UInt32}), lengthUTF8(ifNull(arguments, '')),
    substringUTF8(result, 1, {cut:UInt32}), lengthUTF8(ifNull(result, '')),
    attempt, status, leftUTF8(status_message, 20000), error_class, error_type, side_effects, idempotency, key,
    inferred, duplicate_of
FROM tool_calls WHERE trace_id IN {traces:Array(String)} AND span_id IN {spans:Array(String)}"""
    + _AT
    + " ORDER BY started_at, span_id"
)

_RECORD: Final = (
    """
SELECT span_id, name, kind, operation, dialect, scope, service, process_id, status, redactions, cut, links,
    mapApply((k, v) -> (k, leftUTF8(v, 20000)), attributes), resource, toUnixTimestamp64Nano(received_at)
FROM spans WHERE trace_id IN {traces:Array(String)} AND span_id IN {spans:Array(String)}"""
    + _AT
    + " ORDER BY started_at, span_id"
)

_FULL_TOOL: Final = (
    """
SELECT ifNull(arguments, ''), ifNull(result, '') FROM tool_calls
WHERE trace_id = {trace:String} AND span_id = {span:String}"""
    + _AT
    + " LIMIT 1"
)

_FULL_TEXT: Final = """
SELECT body FROM messages WHERE trace_id = {trace:String} AND hash = {hash:String} LIMIT 1"""

_HASHES_AT_ONCE: Final = 500
"""Parameters travel in the address, whose length servers bound."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which spans, and where in the store they lie: without traces and times every look-up would be a scan."""

    span_ids: tuple[str, ...]
    trace_ids: tuple[str, ...]
    since_ns: int
    until_ns: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the questions' parameters."""
        return {
            "spans": list(self.span_ids),
            "traces": list(self.trace_ids),
            "since": self.since_ns,
            "until": self.until_ns,
        }


@st.cache_data(ttl=2, max_entries=64, show_spinner=False)
def calls_of(where: Where) -> list[Call]:
    """LLM calls, by start."""
    if not where.span_ids:
        return []
    rows = ask(_CALLS, where.parameters)
    return [Call(*row) for row in rows]


@st.cache_data(ttl=600, max_entries=256, show_spinner=False)
def texts_of(trace_id: str, hashes: tuple[str, ...], cut: int = CUT_CHARS) -> dict[str, Text]:
    """Texts of content blocks by hash, cut. A text never changes; one that is missing is absent."""
    found: dict[str, Text] = {}
    for start in range(0, len(hashes), _HASHES_AT_ONCE):
        some = list(hashes[start : start + _HASHES_AT_ONCE])
        for row in ask(_TEXTS, {"trace": trace_id, "hashes": some, "cut": cut}):
            found[row[0]] = Text(row[1], row[2])
    return found


@st.cache_data(ttl=2, max_entries=128, show_spinner=False)
def tools_of(where: Where, cut: int = CUT_CHARS) -> list[ToolCall]:
    """Tool calls, by start."""
    if not where.span_ids:
        return []
    values = where.parameters | {"cut": cut}
    return [ToolCall(*row) for row in ask(_TOOLS, values)]


@dataclass(frozen=True, slots=True)
class Record:
    """All that a span carries besides its own columns."""

    span_id: str
    name: str
    kind: str
    operation: str | None
    dialect: str | None
    scope: str | None
    service: str | None
    process_id: str | None
    status: str
    redactions: int
    cut: str | None
    links: str | None
    attributes: dict[str, str]
    resource: dict[str, str]
    received_ns: int


@st.cache_data(ttl=2, max_entries=64, show_spinner=False)
def records_of(where: Where) -> list[Record]:
    """What spans carry, attribute values cut to 20,000 characters."""
    if not where.span_ids:
        return []
    rows = ask(_RECORD, where.parameters)
    return [Record(*row) for row in rows]


def full_text(trace_id: str, hash_: str) -> str:
    """A content block's text, whole. Raises LookupError. Not cached: it may be large."""
    rows = ask(_FULL_TEXT, {"trace": trace_id, "hash": hash_})
    if not rows:
        raise LookupError(f"text {hash_} is not in the store")
    return rows[0][0]


def full_tool_call(span_id: str, where: Where) -> tuple[str, str]:
    """Arguments and result of a tool call, whole (JSON texts). Raises LookupError."""
    rows: Any = ask(
        _FULL_TOOL, {"span": span_id, "trace": where.trace_ids[0], "since": where.since_ns, "until": where.until_ns}
    )
    if not rows:
        raise LookupError(f"tool call {span_id} is not in the store")
    return rows[0][0], rows[0][1]


def request_of(span_id: str, trace_id: str) -> Json:
    """The exact request of a call. Raises what `recall.fetch_request` raises."""
    return recall.fetch_request(ask, span_id, trace_id=trace_id, database=store_dsn().database)


def response_of(span_id: str, trace_id: str) -> Json:
    """The exact answer of a call. Raises what `recall.fetch_response` raises."""
    return recall.fetch_response(ask, span_id, trace_id=trace_id, database=store_dsn().database)

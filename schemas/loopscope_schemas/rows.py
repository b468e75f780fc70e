"""Row types of the physical tables: one dataclass a table, one field a column, in the order of the migration.

The collector fills them, its writer turns them into Arrow. A test compares each with its migration.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Final, NewType, TypeAlias

bytes_: TypeAlias = bytes
"""The type, where a field is named `bytes`."""

Nanoseconds = NewType("Nanoseconds", int)
"""A time: Unix nanoseconds, UTC."""
Day = NewType("Day", int)
"""A date: days since 1970-01-01, UTC."""
Hash = NewType("Hash", bytes)
"""16 bytes, BLAKE2b-128."""

NO_HASH: Final = Hash(bytes(16))
"""Stands for no hash where a column cannot be NULL."""
FINISHED: Final = 1 << 63
"""Added to the version of finished spans, so that no later heartbeat replaces one."""
NANOSECONDS_PER_DAY: Final = 86_400 * 1_000_000_000


@dataclass(slots=True, kw_only=True)
class SpanRow:
    """One span, finished or (version 0) just started."""

    TABLE: ClassVar[str] = "spans_data"

    day: Day
    """The partition it is filed under: the day of its start, or of its receipt when that is out of range."""
    start_time: Nanoseconds
    end_time: Nanoseconds | None = None
    received_at: Nanoseconds
    version: int = 0
    """0 for a start marker, the time of a heartbeat, FINISHED + the end for a finished span: the highest wins."""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    run_id: str = ""
    parent_run_id: str = ""
    kind: str = ""
    """run, llm, tool, step, count, batch, limit or other."""
    operation: str = ""
    name: str = ""
    dialect: str = ""
    scope: str = ""
    service: str = ""
    process_id: str = ""
    agent: str = ""
    agent_version: str = ""
    environment: str = ""
    user_id: str = ""
    conversation_id: str = ""
    task_id: str = ""
    status: str = ""
    """ok, error or unset."""
    status_message: str = ""
    error_class: str = ""
    error_type: str = ""
    turn: int | None = None
    provider: str = ""
    request_model: str = ""
    model: str = ""
    response_id: str = ""
    stop_reason: str = ""
    ttft_ms: float | None = None
    longest_gap_ms: float | None = None
    http_attempts: int | None = None
    partial: bool = False
    input_tokens: int | None = None
    """Cache included."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    """Of all lifetimes."""
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    thinking_tokens: int | None = None
    web_searches: int | None = None
    usage_raw: str = ""
    cost_usd: Decimal | None = None
    cost_source: str = ""
    price_version: str = ""
    reported_cost_usd: Decimal | None = None
    """Cost that the sender computed."""
    context_window: int | None = None
    messages: int = 0
    """Messages in the request."""
    chain_root: Hash = NO_HASH
    """Hash of everything up to and including the first user message."""
    system_hash: Hash = NO_HASH
    tools_hash: Hash = NO_HASH
    input_hashes: list[Hash] = field(default_factory=list[Hash])
    input_shape: str = ""
    output_hashes: list[Hash] = field(default_factory=list[Hash])
    output_shape: str = ""
    request_params: str = ""
    input_preview: str = ""
    output_preview: str = ""
    input_bytes: int = 0
    output_bytes: int = 0
    input_text: str = ""
    """Input of a tool call or run in full; empty on LLM calls."""
    output_text: str = ""
    """Output of a tool call or run in full; empty on LLM calls."""
    tool: str = ""
    call_id: str = ""
    attempt: int | None = None
    side_effects: bool | None = None
    idempotency: str = ""
    key: str = ""
    prompt_name: str = ""
    prompt_version: str = ""
    outcome: str = ""
    config: str = ""
    limits: str = ""
    limit_hit: str = ""
    heartbeat_at: Nanoseconds | None = None
    redactions: int = 0
    cut: str = ""
    """What was shortened, from which size and why (JSON text)."""
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    """Attributes without a column of their own, values as JSON text where they are not strings."""
    resource: dict[str, str] = field(default_factory=dict[str, str])
    links: str = ""
    service_tier: str = ""
    inferred: bool = False
    """A tool call: read from the message history. A run or call: of a run that nobody declared."""
    duplicate_of: str = ""
    """Span that recorded the same call and counts; written by the writer, never by normalising."""
    duplicate_of_run: str = ""
    """The run of that span."""


@dataclass(slots=True, kw_only=True)
class MessageRow:
    """One content block of a trace and day."""

    TABLE: ClassVar[str] = "messages_data"

    day: Day
    trace_id: str = ""
    hash: Hash = NO_HASH
    role: str = ""
    kind: str = ""
    source: str = ""
    tool: str = ""
    first_span_id: str = ""
    first_turn: int | None = None
    first_seen_at: Nanoseconds
    bytes: int = 0
    tokens_estimate: int = 0
    body: str = ""


@dataclass(slots=True, kw_only=True)
class BlobRow:
    """One binary of a trace and day."""

    TABLE: ClassVar[str] = "blobs_data"

    day: Day
    trace_id: str = ""
    hash: Hash = NO_HASH
    encoding: str = ""
    bytes: int = 0
    data: "bytes_" = b""
    """As they are: a ClickHouse String holds any bytes."""


@dataclass(slots=True, kw_only=True)
class PromptRow:
    """One system prompt or set of tool definitions of a day."""

    TABLE: ClassVar[str] = "prompts_data"

    day: Day
    hash: Hash = NO_HASH
    kind: str = ""
    agent: str = ""
    name: str = ""
    version: str = ""
    first_seen_at: Nanoseconds
    bytes: int = 0
    body: str = ""
    shape: str = ""


@dataclass(slots=True, kw_only=True)
class EventRow:
    """One event of a span."""

    TABLE: ClassVar[str] = "span_events_data"

    day: Day
    trace_id: str = ""
    span_id: str = ""
    run_id: str = ""
    position: int = 0
    at: Nanoseconds
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True, kw_only=True)
class RunStateRow:
    """One run, as its spans tell it now."""

    TABLE: ClassVar[str] = "run_state_data"

    day: Day
    run_id: str = ""
    version: int = 0
    trace_id: str = ""
    parent_run_id: str = ""
    agent: str = ""
    agent_version: str = ""
    prompt_version: str = ""
    environment: str = ""
    user_id: str = ""
    conversation_id: str = ""
    task_id: str = ""
    process_id: str = ""
    started_at: Nanoseconds
    ended_at: Nanoseconds | None = None
    last_event_at: Nanoseconds
    last_seen_at: Nanoseconds
    outcome: str = ""
    error_class: str = ""
    error_type: str = ""
    input: str = ""
    final_answer: str = ""
    turns: int = 0
    llm_calls: int = 0
    tool_calls: int = 0
    errors: int = 0
    spans: int = 0
    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    thinking_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_unknown_calls: int = 0
    models: list[str] = field(default_factory=list[str])
    max_context_tokens: int | None = None
    context_window: int | None = None
    estimate_usd: Decimal | None = None
    limits: str = ""
    limit_hit: str = ""
    config: str = ""
    is_deleted: bool = False
    """True where the run turned out to have begun earlier: its row is under that start."""
    inferred: bool = False
    """Nobody declared it: it was found from the message history."""
    duplicate_of: str = ""
    """The run that counts, where all calls of this one were recorded by it as well."""

"""Recorded runs made by hand: real message JSON, split as the collector splits it, into the tables of a real engine.

For tests and benchmarks of the dashboards, which need runs of a shape that no demo agent has: 3,000 spans, 10 MB
messages, hostile names. Nothing here stands in for the store.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from loopscope_schemas.content import Block, Memo, split_document, split_text
from loopscope_schemas.dsn import ServerDsn, parse_dsn
from loopscope_schemas.migrate import Target, apply
from loopscope_schemas.rows import (
    NANOSECONDS_PER_DAY,
    NO_HASH,
    Day,
    EventRow,
    Hash,
    MessageRow,
    Nanoseconds,
    PromptRow,
    RunStateRow,
    SpanRow,
)

MS = 1_000_000
SECOND = 1_000 * MS

TOOLS: list[dict[str, Any]] = [
    {
        "name": "get_order",
        "description": "Look up an order by its number.",
        "input_schema": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
    {
        "name": "refund",
        "description": "Refund an order in part or in full.",
        "input_schema": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}},
            "required": ["order_id", "amount"],
        },
    },
]


@dataclass(slots=True)
class Turn:
    """One LLM call and what followed."""

    answer: list[dict[str, Any]]
    results: list[Any] = field(default_factory=list[Any])
    """One for each tool_use of the answer: text, a list of blocks, or an exception."""
    stop_reason: str = "tool_use"
    output_tokens: int = 180
    cost_usd: Decimal | None = Decimal("0.012345678901")
    error: str = ""
    unfinished: bool = False
    call_ms: int = 1_800
    tool_ms: int = 240
    http_attempts: int = 1


@dataclass(slots=True)
class Rows:
    """Rows of the physical tables, collected and inserted together."""

    spans: list[SpanRow] = field(default_factory=list[SpanRow])
    messages: list[MessageRow] = field(default_factory=list[MessageRow])
    prompts: list[PromptRow] = field(default_factory=list[PromptRow])
    events: list[EventRow] = field(default_factory=list[EventRow])
    runs: list[RunStateRow] = field(default_factory=list[RunStateRow])
    seen: set[tuple[str, int, bytes]] = field(default_factory=set[tuple[str, int, bytes]])

    def insert(self, client: Client) -> None:
        """Write all rows and forget them."""
        for table in (self.prompts, self.messages, self.events, self.spans, self.runs):
            rows: Sequence[Any] = table
            if rows:
                names = [item.name for item in fields(rows[0])]
                client.insert(
                    rows[0].TABLE, [[getattr(row, name) for name in names] for row in rows], column_names=names
                )
            table.clear()

    def blocks(self, trace_id: str, span: SpanRow, blocks: Sequence[Block]) -> list[Hash]:
        """File content blocks of a trace; their hashes in order."""
        for block in blocks:
            key = (trace_id, span.day, block.hash)
            if key not in self.seen:
                self.seen.add(key)
                self.messages.append(
                    MessageRow(
                        day=span.day,
                        trace_id=trace_id,
                        hash=Hash(block.hash),
                        role=block.role,
                        kind=block.kind,
                        source=block.source,
                        tool=block.tool,
                        first_span_id=span.span_id,
                        first_turn=span.turn,
                        first_seen_at=span.start_time,
                        bytes=len(block.body.encode()),
                        tokens_estimate=len(block.body) // 4,
                        body=block.body,
                    )
                )
        return [Hash(block.hash) for block in blocks]


def run_id_of(number: int) -> str:
    """A run id that looks like one, the same for the same number."""
    return UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC834) % (1 << 128)).hex


def add_run(
    rows: Rows,
    number: int,
    turns: Sequence[Turn],
    *,
    at: int,
    question: Any = "Where is my order W-1001?",
    system: str = "You are the support agent of a small shop. Be exact.",
    agent: str = "support",
    version: str = "1.4.0",
    environment: str = "production",
    outcome: str = "completed",
    final_answer: str = "Your order is on its way.",
    parent: tuple[str, str, str] | None = None,
    estimate: Decimal | None = None,
    window: int | None = 200_000,
    model: str = "claude-sonnet-4-5",
    context_tokens: int = 1_500,
    limits: str = "",
    limit_hit: str = "",
    user_id: str = "u-17",
    task_id: str = "",
) -> RunStateRow:
    """A run with its calls, tools and texts. `at` is its start in Unix nanoseconds. `parent` is (trace, run, span)."""
    run_id = run_id_of(number)
    trace_id, parent_run, parent_span = parent or (run_id, "", "")
    day = Day(at // NANOSECONDS_PER_DAY)
    root_span = run_id[:16]
    serial = iter(range(1, 1_000_000))

    def span(kind: str, operation: str, name: str, start: int, **more: Any) -> SpanRow:
        found = SpanRow(
            day=day,
            start_time=Nanoseconds(start),
            received_at=Nanoseconds(start),
            trace_id=trace_id,
            run_id=run_id,
            parent_run_id=parent_run,
            kind=kind,
            operation=operation,
            name=name,
            dialect="loopscope",
            scope="loopscope",
            service=agent,
            process_id="p1",
            agent=agent,
            agent_version=version,
            environment=environment,
            user_id=user_id,
            task_id=task_id,
            **more,
        )
        rows.spans.append(found)
        return found

    def end(found: SpanRow, at_ns: int, *, error: str = "") -> None:
        found.end_time = Nanoseconds(at_ns)
        found.version = at_ns
        found.status = "error" if error else "ok"
        found.status_message = error

    root = span("run", "invoke_agent", f"invoke_agent {agent}", at, span_id=root_span, parent_span_id=parent_span)
    clock = at + 15 * MS
    memo = Memo()
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    tokens = context_tokens
    spans = tools_called = errors = unknown = 0
    cost = Decimal(0)
    known = False
    total_in = total_out = 0
    for place, turn in enumerate(turns, 1):
        call = span(
            "llm", "chat", f"chat {model}", clock,
            span_id=f"{run_id[:8]}{next(serial):08x}", parent_span_id=root_span, turn=place,
            provider="anthropic", request_model=model, model=model, response_id=f"msg_{run_id[:8]}{place}",
            stop_reason=turn.stop_reason, ttft_ms=float(turn.call_ms) / 4, longest_gap_ms=420.0,
            http_attempts=turn.http_attempts, context_window=window, messages=len(messages),
        )  # fmt: skip
        request = {
            "model": model,
            "max_tokens": 4096,
            "temperature": 0.2,
            "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
            "tools": TOOLS,
            "messages": messages,
        }
        split = split_document(json.dumps(request).encode(), memo)
        call.input_hashes = rows.blocks(trace_id, call, split.blocks)
        call.input_shape = split.shape
        call.request_params = json.dumps({"max_tokens": 4096, "temperature": 0.2})
        call.input_preview = json.dumps(messages[-1]["content"])[:200]
        for prompt in split.prompts:
            if prompt.kind == "system":
                call.system_hash = Hash(prompt.hash)
            else:
                call.tools_hash = Hash(prompt.hash)
            key = (f"{prompt.kind}/{agent}", day, prompt.hash)
            if key not in rows.seen:
                rows.seen.add(key)
                rows.prompts.append(
                    PromptRow(
                        day=day, hash=Hash(prompt.hash), kind=prompt.kind, agent=agent, first_seen_at=Nanoseconds(at),
                        bytes=len(prompt.body.encode()), body=prompt.body, shape=prompt.shape,
                    )
                )  # fmt: skip
        spans += 1
        if turn.unfinished:
            call.stop_reason = ""
            call.ttft_ms = call.longest_gap_ms = call.http_attempts = None
            break
        clock += turn.call_ms * MS
        end(call, clock, error=turn.error)
        if turn.error:
            errors += 1
            call.error_type, call.error_class = "overloaded_error", "transient"
            rows.events.append(
                EventRow(
                    day=day, trace_id=trace_id, span_id=call.span_id, run_id=run_id, at=Nanoseconds(clock),
                    name="exception",
                    attributes={"exception.type": "anthropic.APIStatusError", "exception.message": turn.error},
                )
            )  # fmt: skip
            unknown += 1
            continue
        call.input_tokens, call.cache_read_tokens, call.cache_write_tokens = tokens, tokens * 6 // 10, tokens // 10
        call.output_tokens, call.thinking_tokens = turn.output_tokens, turn.output_tokens // 3
        call.cost_usd, call.cost_source = turn.cost_usd, "unknown" if turn.cost_usd is None else "computed"
        call.price_version = "genai-prices 0.2.3"
        if turn.cost_usd is None:
            unknown += 1
        else:
            cost += turn.cost_usd
            known = True
        total_in += tokens
        total_out += turn.output_tokens
        response = {
            "id": call.response_id, "type": "message", "role": "assistant", "model": model,
            "content": turn.answer, "stop_reason": turn.stop_reason, "usage": {"input_tokens": tokens},
        }  # fmt: skip
        answered = split_document(json.dumps(response).encode(), memo)
        call.output_hashes = rows.blocks(trace_id, call, answered.blocks)
        call.output_shape = answered.shape
        call.output_preview = next((b["text"] for b in turn.answer if b.get("type") == "text"), "")[:200]
        messages.append({"role": "assistant", "content": turn.answer})
        results: list[dict[str, Any]] = []
        uses = [block for block in turn.answer if block.get("type") == "tool_use"]
        for use, result in zip(uses, turn.results, strict=False):
            failed = isinstance(result, Exception)
            output = str(result) if failed else result
            tool = span(
                "tool", "execute_tool", f"execute_tool {use['name']}", clock,
                span_id=f"{run_id[:8]}{next(serial):08x}", parent_span_id=root_span, turn=place,
                tool=str(use["name"]), call_id=str(use["id"]), attempt=1, side_effects=use["name"] == "refund",
                input_text=json.dumps(use["input"]), output_text="" if failed else json.dumps(output),
            )  # fmt: skip
            clock += turn.tool_ms * MS
            end(tool, clock, error=output if failed else "")
            if failed:
                errors += 1
                tool.error_type, tool.error_class = "LookupError", "deterministic"
            for role, kind, text in (("tool", "tool_call", tool.input_text), ("tool", "tool_result", tool.output_text)):
                if text:
                    rows.blocks(
                        trace_id, tool, split_text(role, kind, text, tool=tool.tool, call_id=tool.call_id).blocks
                    )
            spans += 1
            tools_called += 1
            results.append(
                {"type": "tool_result", "tool_use_id": use["id"], "content": output}
                | ({"is_error": True} if failed else {})
            )
        if results:
            messages.append({"role": "user", "content": results})
        tokens += turn.output_tokens + 350 * max(1, len(results))
        clock += 5 * MS
    ended = outcome not in ("running", "crashed")
    question_text = json.dumps(question)
    root.input_text, root.output_text = question_text, json.dumps(final_answer) if ended else ""
    if ended:
        end(root, clock)
        root.outcome = outcome
    state = RunStateRow(
        day=day, run_id=run_id, version=clock, trace_id=trace_id, parent_run_id=parent_run, agent=agent,
        agent_version=version, environment=environment, user_id=user_id, task_id=task_id, process_id="p1",
        started_at=Nanoseconds(at), ended_at=Nanoseconds(clock) if ended else None, last_event_at=Nanoseconds(clock),
        last_seen_at=Nanoseconds(clock), outcome=outcome,
        input=question if isinstance(question, str) else question_text,
        final_answer=final_answer if ended else "",
        turns=len(turns), llm_calls=len(turns), tool_calls=tools_called, errors=errors, spans=spans + 1,
        input_tokens=total_in or None, cache_read_tokens=total_in * 6 // 10, cache_write_tokens=total_in // 10,
        output_tokens=total_out or None, thinking_tokens=total_out // 3, cost_usd=cost if known else None,
        cost_unknown_calls=unknown, models=[model], max_context_tokens=tokens, context_window=window,
        estimate_usd=estimate, limits=limits, limit_hit=limit_hit,
    )  # fmt: skip
    rows.runs.append(state)
    return state


def use(name: str, id_: str, **input_: Any) -> dict[str, Any]:
    """A tool_use block."""
    return {"type": "tool_use", "id": id_, "name": name, "input": input_}


def text(value: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value}


def support_turns(count: int, *, cost: Decimal | None = Decimal("0.012345678901")) -> list[Turn]:
    """A plausible support conversation of `count` turns."""
    turns = [
        Turn(
            [
                {"type": "thinking", "thinking": f"I need the order before I answer. Step {place}.", "signature": ""},
                text(f"Let me look at order W-{1000 + place}."),
                use("get_order", f"toolu_{place}", order_id=f"W-{1000 + place}"),
            ],
            [
                json.dumps(
                    {"order_id": f"W-{1000 + place}", "status": "shipped", "items": ["lamp", "cable"], "total": 47.3}
                )
            ],
            cost_usd=cost,
        )
        for place in range(1, count)
    ]
    return [
        *turns,
        Turn([text("Your order W-1001 has shipped and arrives on Friday.")], stop_reason="end_turn", cost_usd=cost),
    ]


def connect(dsn_text: str) -> Client:
    """A client for writing. The database is created by `migrate`."""
    dsn = parse_dsn(dsn_text)
    assert isinstance(dsn, ServerDsn)
    return clickhouse_connect.get_client(
        host=dsn.host, port=dsn.port, username=dsn.user, password=dsn.password, database=dsn.database,
        autogenerate_session_id=False,
    )  # fmt: skip


def migrate(client: Client) -> None:
    """Bring the schema up."""
    apply(lambda sql: client.query(sql).result_rows, client.command, Target())


__all__ = [
    "MS",
    "NO_HASH",
    "SECOND",
    "Rows",
    "Turn",
    "add_run",
    "connect",
    "migrate",
    "run_id_of",
    "support_turns",
    "text",
    "use",
]

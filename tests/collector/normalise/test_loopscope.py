"""Loopscope's own dialect: provider bodies, tools, runs, markers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from support.telemetry import NOW, SECOND, Conversation, put, record, span

from loopscope_collector.normalise import Batch, Context, normalise
from loopscope_schemas import attributes as at
from loopscope_schemas.content import dump, join, parse
from loopscope_schemas.prices import price_list_version
from loopscope_schemas.rows import FINISHED, NANOSECONDS_PER_DAY, SpanRow


def rows(*spans: Any, context: Context | None = None, **more: Any) -> Batch:
    """The rows of some spans."""
    return normalise(record(spans, **more), context=context or Context())


def only(batch: Batch) -> SpanRow:
    """The one span of a batch."""
    assert not batch.refused
    (row,) = batch.spans
    return row


def rebuilt(batch: Batch, shape: str, hashes: list[Any], row: SpanRow) -> str:
    """A document from the rows of a batch."""
    bodies: dict[bytes, str] = {message.hash: message.body for message in batch.messages}
    prompts: dict[bytes, tuple[str, str]] = {prompt.hash: (prompt.body, prompt.shape) for prompt in batch.prompts}
    order = [row.system_hash] if '["$",' in shape else []
    return dump(join(shape, hashes, bodies.__getitem__, prompts=order, prompt=prompts.__getitem__))


def test_an_llm_call() -> None:
    """Identity, usage, cost, previews, and both documents rebuilt from the rows."""
    run = Conversation(system="Be kind.")
    usage = {
        "input_tokens": 21,
        "cache_read_input_tokens": 1800,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_1h_input_tokens": 100},
        "server_tool_use": {"web_search_requests": 1},
        "output_tokens": 42,
    }
    made = run.call("Where is order W-1?", [{"type": "text", "text": "On its way."}], usage=usage, temperature=0.5)
    put(made, {at.COST_USD: 0.012583, at.COST_SOURCE: "computed", at.PRICE_VERSION: price_list_version()})
    batch = rows(made)
    row = only(batch)
    assert (row.kind, row.operation, row.dialect, row.agent, row.turn) == ("llm", "chat", "loopscope", "support", 1)
    assert (row.run_id, row.trace_id, row.span_id) == (run.run_id, made.trace_id.hex(), made.span_id.hex())
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens) == (2121, 1800, 300)
    assert (row.cache_write_1h_tokens, row.output_tokens, row.web_searches) == (100, 42, 1)
    assert row.cost_usd == Decimal("0.012583")
    assert row.reported_cost_usd == Decimal("0.012583")
    assert batch.counts["cost_differences"] == 0
    assert (row.cost_source, row.stop_reason, row.status) == ("computed", "end_turn", "ok")
    assert (row.input_preview, row.output_preview) == ("Where is order W-1?", "On its way.")
    assert json.loads(row.request_params) == {"max_tokens": 512, "model": run.model, "temperature": 0.5}
    assert row.attributes == {}
    assert (row.service, row.process_id, row.environment) == ("shop", "process-1", "test")
    sent, answered = run.bodies[row.span_id]
    assert rebuilt(batch, row.input_shape, row.input_hashes, row) == dump(parse(sent))
    assert rebuilt(batch, row.output_shape, row.output_hashes, row) == dump(parse(answered))
    assert (row.input_bytes, row.output_bytes, row.messages) == (len(sent), len(answered), 1)
    assert row.version == FINISHED + (row.end_time or 0)


def test_a_wrong_cost_of_the_sender_is_kept_and_counted() -> None:
    """Both costs stand on the row."""
    made = Conversation().call("x", [])
    put(made, {at.COST_USD: 7.5})
    batch = rows(made)
    assert only(batch).reported_cost_usd == Decimal("7.5")
    assert only(batch).cost_usd == Decimal("0.000468")
    assert batch.counts["cost_differences"] == 1


def test_a_cost_that_nobody_can_compute() -> None:
    """Unknown model: the sender's cost counts; without one it is unknown, not zero."""
    reported = Conversation(model="my-own-model").call("x", [])
    put(reported, {at.COST_USD: 0.25})
    assert (only(rows(reported)).cost_usd, only(rows(reported)).cost_source) == (Decimal("0.25"), "reported")
    unknown = only(rows(Conversation(model="my-own-model").call("x", [])))
    assert (unknown.cost_usd, unknown.cost_source) == (None, "unknown")
    context = Context(price_overrides={"my-own-model": {"input": 1, "output": 2}})
    assert only(rows(Conversation(model="my-own-model").call("x", []), context=context)).cost_usd == Decimal("0.000123")


def test_a_history_is_stored_once() -> None:
    """Blocks of a trace stand once in a batch; the chain root stays the same through the run."""
    run = Conversation()
    for turn in range(4):
        run.call(f"question {turn}", [{"type": "text", "text": f"answer {turn}"}])
    batch = rows(*run.spans)
    assert sorted(message.body for message in batch.messages) == sorted(
        [f"question {turn}" for turn in range(4)] + [f"answer {turn}" for turn in range(4)]
    )
    assert len({row.chain_root for row in batch.spans}) == 1
    assert len(batch.prompts) == 1
    assert [row.messages for row in batch.spans] == [1, 3, 5, 7]
    other = Conversation(name="other")
    other.call("another question", [])
    assert only(rows(*other.spans)).chain_root != batch.spans[0].chain_root


def test_a_tool_call_shares_its_blocks_with_the_history() -> None:
    """Arguments and result in full on the span; as blocks they are those of the model's own messages."""
    run = Conversation()
    call = {"type": "tool_use", "id": "t1", "name": "refund", "input": {"order": "W-1", "amount": 3}}
    run.call("refund me", [call], stop="tool_use")
    run.tool("refund", "t1", {"order": "W-1", "amount": 3}, "done\ntwice")
    run.call([{"type": "tool_result", "tool_use_id": "t1", "content": "done\ntwice"}], [{"type": "text", "text": "ok"}])
    batch = rows(*run.spans)
    tool = batch.spans[1]
    assert (tool.kind, tool.tool, tool.call_id, tool.attempt) == ("tool", "refund", "t1", 1)
    assert json.loads(tool.input_text) == {"order": "W-1", "amount": 3}
    assert json.loads(tool.output_text) == "done\ntwice"
    assert tool.input_hashes == batch.spans[0].output_hashes
    assert tool.output_hashes[0] in batch.spans[2].input_hashes
    assert [(m.source, m.tool, m.body) for m in batch.messages if m.tool] == [
        ("tool_call", "refund", "refund\norder: W-1\namount: 3"),
        ("tool_result", "refund", "done\ntwice"),
    ]


@pytest.mark.parametrize(
    "result", [{"a": [1, None]}, [1, 2], 7, True, None, "plain", "", [{"type": "text", "text": "x"}]]
)
def test_any_tool_result_is_kept(result: Any) -> None:
    """Its JSON text as it was sent, and something to find."""
    run = Conversation()
    row = only(rows(run.tool("t", "id", {"x": result}, result)))
    assert json.loads(row.output_text) == result
    assert json.loads(row.input_text) == {"x": result}
    assert len(row.output_hashes) == len(row.input_hashes) == 1


def test_a_run() -> None:
    """Input, answer, outcome, limits; its texts are the blocks of the messages that carry them."""
    run = Conversation()
    run.call("where is it?", [{"type": "text", "text": "there"}])
    run.end(asked="where is it?", answered="there", **{at.RUN_LIMITS: '{"max_turns":5}', at.RUN_LIMIT_HIT: "max_turns"})
    batch = rows(*run.spans)
    row = batch.spans[1]
    assert (row.kind, row.outcome, row.limits, row.limit_hit) == ("run", "completed", '{"max_turns":5}', "max_turns")
    assert (row.input_text, row.output_text) == ('"where is it?"', '"there"')
    assert (row.input_hashes, row.output_hashes) == (batch.spans[0].input_hashes, batch.spans[0].output_hashes)


def test_markers_and_heartbeats_never_replace_a_finished_span() -> None:
    """Versions: marker, then heartbeats by time, then the end."""
    run = Conversation()
    marker = only(rows(run.marker(), kind="starts"))
    beat = only(rows(run.marker(heartbeat_at=NOW + 5 * SECOND), kind="starts"))
    later = only(rows(run.marker(heartbeat_at=NOW + 10 * SECOND), kind="starts"))
    finished = only(rows(run.end()))
    assert marker.version < beat.version < later.version < finished.version
    assert (marker.end_time, beat.heartbeat_at, marker.kind) == (None, NOW + 5 * SECOND, "run")
    keys = {(row.day, row.start_time, row.trace_id, row.span_id) for row in (marker, beat, later, finished)}
    assert len(keys) == 1


def test_bodies_that_are_no_json() -> None:
    """An HTML error page as answer, bytes that are no UTF-8 as request: kept whole."""
    made = span("x", gen_ai__operation__name="chat", loopscope__request__body=b"\xff\x00{", status=2)
    put(made, {at.RESPONSE_BODY: b"<html>502</html>"})
    batch = rows(made)
    row = only(batch)
    assert [message.body for message in batch.messages] == ["\\udcff\x00{", "<html>502</html>"]
    assert rebuilt(batch, row.output_shape, row.output_hashes, row) == '"<html>502</html>"'


def test_a_request_that_repeats_its_system_prompt_is_kept_whole() -> None:
    """A span has room for one; nothing is lost."""
    body = b'{"system":"a","system":"b","messages":[]}'
    made = span("x", gen_ai__operation__name="chat", loopscope__request__body=body)
    batch = rows(made)
    row = only(batch)
    assert rebuilt(batch, row.input_shape, row.input_hashes, row) == json.dumps(body.decode())


def test_the_same_bytes_give_the_same_rows() -> None:
    """Whatever was normalised before."""
    run = Conversation()
    for turn in range(3):
        run.call(f"q{turn}", [{"type": "tool_use", "id": f"t{turn}", "name": "f", "input": {}}])
        run.tool("f", f"t{turn}", {}, {"n": turn})
    run.end()
    item = record(run.spans)
    used = Context()
    normalise(record(reversed(run.spans)), context=used)
    fresh, warm = normalise(item, context=Context()), normalise(item, context=used)
    assert fresh.spans == warm.spans
    assert fresh.messages == warm.messages
    assert fresh.prompts == warm.prompts


def test_days() -> None:
    """A span is filed under the day of its start."""
    row = only(rows(span("x", start=NOW - 3 * NANOSECONDS_PER_DAY)))
    assert row.day == NOW // NANOSECONDS_PER_DAY - 3
    assert row.cut == ""


def test_a_result_of_a_batch_costs_a_batchs_price_whether_its_usage_says_so_or_not() -> None:
    run = Conversation()
    alone = run.call("x", [{"type": "text", "text": "y"}])
    batched = run.call("x", [{"type": "text", "text": "y"}], usage={"input_tokens": 101, "output_tokens": 11})
    put(batched, {at.SERVICE_TIER: "batch", at.BATCH_ID: "msgbatch_1", at.BATCH_CUSTOM_ID: "first"})
    whole, half = rows(alone, batched).spans
    assert (whole.input_tokens, whole.output_tokens) == (half.input_tokens, half.output_tokens)
    assert whole.cost_usd is not None
    assert half.cost_usd == whole.cost_usd / 2
    assert half.attributes[at.BATCH_CUSTOM_ID] == "first"

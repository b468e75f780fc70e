"""Runs and tools that nobody declared, and spans of ours that are no LLM calls: steps, counts, batches, limits."""

import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.telemetry import NOW, SECOND, Conversation, id_of, put, record, span

from loopscope_collector.queue import Record
from loopscope_schemas import attributes as at

INFERRED = {at.RUN_INFERRED: True}


def root(run: Conversation, *, end: int, **attributes: Any) -> Span:
    """The root span of an inferred run, as it is known at a time."""
    made = span(f"{run.name}/run", trace=run.name, start=run.start - 1_000, end=end)
    put(made, {at.OPERATION_NAME: "invoke_agent", at.RUN_ID: run.run_id, at.AGENT_NAME: run.agent, **INFERRED})
    put(made, attributes)
    return made


def beat(run: Conversation, at_ns: int) -> Record:
    """A sign of life of the run."""
    made = root(run, end=0)
    put(made, {at.HEARTBEAT_AT: at_ns})
    return record([made], kind="starts")


def inferred_run(calls: int = 2) -> Conversation:
    """Calls of a run that nobody declared; its root is made by `root`."""
    run = Conversation()
    for number in range(calls):
        run.call(f"question {number}", [{"type": "text", "text": f"answer {number}"}])
        put(run.spans[-1], INFERRED)
    return run


def test_a_run_that_nobody_declared(world: Any) -> None:
    """Its question and answer are those of its calls."""
    run = inferred_run()
    world.write(record([*run.spans, root(run, end=run.clock)]))
    found = world.run(run.run_id)
    assert (found["inferred"], found["outcome"], found["ended_at"]) == (True, "completed", run.clock)
    assert (found["input"], found["final_answer"], found["llm_calls"]) == ("question 0", "answer 1", 2)
    assert world.rows("SELECT DISTINCT inferred FROM db.calls") == [(True,)]
    declared = Conversation(name="declared")
    declared.end()
    world.write(record(declared.spans))
    assert world.run(declared.run_id)["inferred"] is False


def test_it_goes_on_after_it_was_thought_to_have_ended(world: Any) -> None:
    """A later call reopens it; a later end of the same root closes it, whichever comes first."""
    run = inferred_run(calls=1)
    first_end = run.clock
    world.write(record([*run.spans, root(run, end=first_end, **{at.RUN_OUTCOME: "completed"})]))
    assert world.run(run.run_id)["ended_at"] == first_end
    run.clock += 1
    world.write(record([run.marker("call2", operation="chat")], kind="starts"))
    found = world.run(run.run_id)
    assert (found["outcome"], found["ended_at"], found["final_answer"]) == ("running", None, None)
    run.call("more", [{"type": "text", "text": "the end"}])
    world.write(record(run.spans[-1:]))
    assert world.run(run.run_id)["outcome"] == "running"
    world.write(record([root(run, end=run.clock, **{at.RUN_OUTCOME: "partial"})]))
    world.write(record([root(run, end=first_end, **{at.RUN_OUTCOME: "completed"})]))  # a replay
    found = world.run(run.run_id)
    assert (found["outcome"], found["ended_at"], found["final_answer"]) == ("partial", run.clock, "the end")
    assert world.rows("SELECT count() FROM db.runs") == [(1,)]


def test_a_declared_run_is_not_reopened(world: Any) -> None:
    """Its owner said where it ends; what a background thread does later is late, no more."""
    run = Conversation()
    run.end()
    ended = run.clock
    run.clock += 5 * SECOND
    run.call("late", [{"type": "text", "text": "x"}])
    world.write(record(run.spans))
    assert world.run(run.run_id)["ended_at"] == ended
    world.write(record([run.marker(heartbeat_at=NOW + 900 * SECOND)], kind="starts"))
    assert world.run(run.run_id)["outcome"] == "completed"


def test_a_heartbeat_after_the_end_reopens_it(world: Any) -> None:
    """And one before it does not; a later end closes it again."""
    run = inferred_run(calls=1)
    end = run.clock
    world.write(record([*run.spans, root(run, end=end)]), beat(run, end - SECOND // 2), beat(run, end))
    assert world.run(run.run_id)["outcome"] == "completed"
    world.write(beat(run, end + SECOND))
    found = world.run(run.run_id)
    assert (found["outcome"], found["inferred"]) == ("running", True)
    world.write(record([root(run, end=end + SECOND)]))
    assert world.run(run.run_id)["outcome"] == "completed"


def test_it_crashes_like_any_other(worlds: Callable[..., Any]) -> None:
    """Killed between two calls, after an end was stated that a call then outdated."""
    now = NOW + 10 * SECOND
    world = worlds(clock=lambda: now, crash_after_seconds=30)
    run = inferred_run(calls=1)
    world.write(record([*run.spans, root(run, end=run.clock)]))
    run.clock += 1
    world.write(record([run.marker("call2", operation="chat")], kind="starts"))
    now += 60 * SECOND
    assert world.ingest.mark_crashed(collector_up_since_ns=NOW) == 1
    assert world.run(run.run_id)["outcome"] == "crashed"


def test_spans_of_others_do_not_keep_it_open(world: Any) -> None:
    """The host's own spans may share its trace and end when they like."""
    run = Conversation()
    run.run_id = id_of(run.name, 16).hex()
    run.call("q", [{"type": "text", "text": "a"}])
    host = span("host", trace=run.name, start=NOW - SECOND, end=run.clock + 60 * SECOND)
    world.write(record([host], scope="my-app"), record([*run.spans, root(run, end=run.clock)]))
    assert world.run(run.run_id)["outcome"] == "completed"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_gives_the_same_run(worlds: Callable[..., Any], data: st.DataObject) -> None:
    """Calls, ends, starts and signs of life in any order, repeated and split."""
    world = worlds()
    run = inferred_run(calls=3)
    starts = [record([_open(item)], kind="starts") for item in run.spans]
    ends = [record([root(run, end=item.end_time_unix_nano)]) for item in run.spans]
    beats = [beat(run, item.end_time_unix_nano - 7) for item in run.spans]
    records = [*(record([item]) for item in run.spans), *starts, *ends, *beats]
    for table in ("spans_data", "run_state_data", "messages_data"):
        world.store.command(f"TRUNCATE TABLE {world.store.database}.{table}")
    world.ingest.forget_content()
    chosen = data.draw(st.permutations([*records, *data.draw(st.lists(st.sampled_from(records), max_size=3))]))
    size = data.draw(st.integers(1, 4))
    for begin in range(0, len(chosen), size):
        world.write(*chosen[begin : begin + size])
    found = world.run(run.run_id)
    assert (found["outcome"], found["ended_at"], found["llm_calls"], found["turns"], found["final_answer"]) == (
        "completed",
        run.clock - 1_000,
        3,
        3,
        "answer 2",
    )


def _open(finished: Span) -> Span:
    """The start marker of a span."""
    made = Span()
    made.CopyFrom(finished)
    made.end_time_unix_nano = 0
    kept = [item for item in made.attributes if item.key in (at.OPERATION_NAME, at.RUN_ID, at.RUN_INFERRED)]
    del made.attributes[:]
    made.attributes.extend(kept)
    return made


def test_inferred_tool_calls(world: Any) -> None:
    """Marked where they were read from the history, also when the run was declared; others are not."""
    run = Conversation()
    run.tool("look", "t1", {"a": 1}, "found", **{at.TOOL_INFERRED: True, **INFERRED})
    run.tool("write", "t2", {"a": 2}, "done", **INFERRED)
    world.write(record(run.spans))
    assert world.rows("SELECT tool, inferred FROM db.tool_calls ORDER BY tool") == [("look", True), ("write", False)]


@pytest.mark.parametrize(
    ("operation", "kind"), [("count_tokens", "count"), ("create_batch", "batch"), ("step", "step"), ("limit", "limit")]
)
def test_what_is_no_llm_call(world: Any, operation: str, kind: str) -> None:
    """Kept, found in `spans`, counted nowhere: no call, no turn, no unknown cost, no tokens."""
    run = Conversation()
    run.call("q", [{"type": "text", "text": "a"}])
    body = json.dumps({"model": run.model, "messages": [{"role": "user", "content": "what is counted"}]}).encode()
    other = run.other(
        "other",
        {
            at.OPERATION_NAME: operation,
            at.TURN: 7,
            at.REQUEST_MODEL: run.model,
            at.USAGE_INPUT_TOKENS: 1_000,
            at.STEP_NAME: "fetch" if kind == "step" else None,
            at.BATCH_ID: "batch_1" if kind == "batch" else None,
            at.REQUEST_BODY: None if kind == "step" else body,
        },
    )
    run.end()
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["llm_calls"], found["turns"], found["input_tokens"], found["cost_unknown_calls"]) == (1, 1, 101, 0)
    assert found["outcome"] == "completed"
    (row,) = world.dicts(
        "SELECT kind, operation, attributes FROM db.spans WHERE span_id = {id:String}", id=other.span_id.hex()
    )
    assert (row["kind"], row["operation"]) == (kind, operation)
    assert world.rows("SELECT count() FROM db.calls") == [(1,)]
    assert world.rows("SELECT count() FROM db.turns") == [(1,)]
    if kind != "step":
        assert world.rows("SELECT count() FROM db.messages WHERE body = 'what is counted'") == [(1,)]
    attributes = dict(row["attributes"])
    assert attributes.get(at.STEP_NAME, "fetch") == "fetch"
    assert attributes.get(at.BATCH_ID, "batch_1") == "batch_1"


@pytest.mark.parametrize("stated", [True, False])
def test_a_run_that_a_limit_ended(world: Any, stated: bool) -> None:
    """By its root, or where that says nothing by the answer that the limit gave."""
    run = Conversation()
    run.call("q", [{"type": "text", "text": "a"}])
    run.other("limited", {at.OPERATION_NAME: "limit", at.RUN_LIMIT_HIT: "max_turns", at.TURN: 2})
    more = {at.RUN_OUTCOME: "limit", at.RUN_LIMIT_HIT: "max_turns"} if stated else {at.RUN_OUTCOME: None}
    run.end(**more)
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["outcome"], found["limit_hit"], found["llm_calls"], found["turns"]) == ("limit", "max_turns", 1, 1)
    assert (found["cost_unknown_calls"], found["errors"]) == (0, 0)


def test_service_tier(world: Any) -> None:
    """From the usage or the attribute; a batch costs half."""
    run = Conversation()
    usage = {"input_tokens": 1_000, "output_tokens": 100}
    run.call("q", [{"type": "text", "text": "a"}], usage=usage)
    run.call("q", [{"type": "text", "text": "a"}], usage={**usage, "service_tier": "batch"})
    run.call("q", [{"type": "text", "text": "a"}], usage=usage)
    put(run.spans[-1], {at.SERVICE_TIER: "batch"})
    world.write(record(run.spans))
    full = 1_000 * Decimal("0.000003") + 100 * Decimal("0.000015")
    assert world.rows("SELECT service_tier, cost_usd FROM db.calls ORDER BY started_at") == [
        (None, full),
        ("batch", full / 2),
        ("batch", full / 2),
    ]


def test_results_of_a_batch_that_two_processes_fetched(world: Any) -> None:
    """The same span of the same trace: one call, whoever comes first."""
    for number in itertools.count(1):
        made = span("result", trace="batch", start=NOW, end=NOW + 5 * SECOND)
        put(
            made,
            {
                at.OPERATION_NAME: "chat",
                at.RUN_ID: id_of("batch", 16).hex(),
                at.RESPONSE_ID: "msg_1",
                at.BATCH_ID: "batch_1",
                at.BATCH_CUSTOM_ID: "mine",
                at.RESPONSE_MODEL: "claude-sonnet-4-6",
                at.USAGE_INPUT_TOKENS: 10,
                at.USAGE_OUTPUT_TOKENS: 5,
                at.SERVICE_TIER: "batch",
            },
        )
        world.write(record([made], resource={at.PROCESS_ID: f"process-{number}", at.SERVICE_NAME: "shop"}))
        if number == 3:
            break
    assert world.rows("SELECT llm_calls, input_tokens, cost_usd FROM db.runs") == [(1, 10, Decimal("0.0000525"))]
    assert world.rows("SELECT count() FROM db.calls") == [(1,)]


def test_attempts_and_routes_are_events(world: Any) -> None:
    """Of the call and of the run, in their order."""
    run = Conversation()
    call = run.call("q", [{"type": "text", "text": "a"}])
    attempt = call.events.add(name=at.HTTP_ATTEMPT_EVENT, time_unix_nano=NOW)
    put(attempt, {at.HTTP_STATUS_CODE: 529, at.HTTP_RESEND_COUNT: 0, at.HTTP_ATTEMPT_DURATION: 0.5})
    ended = run.end()
    route = ended.events.add(name=at.ROUTE_EVENT, time_unix_nano=NOW + 1)
    put(route, {at.ROUTE_NAME: "team", at.ROUTE_CHOSEN: "billing", at.ROUTE_ALTERNATIVES: '["billing","tech"]'})
    world.write(record(run.spans))
    found = world.dicts("SELECT name, run_id, span_id, attributes FROM db.span_events ORDER BY at")
    assert [(item["name"], item["run_id"]) for item in found] == [
        (at.HTTP_ATTEMPT_EVENT, run.run_id),
        (at.ROUTE_EVENT, run.run_id),
    ]
    assert dict(found[0]["attributes"])[at.HTTP_STATUS_CODE] == "529"
    assert dict(found[1]["attributes"])[at.ROUTE_ALTERNATIVES] == '["billing","tech"]'

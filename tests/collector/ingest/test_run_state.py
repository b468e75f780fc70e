"""Runs as the view shows them, from whatever spans have arrived, in whatever order."""

import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from support.telemetry import NOW, SECOND, Conversation, put, record, span

from loopscope_schemas import attributes as at

GENAI = "opentelemetry.instrumentation.genai.anthropic"


def support_run(name: str = "run", **more: Any) -> Conversation:
    """Two turns and a tool call, finished."""
    run = Conversation(name=name, **more)
    run.call(
        "where is W-1?", [{"type": "tool_use", "id": "t", "name": "look", "input": {"id": "W-1"}}], stop="tool_use"
    )
    run.tool("look", "t", {"id": "W-1"}, "lost")
    run.call(
        [{"type": "tool_result", "tool_use_id": "t", "content": "lost"}],
        [{"type": "text", "text": "It is lost."}],
        usage={"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 7},
    )
    run.end(
        asked="where is W-1?", answered="It is lost.", **{at.RUN_CONFIG: '{"k":1}', at.RUN_LIMITS: '{"max_turns":9}'}
    )
    return run


def test_a_finished_run(world: Any) -> None:
    """Every column that the contract names."""
    run = support_run()
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["outcome"], found["agent"], found["agent_version"]) == ("completed", "support", "1.2")
    assert (found["input"], found["final_answer"]) == ("where is W-1?", "It is lost.")
    assert (found["turns"], found["llm_calls"], found["tool_calls"], found["errors"], found["spans"]) == (2, 2, 1, 0, 4)
    assert (found["input_tokens"], found["output_tokens"]) == (101 + 107, 11 + 5)
    assert (found["cache_read_tokens"], found["cache_write_tokens"]) == (90, 7)
    calls = world.rows("SELECT cost_usd FROM db.calls")
    assert found["cost_usd"] == sum((row[0] for row in calls), Decimal(0)) > 0
    assert (found["cost_unknown_calls"], found["models"]) == (0, ["claude-sonnet-4-6"])
    assert (found["max_context_tokens"], found["context_window"]) == (107, 1_000_000)
    assert (found["limits"], found["limit_hit"], found["config"]) == ('{"max_turns":9}', None, '{"k":1}')
    assert (found["started_at"], found["ended_at"]) == (NOW - 1_000, run.clock)
    assert found["prompt_version"] == world.rows("SELECT any(hash) FROM db.prompts WHERE kind = 'system'")[0][0][:12]
    assert (found["trace_id"], found["parent_run_id"]) == (run.spans[0].trace_id.hex(), None)


def test_a_count_of_tokens_changes_no_total(world: Any) -> None:
    """It is a span of the run, and no LLM call of it."""
    run = support_run()
    world.write(record(run.spans))
    before = world.run(run.run_id)
    begun = run.spans[0].start_time_unix_nano
    counted = span("count_tokens", trace=run.spans[0].trace_id, start=begun + 1_000, end=begun + 2_000)
    request = b'{"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "long"}]}'
    put(
        counted,
        {
            at.OPERATION_NAME: "count_tokens",
            at.RUN_ID: run.run_id,
            at.REQUEST_MODEL: "claude-sonnet-4-6",
            at.USAGE_INPUT_TOKENS: 1_000_000,
            at.REQUEST_BODY: request,
            at.RESPONSE_BODY: b'{"input_tokens": 1000000}',
        },
    )
    world.write(record([counted]))
    found = world.run(run.run_id)
    assert found["spans"] == before["spans"] + 1
    differing = {name for name in before if found[name] != before[name]}
    assert differing <= {"spans", "last_seen_at"}, differing
    assert world.rows("SELECT kind, input_tokens FROM db.spans WHERE operation = 'count_tokens'") == [
        ("count", 1_000_000)
    ]


@pytest.mark.parametrize("operation", ["count_tokens", "create_batch"])
def test_what_stands_beside_runs_is_none(world: Any, operation: str) -> None:
    """Outside of any run it is found in `spans`, and no run is made of it; what comes later may still make it one."""
    run = support_run()
    begun = run.spans[0].start_time_unix_nano
    alone = span(operation, trace=run.spans[0].trace_id, start=begun - 2_000, end=begun - 1_000)
    put(alone, {at.OPERATION_NAME: operation, at.RUN_ID: run.run_id, at.REQUEST_MODEL: "claude-sonnet-4-6"})
    world.write(record([alone]))
    assert world.rows("SELECT count() FROM db.runs") == [(0,)]
    assert world.rows("SELECT count() FROM db.spans") == [(1,)]
    world.write(record(run.spans))
    assert world.run(run.run_id)["spans"] == len(run.spans) + 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_any_order_of_arrival(world: Any, order: tuple[int, ...]) -> None:
    """Span by span, each its own segment, and each twice: the same run."""
    run = support_run(start=NOW // (3_600 * SECOND) * 3_600 * SECOND + 500)  # the run begins in the hour before
    world.write(record([run.spans[index] for index in range(4)]))
    expected = world.run(run.run_id)
    for table in ("spans_data", "messages_data", "run_state_data"):
        world.store.command(f"TRUNCATE TABLE {world.store.database}.{table}")
    for index in order:
        world.write(record([run.spans[index]]))
        world.write(record([run.spans[index]]))
    assert world.run(run.run_id) == expected
    assert world.rows("SELECT count() FROM db.runs") == [(1,)]


def test_a_run_that_has_only_begun(world: Any) -> None:
    """Markers alone: running, with what is known."""
    run = Conversation()
    world.write(record([run.marker()], kind="starts"))
    found = world.run(run.run_id)
    assert (found["outcome"], found["ended_at"], found["duration_ms"], found["agent"]) == (
        "running",
        None,
        None,
        "support",
    )
    assert (found["llm_calls"], found["cost_usd"], found["input_tokens"], found["cost_unknown_calls"]) == (
        0,
        None,
        None,
        0,
    )
    world.write(record([run.marker("call1", operation="chat")], kind="starts"))
    assert world.run(run.run_id)["llm_calls"] == 1
    run.call("x", [{"type": "text", "text": "y"}])
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["llm_calls"], found["spans"], found["outcome"], found["final_answer"]) == (1, 2, "running", None)
    assert found["input"] == "x"
    run.end()
    world.write(record(run.spans[-1:]))
    assert world.run(run.run_id)["outcome"] == "completed"
    world.write(record([run.marker(heartbeat_at=NOW + 3_600 * SECOND)], kind="starts"))
    assert world.run(run.run_id)["outcome"] == "completed"


@pytest.mark.parametrize("outcome", ["completed", "partial", "limit", "failed", "escalated"])
def test_stated_outcomes(world: Any, outcome: str) -> None:
    """As its owner said."""
    run = Conversation()
    run.end(**{at.RUN_OUTCOME: outcome})
    world.write(record(run.spans))
    assert world.run(run.run_id)["outcome"] == outcome


def test_a_failed_run(world: Any) -> None:
    """Without a stated outcome the status tells, and the error with it."""
    run = Conversation()
    run.end(status=2, **{at.RUN_OUTCOME: "nonsense", at.ERROR_TYPE: "shop.OutOfStock", at.ERROR_CLASS: "deterministic"})
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["outcome"], found["error_type"], found["error_class"]) == (
        "failed",
        "shop.OutOfStock",
        "deterministic",
    )


def test_a_call_outside_of_any_run(world: Any) -> None:
    """A run of one turn: ended with its call; input and answer are its texts."""
    run = Conversation()
    run.call("What is 2 + 2?", [{"type": "text", "text": "4"}, {"type": "text", "text": "Four."}])
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["outcome"], found["input"], found["final_answer"]) == ("completed", "What is 2 + 2?", "4\nFour.")
    assert found["ended_at"] is not None


def test_a_foreign_trace(world: Any) -> None:
    """Another instrumentation: one trace is one run; its first agent span is the run's."""
    calls = [
        span("chat", trace="foreign", parent="agent", start=NOW + number, status=0, gen_ai__operation__name="chat")
        for number in range(2)
    ]
    for number, made in enumerate(calls):
        made.span_id = bytes(7) + bytes([number + 1])
        put(
            made,
            {
                at.PROVIDER_NAME: "anthropic",
                at.REQUEST_MODEL: "claude-sonnet-4-6",
                at.USAGE_INPUT_TOKENS: 10,
                at.USAGE_OUTPUT_TOKENS: 1,
                at.INPUT_MESSAGES: '[{"role":"user","parts":[{"type":"text","content":"Ask"}]}]',
                at.OUTPUT_MESSAGES: f'[{{"role":"assistant","parts":[{{"type":"text","content":"Tell {number}"}}]}}]',
            },
        )
    world.write(record(calls, scope=GENAI))
    run_id = calls[0].trace_id.hex()
    found = world.run(run_id)
    assert (found["outcome"], found["input"], found["final_answer"]) == ("completed", "Ask", "Tell 1")
    assert (found["turns"], found["llm_calls"], found["input_tokens"], found["agent"]) == (2, 2, 20, "shop")
    agent = span("agent", trace="foreign", start=NOW - 7_200 * SECOND, end=NOW + 60 * SECOND, status=2)
    put(agent, {at.OPERATION_NAME: "invoke_agent", at.AGENT_NAME: "planner", at.ERROR_TYPE: "Boom"})
    world.write(record([agent], scope=GENAI))
    found = world.run(run_id)
    assert (found["outcome"], found["agent"], found["error_type"], found["spans"]) == ("failed", "planner", "Boom", 3)
    assert world.rows("SELECT count() FROM db.runs") == [(1,)]


def test_sub_agents_are_runs_of_their_own(world: Any) -> None:
    """Totals are those of a run's own spans; the parent is named."""
    parent, child = support_run(), support_run("child")
    for made in child.spans:
        put(made, {at.RUN_PARENT_ID: parent.run_id})
    world.write(record([*parent.spans, *child.spans]))
    assert world.run(parent.run_id)["llm_calls"] == 2
    assert world.run(child.run_id)["parent_run_id"] == parent.run_id


def test_unknown_is_not_zero(world: Any) -> None:
    """Unpriced models, calls without usage, calls that failed before they cost anything."""
    run = Conversation(model="nobody-knows")
    run.call("x", [])
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["cost_usd"], found["cost_unknown_calls"], found["input_tokens"]) == (None, 1, 101)
    failed = span(
        "failed", trace="run", start=NOW, status=2, gen_ai__operation__name="chat", error__type="rate_limit_error"
    )
    put(failed, {at.RUN_ID: run.run_id, at.TURN: 2})
    world.write(record([failed]))
    found = world.run(run.run_id)
    assert (found["cost_unknown_calls"], found["errors"], found["llm_calls"], found["turns"]) == (1, 1, 2, 2)
    run.model = "claude-sonnet-4-6"
    run.call("y", [])
    world.write(record(run.spans[-1:]))
    found = world.run(run.run_id)
    assert found["cost_usd"] is not None
    assert found["cost_unknown_calls"] == 1


def test_the_agents_own_prompt_version(world: Any) -> None:
    """Where it is given it wins over the hash."""
    run = support_run()
    put(run.spans[0], {at.PROMPT_VERSION: "2026-11", at.PROMPT_NAME: "support"})
    world.write(record(run.spans))
    assert world.run(run.run_id)["prompt_version"] == "2026-11"
    assert world.rows("SELECT name, version FROM db.prompts WHERE kind = 'system'") == [("support", "2026-11")]


class Watch:
    """A clock that tests move, and an ingest that reads it."""

    def __init__(self, worlds: Callable[..., Any]) -> None:
        self.now = NOW
        self.world = worlds(clock=lambda: self.now, crash_after_seconds=30)

    def mark(self, *, up_since: int = 0) -> int:
        """Look for crashed runs."""
        return self.world.ingest.mark_crashed(collector_up_since_ns=up_since)


@pytest.fixture
def watch(worlds: Callable[..., Any]) -> Watch:
    """See Watch."""
    return Watch(worlds)


def test_a_silent_run_is_crashed(watch: Watch) -> None:
    """After 30 s without a sign, not before; what it did stays visible."""
    run = Conversation()
    run.call("x", [])
    watch.world.write(
        record([run.marker(), run.marker("tool", operation="execute_tool")], kind="starts", received_at=NOW)
    )
    watch.world.write(record(run.spans, received_at=NOW))
    watch.now = NOW + 29 * SECOND
    assert watch.mark() == 0
    watch.now = NOW + 31 * SECOND
    assert watch.mark() == 1
    found = watch.world.run(run.run_id)
    assert (found["outcome"], found["ended_at"], found["llm_calls"], found["tool_calls"]) == ("crashed", None, 1, 1)
    assert watch.mark() == 0
    assert watch.world.rows("SELECT count() FROM db.runs") == [(1,)]


def test_heartbeats_keep_a_run_alive(watch: Watch) -> None:
    """A tool call of twenty minutes is not a crash."""
    run = Conversation()
    for seconds in range(0, 1_200, 25):
        watch.now = NOW + seconds * SECOND
        marker = run.marker(heartbeat_at=watch.now if seconds else None)
        watch.world.write(record([marker], kind="starts", received_at=watch.now))
        assert watch.mark() == 0
    assert watch.world.run(run.run_id)["outcome"] == "running"


def test_a_later_sign_corrects_a_crash(watch: Watch) -> None:
    """A heartbeat makes it run again, its end ends it."""
    run = Conversation()
    watch.world.write(record([run.marker()], kind="starts", received_at=NOW))
    watch.now = NOW + 60 * SECOND
    assert watch.mark() == 1
    assert watch.world.run(run.run_id)["outcome"] == "crashed"
    watch.world.write(record([run.marker(heartbeat_at=watch.now)], kind="starts", received_at=watch.now))
    assert watch.world.run(run.run_id)["outcome"] == "running"
    watch.now += 60 * SECOND
    assert watch.mark() == 1
    run.end()
    watch.world.write(record(run.spans, received_at=watch.now))
    assert watch.world.run(run.run_id)["outcome"] == "completed"
    watch.now += 60 * SECOND
    assert watch.mark() == 0


def test_a_collector_that_was_down_accuses_nobody(watch: Watch, worlds: Callable[..., Any]) -> None:
    """Silence counts only as far as there was somebody to hear; then the runs of an earlier start are found too."""
    run = Conversation()
    watch.world.write(record([run.marker()], kind="starts", received_at=NOW))
    later = Watch(worlds)
    later.now = NOW + 3_600 * SECOND
    assert later.mark(up_since=later.now - 29 * SECOND) == 0
    assert later.mark(up_since=later.now - 31 * SECOND) == 1
    assert later.world.run(run.run_id)["outcome"] == "crashed"


def test_a_run_that_another_collector_heard_of(watch: Watch, worlds: Callable[..., Any]) -> None:
    """The store is asked again before anybody is accused."""
    run = Conversation()
    watch.world.write(record([run.marker()], kind="starts", received_at=NOW))
    assert watch.mark() == 0
    watch.now = NOW + 40 * SECOND
    beat = run.marker(heartbeat_at=NOW + 35 * SECOND)
    worlds().write(record([beat], kind="starts", received_at=NOW + 35 * SECOND))
    assert watch.mark() == 0
    assert watch.world.run(run.run_id)["outcome"] == "running"


def test_rebuilding(world: Any) -> None:
    """Every state from the spans alone; states without spans go."""
    runs = [support_run(f"run-{number}", start=NOW + number * 3_600 * SECOND) for number in range(5)]
    for run in runs:
        world.write(record(run.spans, received_at=NOW + 6 * 3_600 * SECOND))
    before = {run.run_id: world.run(run.run_id) for run in runs}
    world.store.command(f"TRUNCATE TABLE {world.store.database}.run_state_data")
    assert world.ingest.rebuild_run_states() == 5
    assert {run.run_id: world.run(run.run_id) for run in runs} == before
    world.store.command(
        f"ALTER TABLE {world.store.database}.spans_data DELETE WHERE run_id = '{runs[0].run_id}' "
        "SETTINGS mutations_sync = 2"
    )
    assert world.ingest.rebuild_run_states() == 4
    assert world.rows("SELECT count() FROM db.runs") == [(4,)]

"""Limits in drop-in mode: every kind of limit ends a bare `while` loop in every call style, and says so everywhere."""

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from support.sdk_features import needs

import loopscope
from loopscope.stub import Ask, StubServer, ToolCall, Turn

from .agent_loops import ASYNC, MODEL, STYLES, SYNC, play, request
from .conftest import Configure, delivered
from .provider_server import Recorded, Server

TURNS = 3


def endless(ask: Ask) -> Turn:
    """A model that always asks for one more look."""
    return Turn(
        text="Let me look.",
        tool_calls=(ToolCall("lookup", {"key": f"k{ask.step}"}),),
        usage={"input_tokens": 1000, "output_tokens": 100},
    )


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        running.add_script("endless", endless)
        yield running


KINDS: dict[str, dict[str, Any]] = {
    "max_turns": {"max_turns": TURNS},
    # 1,100 tokens a turn: after the third, 3,300 were used.
    "max_tokens": {"max_tokens": 3_000},
    # $3 and $15 a million: 0.0045 a turn.
    "max_cost_usd": {"max_cost_usd": 0.013},
    "max_seconds": {"max_seconds": 0.25},
}


def slow_work(key: str) -> str:
    time.sleep(0.1)
    return key.upper()


def found_run(server: Server) -> Recorded:
    """The last said state of the one inferred run."""
    runs = [span for span in server.spans() if span.get("loopscope.run.inferred") and span.operation == "invoke_agent"]
    assert len({run["loopscope.run.id"] for run in runs}) == 1
    return max(runs, key=lambda run: run.span.end_time_unix_nano)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_a_limit_ends_a_bare_loop(
    style: str, kind: str, stub: StubServer, server: Server, configure: Configure
) -> None:
    configure(limits=KINDS[kind])
    answers = play(
        style,
        stub.url,
        "go",
        slow_work if kind == "max_seconds" else str.upper,
        default_headers={"x-stub-script": "endless/1"},
    )
    last = answers[-1]
    assert last.stop_reason == "end_turn"
    assert kind in last.content[0].text
    assert "partial" in last.content[0].text
    sent = stub.log.entries()
    assert len(sent) == len(answers) - 1, "the answer of the limit is not asked for"
    if kind != "max_seconds":
        assert len(sent) == TURNS
    delivered()
    assert len(server.calls()) == len(sent)
    (stopped,) = (span for span in server.spans() if span.operation == "limit")
    run = found_run(server)
    assert stopped["loopscope.run.id"] == run["loopscope.run.id"]
    assert run["loopscope.run.outcome"] == "limit"
    assert json.loads(run["loopscope.run.final_answer"]) == last.content[0].text
    assert run["loopscope.run.limit_hit"] == kind == stopped["loopscope.run.limit_hit"]
    assert json.loads(run["loopscope.run.limits"]) == KINDS[kind] | {"on_hit": "partial"}
    assert {call["loopscope.run.id"] for call in server.calls()} == {run["loopscope.run.id"]}


@pytest.mark.parametrize("style", STYLES)
def test_a_limit_that_raises(style: str, stub: StubServer, server: Server, configure: Configure) -> None:
    configure(limits=loopscope.Limits(max_turns=2, on_hit="raise"))
    with pytest.raises(loopscope.LimitExceeded) as raised:
        play(style, stub.url, "go", default_headers={"x-stub-script": "endless/1"})
    assert isinstance(raised.value, RuntimeError)
    assert (raised.value.limit, raised.value.maximum, raised.value.used) == ("max_turns", 2, 2)
    assert len(stub.log.entries()) == 2
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (str(copy), copy.limit, copy.run_id) == (str(raised.value), "max_turns", raised.value.run_id)
    delivered()
    assert found_run(server)["loopscope.run.outcome"] == "limit"


@pytest.mark.parametrize("on_hit", ["partial", "raise"])
def test_a_declared_run_has_its_own_limits_and_stats(
    on_hit: Any, stub: StubServer, server: Server, configure: Configure
) -> None:
    configure(limits={"max_turns": 50})

    @loopscope.agent(name="looker", limits=loopscope.Limits(max_turns=TURNS, on_hit=on_hit))
    def look() -> Any:
        run = loopscope.current_run()
        assert run is not None
        with anthropic.Anthropic(
            api_key="k", base_url=stub.url, default_headers={"x-stub-script": "endless/1"}
        ) as client:
            try:
                SYNC["create"](client, "go")
            finally:
                stats.append(run.stats)

    stats: list[loopscope.RunStats] = []
    if on_hit == "raise":
        with pytest.raises(loopscope.LimitExceeded):
            look()
    else:
        look()
    assert stats[0].turns == TURNS
    assert stats[0].total_tokens == TURNS * 1100
    assert stats[0].total_cost_usd == pytest.approx(TURNS * 0.0045)
    assert stats[0].completed is False
    delivered()
    (run,) = (span for span in server.spans() if span.operation == "invoke_agent")
    assert run["loopscope.run.outcome"] == "limit"
    assert run["loopscope.run.limit_hit"] == "max_turns"
    assert run.failed is (on_hit == "raise")


def test_stats_of_a_run_that_completes(stub: StubServer, configure: Configure) -> None:
    stub.add_script("two", [Turn(tool_calls=(ToolCall("lookup", {"key": "a"}),)), Turn(text="done")])
    configure()
    with (
        loopscope.run("r") as run,
        anthropic.Anthropic(api_key="k", base_url=stub.url, default_headers={"x-stub-script": "two/1"}) as client,
    ):
        assert run.stats == loopscope.RunStats(turns=0, total_tokens=0, total_cost_usd=0.0, completed=True)
        SYNC["create"](client, "go")
    used = [entry.usage for entry in stub.log.entries()]
    assert run.stats.turns == 2
    assert run.stats.total_tokens == sum(u["input_tokens"] + u["output_tokens"] for u in used if u)
    assert run.stats.completed is True
    assert run.limit_hit is None


def test_a_sub_agents_spending_counts_for_the_run_around_it(
    stub: StubServer, server: Server, configure: Configure
) -> None:
    configure()
    with (
        anthropic.Anthropic(api_key="k", base_url=stub.url, default_headers={"x-stub-script": "endless/1"}) as client,
        loopscope.run("outer", limits=loopscope.Limits(max_tokens=3_000)) as outer,
    ):
        with loopscope.run("inner") as inner:
            SYNC["create"](client, "go")
        assert inner.turn == TURNS
        assert inner.limit_hit == "max_tokens"
        assert outer.stats.total_tokens == 0, "its own"
        answer = client.messages.create(**request([{"role": "user", "content": "and now?"}]))
        assert "max_tokens" in answer.content[0].to_dict()["text"]
        assert outer.limit_hit == "max_tokens"
    delivered()
    outcomes = {
        span["gen_ai.agent.name"]: span["loopscope.run.outcome"]
        for span in server.spans()
        if span.operation == "invoke_agent"
    }
    assert outcomes == {"outer": "limit", "inner": "limit"}


def test_concurrent_bare_loops_are_limited_one_by_one(stub: StubServer, server: Server, configure: Configure) -> None:
    configure(limits={"max_turns": TURNS})
    loops = 12

    async def main() -> list[list[Any]]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=stub.url, max_retries=0) as client:
            each = [
                ASYNC["async create"](
                    client.with_options(default_headers={"x-stub-script": f"endless/{i}"}), "the same"
                )
                for i in range(loops)
            ]
            return list(await asyncio.gather(*each))

    answers = asyncio.run(main())
    assert [len(found) for found in answers] == [TURNS + 1] * loops
    delivered()
    calls = server.calls()
    by_run: dict[str, list[Recorded]] = {}
    for call in calls:
        by_run.setdefault(call["loopscope.run.id"], []).append(call)
    assert sorted(len(found) for found in by_run.values()) == [TURNS] * loops
    for found in by_run.values():
        assert sorted(call["loopscope.turn"] for call in found) == [1, 2, 3]


@needs("messages.parse")
def test_an_answer_that_must_be_json_has_no_text(stub: StubServer, configure: Configure) -> None:
    import pydantic

    class Found(pydantic.BaseModel):
        value: int

    configure(limits={"max_turns": 1})
    with anthropic.Anthropic(api_key="k", base_url=stub.url) as client, loopscope.run("r"):
        client.messages.create(model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "x"}])
        parsed = client.messages.parse(
            model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "x"}], output_format=Found
        )
        assert parsed.parsed_output is None
        assert parsed.stop_reason == "end_turn"
        with client.messages.stream(
            model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "x"}], output_format=Found
        ) as stream:
            assert stream.get_final_message().stop_reason == "end_turn"


@needs("beta_tool", "beta.messages.tool_runner")
def test_the_tool_runner_ends(stub: StubServer, configure: Configure) -> None:
    configure(limits={"max_turns": TURNS})

    @anthropic.beta_tool
    def lookup(key: str) -> str:
        """Looks something up.

        Args:
            key: What to look up.
        """
        return key.upper()

    with anthropic.Anthropic(api_key="k", base_url=stub.url, default_headers={"x-stub-script": "endless/1"}) as client:
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=100, tools=[lookup], messages=[{"role": "user", "content": "go"}]
        )
        answers = list(runner)
    assert len(answers) == TURNS + 1
    assert answers[-1].stop_reason == "end_turn"
    assert len(stub.log.entries()) == TURNS


def test_an_unpriced_model_under_a_cost_cap_warns(
    stub: StubServer, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(limits={"max_cost_usd": 1.0})
    with anthropic.Anthropic(api_key="k", base_url=stub.url) as client:
        client.messages.create(model="nobodys-model", max_tokens=10, messages=[{"role": "user", "content": "x"}])
    delivered()
    assert "nobodys-model" in caplog.text
    assert "max_cost_usd" in caplog.text


@pytest.mark.parametrize(
    "values",
    [
        {"max_turns": 0},
        {"max_turns": True},
        {"max_turns": 1.5},
        {"max_tokens": -1},
        {"max_cost_usd": 0},
        {"max_cost_usd": float("nan")},
        {"max_seconds": float("inf")},
        {"max_seconds": "10"},
        {"on_hit": "explode"},
    ],
)
def test_limits_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(loopscope.ConfigurationError, match=next(iter(values))):
        loopscope.Limits(**values)


def test_recommended() -> None:
    assert loopscope.Limits.recommended() == loopscope.Limits(max_turns=15, max_tokens=100_000, max_cost_usd=5.0)
    assert loopscope.Limits.recommended(expected_turns=30).max_turns == 45
    assert loopscope.Limits.recommended(expected_turns=3).max_turns == 5
    with pytest.raises(loopscope.ConfigurationError, match="expected_turns=0"):
        loopscope.Limits.recommended(expected_turns=0)


def test_limits_of_the_environment() -> None:
    from loopscope._internal.config import resolve

    found = resolve({}, {"LOOPSCOPE_MAX_TURNS": "7", "LOOPSCOPE_MAX_COST_USD": "0.5", "LOOPSCOPE_ON_LIMIT": "raise"})
    assert found.limits == loopscope.Limits(max_turns=7, max_cost_usd=0.5, on_hit="raise")
    assert resolve({}, {"LOOPSCOPE_ON_LIMIT": "raise"}).limits is None
    wrong = resolve({}, {"LOOPSCOPE_MAX_TURNS": "many", "LOOPSCOPE_MAX_TOKENS": "100"})
    assert wrong.limits == loopscope.Limits(max_tokens=100), "a typing error in an environment never stops an agent"
    with pytest.raises(loopscope.ConfigurationError, match="max_loops"):
        resolve({"limits": {"max_loops": 3}}, {})

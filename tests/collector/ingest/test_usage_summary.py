"""Runs whose framework reports usage beyond the calls that it tells of: sums are what was reported, nothing twice."""

from decimal import Decimal
from typing import Any

from support.telemetry import Conversation, put, record, span

from loopscope_schemas import attributes as at

MODEL = "claude-sonnet-4-6"


def told(run: Conversation, text: str) -> None:
    """A call whose output tokens and cost nobody told."""
    made = run.call(text, [{"type": "text", "text": "answer"}], usage={"input_tokens": 100})
    kept = [
        item
        for item in made.attributes
        if item.key not in (at.USAGE_OUTPUT_TOKENS, at.COST_USD, at.COST_SOURCE, at.PRICE_VERSION)
    ]
    del made.attributes[:]
    made.attributes.extend(kept)
    made.attributes.add(key=at.COST_SOURCE).value.string_value = "summary"


def summary(run: Conversation, cost: float | None, *, tokens_in: int, tokens_out: int, name: str = "summary") -> Any:
    """The remainder of one model."""
    attributes: dict[str, Any] = {
        at.OPERATION_NAME: "usage_summary",
        at.RUN_ID: run.run_id,
        at.RESPONSE_MODEL: MODEL,
        at.PROVIDER_NAME: "anthropic",
        at.USAGE_INPUT_TOKENS: tokens_in,
        at.USAGE_OUTPUT_TOKENS: tokens_out,
        at.COST_SOURCE: "unknown" if cost is None else "reported",
    }
    if cost is not None:
        attributes[at.COST_USD] = cost
    made = span(name, trace=run.spans[0].trace_id, start=run.clock, end=run.clock)
    put(made, attributes)
    return made


def test_the_sums_of_a_run_are_what_was_reported(world: Any) -> None:
    """Tokens add up over calls and summary; the cost is the reported one, and no call's cost is unknown."""
    run = Conversation()
    told(run, "one")
    told(run, "two")
    run.end(asked="one", answered="answer")
    run.spans.append(summary(run, 0.0612, tokens_in=30, tokens_out=48))
    world.write(record(run.spans))
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert (found["llm_calls"], found["turns"]) == (2, 2)
    assert (found["input_tokens"], found["output_tokens"]) == (230, 48)
    assert found["cost_usd"] == Decimal("0.0612")
    assert found["cost_unknown_calls"] == 0
    assert world.rows("SELECT cost_usd, cost_source FROM db.calls") == [(None, "summary")] * 2


def test_without_the_summary_the_cost_is_unknown(world: Any) -> None:
    """A run that was killed before its result: unknown is not zero."""
    run = Conversation()
    told(run, "one")
    world.write(record(run.spans))
    found = world.run(run.run_id)
    assert found["cost_usd"] is None
    assert found["cost_unknown_calls"] == 1

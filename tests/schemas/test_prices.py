"""Costs against the price library itself, and the rules that the library does not decide."""

import datetime as dt
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from loopscope_schemas import prices
from loopscope_schemas.prices import PriceOverrideError, TokenUsage, resolve

DAY = dt.date(2026, 11, 1)
MODELS = ["claude-sonnet-4-6", "claude-sonnet-4-5", "claude-haiku-5-5", "claude-opus-5-5", "claude-3-haiku", "claude-2"]


@given(
    model=st.sampled_from(MODELS),
    uncached=st.integers(0, 400_000),
    read=st.integers(0, 400_000),
    write_5m=st.integers(0, 50_000),
    write_1h=st.integers(0, 50_000),
    output=st.integers(0, 100_000),
    searches=st.integers(0, 5),
)
def test_cost_equals_the_price_library(
    model: str, uncached: int, read: int, write_5m: int, write_1h: int, output: int, searches: int
) -> None:
    """Every combination of tokens and tiers costs what genai-prices says, rounded to 12 decimals."""
    total = uncached + read + write_5m + write_1h
    expected = calc_price(
        Usage(
            input_tokens=total,
            cache_read_tokens=read,
            cache_write_tokens=write_5m + write_1h,
            cache_write_1h_tokens=write_1h,
            output_tokens=output,
            web_searches=searches,
        ),
        model_ref=model,
        provider_id="anthropic",
        genai_request_timestamp=dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC),
    ).total_price
    rates = resolve("anthropic", model, DAY)
    assert rates is not None
    usage = TokenUsage(total, output, read, write_5m + write_1h, write_1h, searches)
    assert rates.cost(usage) == expected.quantize(prices.COST_QUANTUM)


def test_unknown_model_has_no_rates() -> None:
    """Unknown is not zero: there is no cost at all."""
    assert resolve("anthropic", "in-house-model-7", DAY) is None
    assert resolve("anthropic", None, DAY) is None


def test_a_price_change_follows_the_day_of_the_call() -> None:
    """claude-sonnet-4-6 had a tier above 200,000 tokens until 2026-03-13."""
    usage = TokenUsage(300_000, 1_000)
    before, after = (resolve("anthropic", "claude-sonnet-4-6", day) for day in (dt.date(2026, 3, 1), DAY))
    assert before is not None
    assert after is not None
    assert before.cost(usage) == Decimal("1.8225")
    assert after.cost(usage) == Decimal("0.915")


def test_a_gateway_that_the_list_does_not_know_is_priced_by_its_model() -> None:
    """The model decides when the provider is nobody's."""
    rates = resolve("my-gateway", "claude-sonnet-4-6", DAY)
    assert rates is not None
    assert rates.cost(TokenUsage(1_000_000, 0)) == Decimal(3)


def test_parts_larger_than_the_whole_have_no_cost() -> None:
    """A usage that contradicts itself is unknown, not negative."""
    rates = resolve("anthropic", "claude-sonnet-4-6", DAY)
    assert rates is not None
    assert rates.cost(TokenUsage(10, 1, cache_read_tokens=11)) is None


def test_overrides_win_and_change_the_version() -> None:
    """The user's own prices, per million tokens, with a version of their own."""
    rates = resolve("anthropic", "claude-sonnet-4-6", DAY, overrides={"claude-sonnet-4-6": {"input": 15, "output": 75}})
    assert rates is not None
    assert rates.cost(TokenUsage(1_000_000, 1_000_000)) == Decimal(90)
    assert rates.version.startswith("override/")


@pytest.mark.parametrize("override", [{"input": "cheap"}, {"input": -1}, {"inptu": 3}, {"output": float("nan")}])
def test_a_wrong_override_names_what_is_wrong(override: dict[str, float | str]) -> None:
    """The message carries the model and the key or the value."""
    with pytest.raises(PriceOverrideError, match="my-model"):
        resolve(None, "my-model", DAY, overrides={"my-model": override})

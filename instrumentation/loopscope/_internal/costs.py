"""The cost of one LLM call, from its normalised usage. Worker thread only: the price list takes half a second to
import.

The same `loopscope_schemas.prices` computes the collector's cost, so the two agree to the last digit. Unknown is not
zero: without a price, or without the count of the answer's tokens, there is no cost.
"""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from loopscope_schemas import attributes as at

from . import forks


def cost_attributes(
    attributes: Mapping[str, Any], start_time: int, overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Cost, its source and the price version for a call with these attributes, begun at `start_time` (Unix ns)."""
    # The price list imports parts of itself as it is asked: a fork amid that would leave the child's copy locked.
    with forks.importing:
        return _cost_attributes(attributes, start_time, overrides)


def _cost_attributes(
    attributes: Mapping[str, Any], start_time: int, overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    from loopscope_schemas import prices

    unknown: dict[str, Any] = {at.COST_SOURCE: "unknown"}
    tokens_in, tokens_out = attributes.get(at.USAGE_INPUT_TOKENS), attributes.get(at.USAGE_OUTPUT_TOKENS)
    if not isinstance(tokens_in, int) or not isinstance(tokens_out, int):
        return unknown
    raw: dict[str, Any] = json.loads(attributes[at.USAGE_RAW])
    day = dt.datetime.fromtimestamp(start_time / 1e9, dt.UTC).date()
    provider = attributes.get(at.PROVIDER_NAME)
    rates = None
    # The answer names the exact model; what was asked for may be an alias that only the owner's overrides know.
    models: list[Any] = [attributes.get(at.RESPONSE_MODEL), attributes.get(at.REQUEST_MODEL)]
    models.sort(key=lambda model: model not in (overrides or ()))
    for model in models:
        rates = rates or prices.resolve(
            provider,
            model,
            day,
            overrides=overrides,
            batch="batch" in (raw.get("service_tier"), attributes.get(at.SERVICE_TIER)),
            fast=raw.get("speed") == "fast",
        )
    if rates is None:
        return unknown
    cost = rates.cost(
        prices.TokenUsage(
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cache_read_tokens=attributes.get(at.USAGE_CACHE_READ_TOKENS, 0),
            cache_write_tokens=attributes.get(at.USAGE_CACHE_WRITE_TOKENS, 0),
            cache_write_1h_tokens=_count(raw.get("cache_creation"), "ephemeral_1h_input_tokens"),
            web_searches=_count(raw.get("server_tool_use"), "web_search_requests"),
        )
    )
    if cost is None:
        return unknown
    return {at.COST_USD: float(cost), at.COST_SOURCE: "computed", at.PRICE_VERSION: rates.version}


def is_priced(provider: str, model: str, overrides: Mapping[str, Any] | None) -> bool:
    """Whether a model has a price today."""
    with forks.importing:
        from loopscope_schemas import prices

        return prices.resolve(provider, model, dt.datetime.now(dt.UTC).date(), overrides=overrides) is not None


def _count(part: object, name: str) -> int:
    value = part.get(name) if isinstance(part, dict) else None  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, int) else 0

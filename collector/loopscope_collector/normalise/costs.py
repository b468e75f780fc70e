"""Usage and cost of an LLM call: what the provider's own usage adds, and the cost recomputed. Pure."""

from decimal import Decimal
from typing import Any, Final

import orjson

from loopscope_collector.normalise.fields import MAX_NAME_CHARS, count, small_count
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas import attributes as at
from loopscope_schemas.prices import TokenUsage

SUMMARY: Final = "summary"
"""Cost source of a call whose cost stands on a `usage_summary` span: pricing it again would count it twice."""


def put_cost(draft: Draft) -> None:
    """Columns of usage and cost. The sender's cost is kept beside ours; differences are counted."""
    columns = draft.columns
    raw = _raw_usage(columns.get("usage_raw"))
    if raw:
        _read_raw(columns, raw)
    sender = columns.get("reported_cost_usd")
    said_by = draft.rest.get(at.PRICE_VERSION)
    cost, version = _cost(draft, raw)
    if columns["kind"] == "usage":
        # What calls that were not told of used: their sum cannot be priced call by call, only as it was reported.
        cost = None
    elif draft.rest.get(at.COST_SOURCE) == SUMMARY and sender is None:
        del draft.rest[at.COST_SOURCE]
        columns["cost_source"] = SUMMARY
        return
    if cost is not None:
        columns["cost_usd"], columns["cost_source"], columns["price_version"] = cost, "computed", version
        if sender is not None and sender != cost:
            draft.batch.counts["cost_differences"] += 1
    elif sender is not None:
        columns["cost_usd"], columns["cost_source"] = sender, "reported"
        columns["price_version"] = said_by if isinstance(said_by, str) else ""
    else:
        columns["cost_source"] = "unknown"
    # What the columns say as well need not stand in the map.
    if said_by == columns.get("price_version"):
        draft.rest.pop(at.PRICE_VERSION, None)
    if draft.rest.get(at.COST_SOURCE) == columns["cost_source"]:
        del draft.rest[at.COST_SOURCE]


def _cost(draft: Draft, raw: dict[str, Any]) -> tuple[Decimal | None, str]:
    columns = draft.columns
    models = (columns.get("model", ""), columns.get("request_model", ""))
    rates = draft.context.rates(
        columns.get("provider", ""),
        models,
        columns["day"],
        batch="batch" in (raw.get("service_tier"), columns.get("service_tier")),
        fast=raw.get("speed") == "fast",
    )
    if rates is None:
        return None, ""
    columns["context_window"] = rates.context_window
    tokens_in, tokens_out = columns.get("input_tokens"), columns.get("output_tokens")
    if tokens_in is None or tokens_out is None:
        return None, ""
    usage = TokenUsage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cache_read_tokens=columns.get("cache_read_tokens") or 0,
        cache_write_tokens=columns.get("cache_write_tokens") or 0,
        cache_write_1h_tokens=columns.get("cache_write_1h_tokens") or 0,
        web_searches=columns.get("web_searches") or 0,
    )
    return rates.cost(usage), rates.version


def _raw_usage(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _read_raw(columns: dict[str, Any], raw: dict[str, Any]) -> None:
    """What the conventions have no name for; and, where the sender gave no totals, Anthropic's."""
    creation = raw.get("cache_creation")
    if isinstance(creation, dict) and "cache_write_1h_tokens" not in columns:
        columns["cache_write_1h_tokens"] = count(creation.get("ephemeral_1h_input_tokens"))
    tier = raw.get("service_tier")
    if isinstance(tier, str) and not columns.get("service_tier"):
        columns["service_tier"] = tier[:MAX_NAME_CHARS]
    server = raw.get("server_tool_use")
    if isinstance(server, dict):
        columns["web_searches"] = small_count(server.get("web_search_requests"))

"""The tokens and dollars that the CLI reports per model, and what of them no message accounts for. Pure.

A message of the CLI carries its input and cache tokens; its output tokens are a placeholder unless partial messages are
on; calls of sub-agents and of the CLI itself (titles, compaction) may show no message at all. The result's
`modelUsage` is the truth, cumulative over a connection. So: reported since the last result, less what the visible calls
carry, is the remainder, and one span per model carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from loopscope_schemas import attributes as at

COST_NOISE_USD = 1e-9
"""The CLI adds floating-point dollars; a smaller difference between a total and its parts is rounding."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one model used. `input` includes the cached tokens, `output` those spent on thinking."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    thinking: int = 0
    web_searches: int = 0

    def plus(self, other: Tokens) -> Tokens:
        return Tokens(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def less(self, other: Tokens) -> Tokens:
        """The difference, nowhere below zero: a remainder that is less than nothing is nothing."""
        return Tokens(**{f.name: max(getattr(self, f.name) - getattr(other, f.name), 0) for f in fields(self)})

    def covers(self, other: Tokens) -> bool:
        return all(getattr(self, f.name) >= getattr(other, f.name) for f in fields(self))


NOTHING = Tokens()


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one model used and cost, as reported."""

    tokens: Tokens
    cost_usd: float | None
    provider: str | None = None
    canonical: str | None = None


def of_call(usage: Mapping[str, Any] | None, *, output_known: bool) -> Tokens:
    """What a message's own usage (Anthropic's names) accounts for."""
    if usage is None:
        return NOTHING
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    creation = usage.get("cache_creation")
    details = usage.get("output_tokens_details")
    return Tokens(
        input=_count(usage, "input_tokens") + read + written,
        output=_count(usage, "output_tokens") if output_known else 0,
        cache_read=read,
        cache_write=written,
        cache_write_1h=_count(creation, "ephemeral_1h_input_tokens"),
        thinking=_count(details, "thinking_tokens") if output_known else 0,
    )


def by_model(reported: object) -> dict[str, ModelUsage]:
    """`modelUsage` of a result."""
    if not isinstance(reported, dict):
        return {}
    return {
        str(model): _of_model(cast("Mapping[str, Any]", usage))
        for model, usage in cast("dict[Any, Any]", reported).items()
        if isinstance(usage, dict)
    }


def _of_model(usage: Mapping[str, Any]) -> ModelUsage:
    read, written = _count(usage, "cacheReadInputTokens"), _count(usage, "cacheCreationInputTokens")
    cost, provider, canonical = usage.get("costUSD"), usage.get("provider"), usage.get("canonicalModel")
    return ModelUsage(
        Tokens(
            input=_count(usage, "inputTokens") + read + written,
            output=_count(usage, "outputTokens"),
            cache_read=read,
            cache_write=written,
            cache_write_1h=_count(usage, "cacheCreationEphemeral1hInputTokens"),
            thinking=_count(usage, "thinkingTokens"),
            web_searches=_count(usage, "webSearchRequests"),
        ),
        number(cost),
        provider if isinstance(provider, str) else None,
        canonical if isinstance(canonical, str) else None,
    )


def since(now: Mapping[str, ModelUsage], before: Mapping[str, ModelUsage]) -> dict[str, ModelUsage]:
    """Two cumulative reports of one connection -> what was used in between. A report that went back began anew."""
    result: dict[str, ModelUsage] = {}
    for model, usage in now.items():
        earlier = before.get(model)
        if earlier is None or not usage.tokens.covers(earlier.tokens):
            result[model] = usage
            continue
        cost = usage.cost_usd
        if cost is not None and earlier.cost_usd is not None:
            cost = max(cost - earlier.cost_usd, 0.0)
        result[model] = ModelUsage(usage.tokens.less(earlier.tokens), cost, usage.provider, usage.canonical)
    return result


def remainders(reported: Mapping[str, ModelUsage], visible: Mapping[str, Tokens]) -> dict[str, ModelUsage]:
    """What was reported less what the visible calls of the same models carry. Costs are kept whole."""
    result = dict(reported)
    for model, tokens in visible.items():
        name = _reported_as(model, reported)
        if name is not None:
            usage = result[name]
            result[name] = ModelUsage(usage.tokens.less(tokens), usage.cost_usd, usage.provider, usage.canonical)
    return {name: usage for name, usage in result.items() if usage.tokens != NOTHING or usage.cost_usd}


def _reported_as(model: str, reported: Mapping[str, ModelUsage]) -> str | None:
    """The name under which the report has a message's model: `claude-x[1m]` and `claude-x` are the same."""
    if model in reported:
        return model
    for name, usage in reported.items():
        if usage.canonical == model or name.partition("[")[0] == model.partition("[")[0]:
            return name
    return next((name for name in reported if name.startswith(model) or model.startswith(name)), None)


def attributes_of(tokens: Tokens) -> dict[str, Any]:
    """The remainder in OpenTelemetry's terms."""
    attributes: dict[str, Any] = {
        at.USAGE_INPUT_TOKENS: tokens.input,
        at.USAGE_OUTPUT_TOKENS: tokens.output,
        at.USAGE_CACHE_READ_TOKENS: tokens.cache_read,
        at.USAGE_CACHE_WRITE_TOKENS: tokens.cache_write,
    }
    if tokens.thinking:
        attributes[at.USAGE_REASONING_TOKENS] = tokens.thinking
    return attributes


def provider_of(reported: str | None) -> str:
    """The CLI's name of who serves the model -> OpenTelemetry's."""
    return {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}.get(reported or "", "anthropic")


def number(value: object) -> float | None:
    """A number of dollars, or None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(part: object, name: str) -> int:
    value = cast("dict[str, Any]", part).get(name) if isinstance(part, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

"""What a call costs: rates resolved once per provider, model and day, and exact decimal arithmetic over them.

The instrumentation and the collector both call this, so that the cost on a span and the cost in the store agree to the
last digit. The price list is the `genai-prices` package (offline, dated, tiered); it takes half a second to import, so
it is imported at the first `resolve`, never when this module is.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

COST_QUANTUM: Final = Decimal("0.000000000001")
"""Every call's cost is rounded half-even to this (12 decimals); totals are sums of rounded calls."""

_PER_MILLION: Final = Decimal(1_000_000)
_PER_THOUSAND: Final = Decimal(1_000)

# Names of OpenTelemetry's gen_ai.provider.name -> ids of genai-prices. Names not listed are the same in both.
_PROVIDER_IDS: Final[Mapping[str, str]] = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
}

# genai-prices' price keys that the usage of a text model can be charged by, and our field for each.
_RATE_KEYS: Final[Mapping[str, str]] = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "web_searches_kcount": "web_search",
}


class PriceOverrideError(ValueError):
    """A price override cannot be read. The message names the model and the value."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call. `input_tokens` includes the cached ones, as OpenTelemetry defines it."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    """All tokens written to the cache, whatever their lifetime."""
    cache_write_1h_tokens: int = 0
    """Those of `cache_write_tokens` that were written for one hour."""
    web_searches: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars for one unit (a token, a search); above `start` input tokens the tier's price holds for all."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()
    """(input tokens above which it holds, price), ascending."""

    def at(self, input_tokens: int) -> Decimal:
        """The price of one unit in a call with this many input tokens."""
        price = self.base
        for start, tier_price in self.tiers:
            if input_tokens > start:
                price = tier_price
        return price


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one model on one day, as plain numbers. A rate that the list does not know is None."""

    provider: str
    model: str
    version: str
    """Price list and version, such as `genai-prices/0.2.3`; stored with every cost."""
    context_window: int | None
    input: Rate | None
    output: Rate | None
    cache_read: Rate | None = None
    cache_write: Rate | None = None
    cache_write_1h: Rate | None = None
    web_search: Rate | None = None

    def cost(self, usage: TokenUsage) -> Decimal | None:
        """Cost of one call in US dollars, rounded half-even to 12 decimals; None where a needed rate is unknown.

        A cache rate that the list lacks is the rate of the tokens it is a part of (a one-hour write is a write, a
        read or a write is input), as genai-prices itself charges them.
        """
        uncached = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
        if uncached < 0 or usage.cache_write_1h_tokens > usage.cache_write_tokens:
            return None  # the parts exceed the whole: the usage is not what it says, so neither is any cost
        cache_write = self.cache_write or self.input
        parts = (
            (uncached, self.input),
            (usage.cache_read_tokens, self.cache_read or self.input),
            (usage.cache_write_tokens - usage.cache_write_1h_tokens, cache_write),
            (usage.cache_write_1h_tokens, self.cache_write_1h or cache_write),
            (usage.output_tokens, self.output),
        )
        total = Decimal(0)
        for count, rate in parts:
            if count == 0:
                continue
            if rate is None:
                return None
            total += count * rate.at(usage.input_tokens)
        if usage.web_searches and self.web_search is not None:
            total += usage.web_searches * self.web_search.at(usage.input_tokens)
        return total.quantize(COST_QUANTUM, rounding=ROUND_HALF_EVEN)


def resolve(
    provider: str | None,
    model: str | None,
    day: dt.date,
    *,
    overrides: Mapping[str, Mapping[str, float | int | str]] | None = None,
    batch: bool = False,
    fast: bool = False,
) -> Rates | None:
    """The rates of a model on a day (UTC); None when nobody knows them.

    `overrides` maps a model name to US dollars per million tokens: `input`, `output`, and optionally `cache_read`,
    `cache_write`, `cache_write_1h`; `web_search` is per thousand searches. They win over the price list.
    Raises PriceOverrideError for an override that is not made of such numbers.
    """
    if not model:
        return None
    if overrides and model in overrides:
        return _overridden(provider or "", model, overrides[model])
    return _listed(provider or "", model, day, batch, fast)


def price_list_version() -> str:
    """Name and version of the price list in use, without importing it."""
    return f"genai-prices/{version('genai-prices')}"


@lru_cache(maxsize=4096)
def _listed(provider: str, model: str, day: dt.date, batch: bool, fast: bool) -> Rates | None:
    from genai_prices import Usage, calc_price

    context: Any = {}
    if batch:
        context["processing"] = "batch"
    if fast:
        context["speed"] = "fast"
    at = dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.UTC)
    probe = Usage(input_tokens=0, output_tokens=0)
    provider_id = _PROVIDER_IDS.get(provider, provider) or None
    found = None
    # A provider the list does not know (a gateway, a proxy) still serves a model that it may know.
    for candidate in dict.fromkeys((provider_id, None)):
        try:
            found = calc_price(
                probe,
                model_ref=model,
                provider_id=candidate,
                genai_request_timestamp=at,
                **({"price_context": context} if context else {}),
            )
            break
        except LookupError:
            continue
    if found is None:
        return None
    rates: dict[str, Rate | None] = {}
    for key, name in _RATE_KEYS.items():
        unit = _PER_THOUSAND if key.endswith("_kcount") else _PER_MILLION
        rates[name] = _rate(getattr(found.model_price, key), unit)
    if rates["input"] is None and rates["output"] is None:
        return None
    return Rates(
        provider=provider,
        model=model,
        version=price_list_version(),
        context_window=found.model.context_window,
        **rates,  # type: ignore[arg-type]
    )


def _rate(price: Any, unit: Decimal) -> Rate | None:
    if price is None:
        return None
    if isinstance(price, Decimal):
        return Rate(price / unit)
    tiers = tuple(sorted((int(tier.start), tier.price / unit) for tier in price.tiers))
    return Rate(price.base / unit, tiers)


def _overridden(provider: str, model: str, override: Mapping[str, float | int | str]) -> Rates:
    known = {"input", "output", "cache_read", "cache_write", "cache_write_1h", "web_search"}
    rates: dict[str, Rate | None] = dict.fromkeys(known)
    for key, value in override.items():
        if key not in known:
            raise PriceOverrideError(
                f"price override for model {model!r}: {key!r} is not a rate; use one of {', '.join(sorted(known))}"
            )
        try:
            price = Decimal(str(value))
        except ArithmeticError:
            price = Decimal("NaN")
        if not price.is_finite() or price < 0:
            raise PriceOverrideError(
                f"price override for model {model!r}: {key} = {value!r} is not a number of US dollars >= 0"
            )
        rates[key] = Rate(price / (_PER_THOUSAND if key == "web_search" else _PER_MILLION))
    digest = hashlib.sha256(json.dumps({k: str(v) for k, v in override.items()}, sort_keys=True).encode()).hexdigest()
    return Rates(
        provider=provider,
        model=model,
        version=f"override/{digest[:8]}",
        context_window=None,
        **rates,  # type: ignore[arg-type]
    )

"""`Limits`: what one run may use, and the question whether it has. Pure data; asked before each LLM call is sent.

Used by runs (each has its own), by the configuration (the default of every run) and by the anthropic hooks, which act
on a hit. Nothing is limited unless its owner asks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from loopscope.exceptions import ConfigurationError

OnHit = Literal["partial", "raise"]
ON_HIT: tuple[OnHit, ...] = ("partial", "raise")
BUFFER = 1.5
"""Turns that `recommended` leaves over the expected ones: half as many again."""
RECOMMENDED_TOKENS = 100_000
RECOMMENDED_COST_USD = 5.0
_UNITS = {"max_turns": "turns", "max_tokens": "tokens", "max_cost_usd": "US dollars", "max_seconds": "seconds"}
NAMES = tuple(_UNITS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. Checked before each LLM call is sent; a call under way is never cut off.

    `max_turns`: LLM calls of the run. `max_tokens`: input (cache included) and output tokens of all its calls together.
    `max_cost_usd`: their cost; calls whose cost is unknown do not count. `max_seconds`: since the run began. Tokens and
    cost include those of the run's sub-agents. None: not limited.

    `on_hit`: with "partial" the next call sends nothing and is answered at once by a message with the stop reason
    `end_turn` that says which limit was hit, so that a loop ends by itself; with "raise" it raises LimitExceeded.

    Raises ConfigurationError for a value that is no positive number, or another `on_hit`.
    """

    max_turns: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_seconds: float | None = None
    on_hit: OnHit = "partial"

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_tokens"):
            value: Any = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"Limits({name}={value!r}): expected a whole number of at least 1, or None")
        for name in ("max_cost_usd", "max_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(
                    f"Limits({name}={value!r}): expected a number of {_UNITS[name]} above 0, or None"
                )
        if self.on_hit not in ON_HIT:
            raise ConfigurationError(f'Limits(on_hit={self.on_hit!r}): expected "partial" or "raise"')

    @classmethod
    def recommended(cls, expected_turns: int = 10, *, on_hit: OnHit = "partial") -> Limits:
        """Limits for an agent that usually needs `expected_turns`: half as many turns again, 100,000 tokens, $5.00."""
        if isinstance(expected_turns, bool) or not isinstance(expected_turns, int) or expected_turns < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"Limits.recommended(expected_turns={expected_turns!r}): expected a whole number of at least 1"
            )
        return cls(
            max_turns=math.ceil(expected_turns * BUFFER),
            max_tokens=RECOMMENDED_TOKENS,
            max_cost_usd=RECOMMENDED_COST_USD,
            on_hit=on_hit,
        )

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return any(getattr(self, name) is not None for name in NAMES)

    @property
    def of_usage(self) -> bool:
        """Whether what answers say is limited: tokens or cost."""
        return self.max_tokens is not None or self.max_cost_usd is not None

    def as_json(self) -> str:
        """The limits that are set, and what happens on a hit, as JSON text."""
        named = {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        return json.dumps(named | {"on_hit": self.on_hit})


@dataclass(frozen=True, slots=True)
class Hit:
    """A limit that was reached."""

    name: str
    maximum: float
    used: float
    on_hit: OnHit

    @property
    def sentence(self) -> str:
        """What happened, for the model's reader and for the exception."""
        unit = _UNITS[self.name]
        return f"the run has used {_shown(self.used)} of {_shown(self.maximum)} {unit} ({self.name})"


def _shown(number: float) -> str:
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:,.4f}".rstrip("0").rstrip(".")


def limits_of(value: object, where: str) -> Limits | None:
    """Limits given as such or as a mapping of their names. Raises ConfigurationError, naming `where`."""
    if value is None or isinstance(value, Limits):
        return value
    known = {field.name for field in fields(Limits)}
    if not isinstance(value, Mapping) or not set(value) <= known:  # pyright: ignore[reportUnknownArgumentType]
        raise ConfigurationError(f"{where}={value!r}: expected loopscope.Limits or a mapping of {sorted(known)}")
    return Limits(**value)  # pyright: ignore[reportUnknownArgumentType]

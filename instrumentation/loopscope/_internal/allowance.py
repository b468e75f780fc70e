"""What a run may still use: its limits against its ledger, and those of the runs around it. Asked before each LLM call.

Each run has one. It says whether a limit is reached and remembers which; what then happens to the call is the matter of
the LLM hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .ledger import Ledger
from .limits import Hit, Limits


class Allowance:
    """Of one run."""

    def __init__(self, limits: Limits | None) -> None:
        self.limits = limits
        self.ledger = Ledger(None)
        """What the run has used."""
        self.hit: str | None = None
        """The limit that stopped the run; None when none did."""
        self.stopped_calls = 0
        """LLM calls that were not sent because of a limit."""
        self.on_stopped: Callable[[], None] | None = None
        """Told of each such call, those of sub-agents included; what it raises leaves the call."""
        self.counts_all_turns = False
        """Whether `max_turns` is about the turns of sub-agents as well."""
        self._outer: Allowance | None = None
        self._begun = time.monotonic()

    def begin(self, default: Limits | None, outer: Allowance | None) -> None:
        """The run begins, inside another or none; `default` are the limits of a run that has none of its own."""
        self.limits = self.limits or default
        self._begun = time.monotonic()
        if outer is not None:
            self._outer = outer
            self.ledger = Ledger(outer.ledger)

    def reached(self) -> Hit | None:
        """The limit of this run, or of a run around it, that forbids another LLM call; it is noted as hit."""
        hit = self._own(inside=False) or (self._outer.reached_inside() if self._outer is not None else None)
        if hit is not None:
            self.hit = self.hit or hit.name
        return hit

    def reached_inside(self) -> Hit | None:
        """As `reached`, for a call of a sub-agent: it is no turn of this run."""
        hit = self._own(inside=True)
        if hit is not None:
            self.hit = self.hit or hit.name
            return hit
        return self._outer.reached_inside() if self._outer is not None else None

    def tell_stopped(self) -> None:
        """A call of this run or of a sub-agent was not sent because of a limit. Raises what `on_stopped` raises."""
        if self.on_stopped is not None:
            self.on_stopped()
        if self._outer is not None:
            self._outer.tell_stopped()

    def _own(self, *, inside: bool) -> Hit | None:
        limits = self.limits
        if limits is None:
            return None
        turns = self.ledger.all_turns if self.counts_all_turns else 0 if inside else self.ledger.turns
        if limits.max_turns is not None and turns >= limits.max_turns:
            return Hit("max_turns", limits.max_turns, turns, limits.on_hit)
        if limits.max_seconds is not None and (passed := time.monotonic() - self._begun) >= limits.max_seconds:
            return Hit("max_seconds", limits.max_seconds, passed, limits.on_hit)
        if limits.max_tokens is None and limits.max_cost_usd is None:
            return None
        tokens, cost = self.ledger.used()
        if limits.max_tokens is not None and tokens >= limits.max_tokens:
            return Hit("max_tokens", limits.max_tokens, tokens, limits.on_hit)
        if limits.max_cost_usd is not None and cost >= limits.max_cost_usd:
            return Hit("max_cost_usd", limits.max_cost_usd, cost, limits.on_hit)
        return None

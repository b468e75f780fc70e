"""What a run has used: turns, tokens, cost. Written by the LLM hooks, read for limits and for `run.stats`.

An answer's usage is normally read by the worker, when it reads the answer anyway. Who asks earlier (a limit that is
checked before the next call) reads it itself: the figures are exact at any moment, and nobody waits for anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loopscope_schemas import attributes as at

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunStats:
    """What a run has used so far. `completed` is False when a limit ended it, an exception left it, or its owner said
    another outcome; while it goes on: whether nothing of that has happened."""

    turns: int
    """LLM calls sent."""
    total_tokens: int
    """Input tokens (cache included) and output tokens of all answered calls."""
    total_cost_usd: float | None
    """US dollars, of the calls whose cost is known; None when none is."""
    completed: bool
    unknown_cost_calls: int = 0
    """Answered calls whose cost is not known."""


class Spending:
    """One call's part: known once its answer was read."""

    __slots__ = ("_ledgers", "_read")

    def __init__(self, ledgers: tuple[Ledger, ...], read: Callable[[], Attributes]) -> None:
        self._ledgers = ledgers
        self._read: Callable[[], Attributes] | None = read

    def settle(self, attributes: Attributes | None = None) -> None:
        """Enter the call's usage, once. Without `attributes` it is read from the answer, on the calling thread."""
        read = self._read
        if read is None:
            return
        if attributes is None:
            attributes = read()
        with _lock:
            if self._read is None:
                return
            self._read = None
            for position, ledger in enumerate(self._ledgers):
                ledger.enter(self, attributes, own=position == 0)


_lock = threading.RLock()
"""One for all runs: held for a few additions. Reentrant, as the garbage collector may end a stream inside it."""


def after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


class Ledger:
    """The account of one run. What a sub-agent spends is entered in those of the runs around it too."""

    def __init__(self, outer: Ledger | None) -> None:
        self._outer = outer
        self._unsettled: list[Spending] = []
        self.turns = 0
        self.all_turns = 0
        """Those of sub-agents included."""
        self._tokens = self._all_tokens = 0
        self._cost = self._all_cost = 0.0
        self._known = self._unknown = 0

    def begin_turn(self) -> int:
        """Count a turn and give its number, from 1."""
        with _lock:
            self.turns += 1
            ledger: Ledger | None = self
            while ledger is not None:
                ledger.all_turns += 1
                ledger = ledger._outer
            return self.turns

    def at_least_turn(self, turn: int) -> None:
        """Number on from this turn if the run is not there yet."""
        with _lock:
            self.turns = max(self.turns, turn)

    def spend(self, read: Callable[[], Attributes]) -> Spending:
        """A call was answered; `read` gives the attributes of its answer. May be called on any thread, later."""
        chain: list[Ledger] = []
        ledger: Ledger | None = self
        while ledger is not None:
            chain.append(ledger)
            ledger = ledger._outer
        spending = Spending(tuple(chain), read)
        with _lock:
            for ledger in chain:
                ledger._unsettled.append(spending)
        return spending

    def enter(self, spending: Spending, attributes: Attributes, *, own: bool) -> None:
        """Add a call's usage; called by `Spending.settle` alone."""
        if spending in self._unsettled:
            self._unsettled.remove(spending)
        tokens = sum(
            value
            for name in (at.USAGE_INPUT_TOKENS, at.USAGE_OUTPUT_TOKENS)
            if isinstance(value := attributes.get(name), int)
        )
        cost = attributes.get(at.COST_USD)
        self._all_tokens += tokens
        self._all_cost += cost or 0.0
        if own:
            self._tokens += tokens
            self._cost += cost or 0.0
            if cost is not None:
                self._known += 1
            elif attributes.get(at.COST_SOURCE) == "unknown":
                self._unknown += 1

    def used(self) -> tuple[int, float]:
        """Tokens and US dollars so far, sub-agents included: what limits are about."""
        self._settle()
        return self._all_tokens, self._all_cost

    def stats(self, *, completed: bool) -> RunStats:
        """Of the run itself, without its sub-agents."""
        self._settle()
        return RunStats(
            turns=self.turns,
            total_tokens=self._tokens,
            total_cost_usd=self._cost if self._known or not self._unknown else None,
            completed=completed,
            unknown_cost_calls=self._unknown,
        )

    def _settle(self) -> None:
        for spending in list(self._unsettled):
            spending.settle()

"""What normalising knows beyond the bytes: retention, prices, and what it remembers to be fast.

The memory (rates of a model and day, the last request of a trace) changes the cost of normalising, never its result.
One `Context` belongs to one thread.
"""

import datetime as dt
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from loopscope_schemas import prices
from loopscope_schemas.content import Memo
from loopscope_schemas.rows import Day

MEMO_MAX_CHARS: Final = 48_000_000
"""Characters of requests kept in memory, all traces together: some 500 long conversations at once."""
MEMO_MAX_TRACES: Final = 20_000
_MAX_RATES: Final = 10_000

PriceOverrides = Mapping[str, Mapping[str, float | int | str]]
"""Model -> US dollars per million tokens, see `loopscope_schemas.prices.resolve`."""


class Context:
    """Settings and memory of one normalising thread."""

    def __init__(
        self,
        *,
        retention_days: int = 90,
        price_overrides: PriceOverrides | None = None,
        memo_max_chars: int = MEMO_MAX_CHARS,
    ) -> None:
        self.retention_days = retention_days
        self._overrides = price_overrides or {}
        self._rates: dict[tuple[str, str, str, Day, bool, bool], prices.Rates | None] = {}
        self._memos: OrderedDict[tuple[str, str], tuple[Memo, int]] = OrderedDict()
        self._memo_chars = 0
        self._memo_max_chars = memo_max_chars

    def rates(
        self, provider: str, models: tuple[str, str], day: Day, *, batch: bool, fast: bool
    ) -> prices.Rates | None:
        """Rates of the model that answered or else of the one asked for; the owner's overrides come first."""
        key = (provider, *models, day, batch, fast)
        if key in self._rates:
            return self._rates[key]
        if len(self._rates) >= _MAX_RATES:
            self._rates.clear()
        date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
        found = None
        for model in sorted(models, key=lambda name: name not in self._overrides):
            found = found or prices.resolve(provider, model, date, overrides=self._overrides, batch=batch, fast=fast)
        self._rates[key] = found
        return found

    def memo(self, trace_id: str, run_id: str) -> Memo:
        """The memo of a run of a trace; give it back with `keep`."""
        entry = self._memos.pop((trace_id, run_id), None)
        if entry is None:
            return Memo()
        self._memo_chars -= entry[1]
        return entry[0]

    def keep(self, trace_id: str, run_id: str, memo: Memo) -> None:
        """Remember a memo, and forget those not used for longest beyond the bound."""
        size = memo.size()
        if size > self._memo_max_chars // 4:
            return
        self._memos[trace_id, run_id] = (memo, size)
        self._memo_chars += size
        while self._memo_chars > self._memo_max_chars or len(self._memos) > MEMO_MAX_TRACES:
            _, (_, dropped) = self._memos.popitem(last=False)
            self._memo_chars -= dropped

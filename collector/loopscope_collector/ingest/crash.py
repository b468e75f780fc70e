"""Runs whose process went silent: which are open, when they were last heard of. Used by `Ingest`."""

from collections.abc import Callable, Iterable
from typing import Final

from loopscope_collector.ingest import run_queries
from loopscope_collector.ingest.run_state import RUNS_AT_ONCE
from loopscope_collector.store import Store
from loopscope_schemas.rows import RunStateRow

REFRESH_NS: Final = 60 * 1_000_000_000
"""How often the open runs are read from the store: those of an earlier start, or of a collector that is gone."""


class CrashWatch:
    """Knows the open runs, so that looking for silent ones needs no query most of the time."""

    def __init__(self, store: Store, clock: Callable[[], int], crash_after_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._silence_ns = int(crash_after_seconds * 1_000_000_000)
        self._open: dict[str, int] = {}
        self._refreshed_at: int | None = None

    def saw(self, rows: Iterable[RunStateRow]) -> None:
        """These are the newest states of some runs."""
        for row in rows:
            if row.outcome == "running":
                self._open[row.run_id] = row.last_seen_at
            else:
                self._open.pop(row.run_id, None)

    def mark(self, up_since_ns: int) -> int:
        """Mark silent runs as crashed; answers how many. Nothing before the collector was up as long as that."""
        now = self._clock()
        silent_since = now - self._silence_ns
        if up_since_ns > silent_since:
            return 0
        if self._refreshed_at is None or now - self._refreshed_at >= REFRESH_NS:
            found = self._store.query(run_queries.running(self._store.database))
            self._open = {row[0]: int(row[1]) for row in found}
            self._refreshed_at = now
        silent = [run_id for run_id, seen in self._open.items() if seen < silent_since]
        marked = 0
        for begin in range(0, len(silent), RUNS_AT_ONCE):
            chunk = silent[begin : begin + RUNS_AT_ONCE]
            # Another collector may have heard of them: the statement looks again.
            before = self._count(chunk, silent_since)
            if before:
                self._store.command(run_queries.crash(self._store.database, chunk, silent_since))
            marked += before
            for run_id in chunk:
                self._open.pop(run_id, None)
        return marked

    def _count(self, run_ids: list[str], silent_since: int) -> int:
        return int(self._store.query(run_queries.silent(self._store.database, run_ids, silent_since))[0][0])

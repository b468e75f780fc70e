"""The ingesting half of the collector: sealed segments -> rows in the store, run states, crash detection.

The collector's process calls `Ingest.write` for each segment in order from one thread, and `mark_crashed` every few
seconds. Nothing here listens or reads the queue's directory.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from loopscope_collector.ingest import run_queries
from loopscope_collector.ingest.crash import CrashWatch
from loopscope_collector.ingest.duplicates import Duplicates
from loopscope_collector.ingest.run_state import RunStates
from loopscope_collector.ingest.writer import Writer, WriteResult
from loopscope_collector.metrics import Metrics
from loopscope_collector.normalise import Context
from loopscope_collector.normalise.context import PriceOverrides
from loopscope_collector.queue import Record, Segment
from loopscope_collector.store import Store
from loopscope_schemas.migrate import DEFAULT_RETENTION_DAYS

__all__ = ["Ingest", "WriteResult"]

Clock = Callable[[], int]
"""Now, in Unix nanoseconds."""
REBUILD_AT_ONCE: Final = 2_000


class Ingest:
    """Writes telemetry into the store. Thread-safe; one thing happens at a time."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = time.time_ns,
        retention_days: int = DEFAULT_RETENTION_DAYS,
        price_overrides: PriceOverrides | None = None,
        crash_after_seconds: float = 30,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._lock = threading.Lock()
        context = Context(retention_days=retention_days, price_overrides=price_overrides)
        self._writer = Writer(store, context, metrics)
        self._watch = CrashWatch(store, clock, crash_after_seconds)

    def write(self, segment: Segment, set_aside: Callable[[Record, str], None]) -> WriteResult:
        """Write a sealed segment; when it returns, everything in it can be queried.

        Safe to repeat, also by another process after a crash at any step. What cannot be stored is given to `set_aside`
        with the reason; the rest is written. Raises StoreUnavailable: repeat with the same segment, nothing is lost;
        StoreRefused: the database does not fit this version, repeating will not help before that is mended.
        """
        with self._lock:
            result = self._writer.write(segment, set_aside)
            self._watch.saw(result.runs)
            return result

    def mark_crashed(self, *, collector_up_since_ns: int) -> int:
        """Mark runs without an end whose process has been silent for too long; answers how many.

        To be called only while no segment waits: what waits may hold their end. Raises StoreUnavailable.
        """
        with self._lock:
            marked = self._watch.mark(collector_up_since_ns)
            self._metrics.count("runs_crashed", marked)
            return marked

    def rebuild_run_states(self) -> int:
        """Recompute duplicates and every run from its spans; answers how many runs.

        Raises StoreUnavailable, StoreRefused.
        """
        states = RunStates(self._store)
        with self._lock:
            Duplicates(self._store).rebuild()
        table = self._store.query_arrow(run_queries.bounds(self._store.database))
        run_ids: list[str] = table.column(0).to_pylist()
        starts: list[int] = table.column(1).to_pylist()
        rebuilt = 0
        for begin in range(0, len(run_ids), REBUILD_AT_ONCE):
            end = begin + REBUILD_AT_ONCE
            with self._lock:
                rows = states.recompute(dict(zip(run_ids[begin:end], starts[begin:end], strict=True)))
                self._watch.saw(rows)
            rebuilt += len(rows)
        with self._lock:
            states.delete([row[0] for row in self._store.query(run_queries.orphans(self._store.database))])
        return rebuilt

    def forget_content(self) -> None:
        """To be called after content was deleted from the store (a purge): what is seen is asked for again."""
        with self._lock:
            self._writer.forget_content()

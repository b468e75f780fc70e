"""The writer: one thread that takes sealed segments from the queue into the store, and looks after the open runs.

Made by `process`. A store that is away costs patience, never data: the segment stays in the queue and is tried again
with the same cut and the same token, while the queue's bound slows the senders down.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from loopscope_collector.metrics import Metrics
from loopscope_collector.queue import Record, Segment, SegmentSource
from loopscope_collector.store import StoreError, StoreUnavailable

TAKE_SECONDS: Final = 0.25
CHECK_SECONDS: Final = 2.0
"""Between two looks at whether the store answers and at open runs."""
CURRENT_SECONDS: Final = 5.0
"""Segments older than this when they are written mean that the store lags behind what was received."""
FIRST_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 5.0
MAX_FAILURES: Final = 5
"""A segment that failed so often although the store answers is set aside: one poisoned batch must not stop the rest."""

log = logging.getLogger("loopscope.writer")


class SegmentWriter(Protocol):
    """What the loop needs of `ingest.Ingest`."""

    def write(self, segment: Segment, set_aside: Callable[[Record, str], None]) -> object:
        """Store a segment; safe to repeat. Raises StoreError."""
        ...

    def mark_crashed(self, *, collector_up_since_ns: int) -> int:
        """Mark runs that are open and silent. Raises StoreError."""
        ...


class WriterLoop:
    """The thread."""

    def __init__(
        self,
        source: SegmentSource,
        ingest: SegmentWriter,
        *,
        probe: Callable[[], object],
        metrics: Metrics,
        on_check: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`probe` asks the store for anything and raises StoreError; it and `on_check` are called every two seconds."""
        self._source = source
        self._ingest = ingest
        self._metrics = metrics
        self._probe = probe
        self._on_check = on_check
        self._clock = clock
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._draining = False
        self._failures = 0
        self._checked_at = 0
        self._up_since = clock()
        self.store_error: str | None = "the store was not asked yet"
        """Why the store does not work, None when it does; for `/healthz`."""
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        metrics.describe("writer_segments", "Segments stored.")
        metrics.describe("writer_retries", "Segments that have to be written again, by reason.")
        metrics.describe("writer_segments_set_aside", "Segments put among the dead letters after repeated failures.")
        metrics.describe("writer_segment_seconds", "One segment into the store.")
        metrics.describe("writer_lag_seconds", "Age of the last segment when it was in the store.")
        metrics.describe("store_up", "1 when the store answers.")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def drain(self, seconds: float) -> bool:
        """Write what is sealed, for so long at most; True when nothing is left. The queue's intake is closed before."""
        self._idle.clear()
        self._draining = True
        return self._idle.wait(seconds)

    def stop(self) -> None:
        """End the thread after the write it is in."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._check()
                segment = self._source.next_sealed(TAKE_SECONDS)
                if segment is None:
                    if self._draining:
                        self._idle.set()
                    continue
                self._write(segment)
            except Exception:
                # The thread must outlive whatever it meets; the segment is still in the queue.
                log.exception("the writer failed in a way that was not foreseen")
                self._metrics.count("writer_retries", reason="unforeseen")
                self._pause()

    def _write(self, segment: Segment) -> None:
        began = time.monotonic()
        try:
            self._ingest.write(segment, lambda record, reason: self._source.set_aside(segment.id, record, reason))
        except StoreError as error:
            # Away, or refusing as a whole (what it refuses of one record, the record pays for): keep it and try again.
            self._store_is(str(error))
            self._metrics.count("writer_retries", reason=_reason(error))
            self._pause()
            return
        except Exception as error:
            log.exception("segment %s could not be stored", segment.id)
            self._metrics.count("writer_retries", reason="failed")
            if self._failures < MAX_FAILURES or isinstance(error, OSError | MemoryError):
                self._pause()
                return
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            for record in segment.records():
                self._source.set_aside(segment.id, record, f"its batch failed {self._failures + 1} times; {reason}")
            self._metrics.count("writer_segments_set_aside")
        else:
            self._store_is(None)
            self._metrics.count("writer_segments")
            self._metrics.observe("writer_segment_seconds", time.monotonic() - began)
        self._source.done(segment)
        self._failures = 0
        lag = max(0.0, (self._clock() - segment.begun_at) / 1e9)
        self._metrics.gauge("writer_lag_seconds", lag)
        if lag > CURRENT_SECONDS:
            self._up_since = self._clock()  # heartbeats waited in the queue: silence counts from now on

    def _check(self) -> None:
        """Every two seconds. A run is called crashed only when the store knows all that was received in its silence."""
        now = self._clock()
        gap = now - self._checked_at
        if 0 <= gap < CHECK_SECONDS * 1e9:
            return
        if self.store_error or gap > 5 * CHECK_SECONDS * 1e9 or gap < 0:
            self._up_since = now  # the store was away, or this machine slept
        self._checked_at = now
        self._on_check()
        try:
            self._probe()
            self._ingest.mark_crashed(collector_up_since_ns=self._up_since)
        except StoreError as error:
            self._store_is(str(error))
        else:
            self._store_is(None)

    def _store_is(self, error: str | None) -> None:
        if error and not self.store_error:
            log.warning("%s; what arrives waits in the queue", error)
        elif self.store_error and not error:
            log.info("the store answers")
        self.store_error = error
        self._metrics.gauge("store_up", 0 if error else 1)

    def _pause(self) -> None:
        """Wait before the next try: doubling, with jitter, so that several collectors do not come back at once."""
        bound = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        self._stopping.wait(bound * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)


def _reason(error: StoreError) -> str:
    return "store_unavailable" if isinstance(error, StoreUnavailable) else "store_refused"

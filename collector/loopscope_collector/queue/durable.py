"""The queue itself: bounded, in order, on disk before it says so.

Threads: any number submit; one committer thread of the queue's own does every write, so that all requests that wait
share one fsync; one writer thread takes segments. The directory is the cursor: a segment is there until it is done.
"""

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loopscope_collector.metrics import Metrics
from loopscope_collector.queue.active import ActiveSegment
from loopscope_collector.queue.dead_letters import DeadLetters
from loopscope_collector.queue.files import Files
from loopscope_collector.queue.records import Record, framed_bytes
from loopscope_collector.queue.segments import Segment, new_segment_id, recover

COMMIT_MAX_BYTES: Final = 32 * 1024 * 1024
"""Written before an fsync; more would make everybody wait for the largest."""

CLOSE_INTAKE_SECONDS: Final = 5.0
"""How long a draining process waits for the last commit; on a full disk the rest stays where it is."""

SEAL_RETRY_SECONDS: Final = 1.0
"""Pause after a segment could not be renamed (a full disk, say) before it is tried again."""

log = logging.getLogger("loopscope.queue")


class QueueFullError(Exception):
    """The bound on bytes is reached: the store is slower than what arrives, or away. Try again later."""


class QueueUnavailableError(Exception):
    """The disk refused a record, or the queue is closing. The record was not taken; try again later."""


class QueueHeldError(Exception):
    """Another process has this queue directory. The message says which."""


@dataclass(slots=True)
class _Waiting:
    record: Record
    size: int
    future: Future[None] = field(default_factory=Future[None])


class DurableQueue:
    """A directory of segments; made by the process, fed by the receiver, emptied by the writer."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        segment_max_bytes: int = 32 * 1024 * 1024,
        segment_max_age_seconds: float = 0.2,
        dead_letter_max_bytes: int = 1024 * 1024 * 1024,
        metrics: Metrics | None = None,
        clock: Callable[[], int] = time.time_ns,
        files: Files | None = None,
    ) -> None:
        """Open or make the directory and recover what is in it. Raises QueueHeldError, OSError."""
        self._max_bytes = max_bytes
        self._segment_max_bytes = segment_max_bytes
        self._segment_max_age = segment_max_age_seconds
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._files = files or Files()
        self._segments_dir = directory / "segments"
        dead = directory / "dead-letters"
        for path in (self._segments_dir, dead):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_descriptor = _hold(directory / "lock")

        # One lock; the committer waits for work, takers for segments, each without waking the other for nothing.
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._ready = threading.Condition(self._lock)
        self._waiting: deque[_Waiting] = deque()
        self._bytes_waiting = 0
        self._active: ActiveSegment | None = None
        self._active_bytes = 0
        self._takers = 0
        self._intake_closed = False
        self._closing = False
        self._seal_after = 0.0

        recovered = recover(self._segments_dir, self._files)
        self._last_id = recovered.segments[-1][0] if recovered.segments else ""
        self._sealed = deque(self._segment(*found) for found in recovered.segments)
        self._bytes_sealed = sum(segment.length for segment in self._sealed)
        self.torn_bytes = recovered.torn_bytes
        """Bytes that recovery cut off: the tail of a write that was never acknowledged."""
        self._metrics.count("queue_torn_bytes", recovered.torn_bytes)
        self._metrics.count("queue_damaged_bytes", 0)
        self._dead_letters = DeadLetters(
            dead, max_bytes=dead_letter_max_bytes, metrics=self._metrics, clock=clock, files=self._files
        )
        self._report()
        self._committer = threading.Thread(target=self._commit_loop, name="queue-committer", daemon=True)
        self._committer.start()

    # --- the receiver's side ---

    def submit(self, record: Record) -> Future[None]:
        """Take a record; the future is done when it is on disk, or fails with QueueUnavailableError.

        Raises QueueFullError, or QueueUnavailableError when the queue is closing, at once.
        """
        waiting = _Waiting(record, framed_bytes(record))
        waiting.future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        with self._lock:
            if self._intake_closed:
                raise QueueUnavailableError("the collector is shutting down")
            held = self._held()
            if held + waiting.size > self._max_bytes:
                raise QueueFullError(
                    f"the queue holds {held} bytes of at most {self._max_bytes} that the store has not taken yet"
                )
            self._waiting.append(waiting)
            self._bytes_waiting += waiting.size
            self._work.notify()
        return waiting.future

    def append(self, record: Record) -> None:
        """Take a record and wait until it is on disk. Raises QueueFullError, QueueUnavailableError."""
        self.submit(record).result()

    @property
    def held_bytes(self) -> int:
        """Bytes taken and not yet done."""
        with self._lock:
            return self._held()

    @property
    def max_bytes(self) -> int:
        """The bound."""
        return self._max_bytes

    @property
    def is_empty(self) -> bool:
        """Whether everything taken is done."""
        return self.held_bytes == 0

    # --- the writer's side ---

    def next_sealed(self, timeout: float) -> Segment | None:
        """The oldest sealed segment that is not done; the same one until `done`. None after `timeout` seconds.

        A segment is sealed when it is large, or old while somebody waits here: a busy store gets large batches, an
        idle one gets them soon.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._takers += 1
            try:
                self._work.notify()
                while not self._sealed:
                    left = deadline - time.monotonic()
                    if left <= 0 or self._closing:
                        return None
                    self._ready.wait(left)
                return self._sealed[0]
            finally:
                self._takers -= 1

    def done(self, segment: Segment) -> None:
        """Forget the segment that `next_sealed` gave, durably. Raises ValueError for another one, OSError."""
        with self._lock:
            if not self._sealed or self._sealed[0] != segment:
                raise ValueError(f"segment {segment.id} is not the oldest; segments are done in order")
        self._files.remove(segment.path)
        with self._lock:
            self._sealed.popleft()
            self._bytes_sealed -= segment.length
            self._report()

    def set_aside(self, segment_id: str, record: Record, reason: str) -> None:
        """Put one record among the dead letters, durably. Raises OSError."""
        self._dead_letters.add(segment_id, record, reason)

    # --- the process's side ---

    def close_intake(self) -> None:
        """Refuse new records, commit and seal what is there; `next_sealed` gives the rest. For draining."""
        with self._lock:
            self._intake_closed = True
            self._work.notify()
            self._ready.wait_for(
                lambda: self._closing or not (self._bytes_waiting or self._active_bytes), CLOSE_INTAKE_SECONDS
            )

    def close(self) -> None:
        """Commit what was submitted, end the threads, release the directory. What is not done stays on disk."""
        with self._lock:
            self._intake_closed = True
            self._closing = True
            self._work.notify()
            self._ready.notify_all()
        self._committer.join()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    # --- inside ---

    def _segment(self, segment_id: str, path: Path, length: int) -> Segment:
        return Segment(segment_id, path, length, self._count_damage)

    def _count_damage(self, damaged_bytes: int) -> None:
        self._metrics.count("queue_damaged_bytes", damaged_bytes)

    def _held(self) -> int:
        return self._bytes_sealed + self._active_bytes + self._bytes_waiting

    def _report(self) -> None:
        self._metrics.gauge("queue_bytes", self._held())
        self._metrics.gauge("queue_max_bytes", self._max_bytes)
        self._metrics.gauge("queue_segments", len(self._sealed))
        oldest = self._sealed[0].begun_at if self._sealed else 0
        self._metrics.gauge("queue_oldest_segment_unix_seconds", oldest / 1e9)

    def _commit_loop(self) -> None:
        while True:
            with self._lock:
                while not (self._waiting or self._seal_due() or self._closing):
                    self._work.wait(self._until_seal())
                batch, size = self._take_batch()
                seal = self._seal_due()
            if batch:
                self._commit(batch, size)
            elif seal:
                self._seal()
            elif self._closing:
                if self._active is not None:
                    self._active.close()
                return

    def _take_batch(self) -> tuple[list[_Waiting], int]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].size <= COMMIT_MAX_BYTES):
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        return batch, size

    def _commit(self, batch: list[_Waiting], size: int) -> None:
        began = time.monotonic()
        failure: QueueUnavailableError | None = None
        try:
            self._write([waiting.record for waiting in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it and the thread must live
            reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            failure = QueueUnavailableError(f"{self._segments_dir} took no record: {reason}")
            self._metrics.count("queue_commit_errors")
            log.error("%s", failure, exc_info=None if isinstance(error, OSError) else error)
        with self._lock:
            self._bytes_waiting -= size
            if failure is None:
                self._active_bytes += size
            self._report()
            self._ready.notify_all()
        self._metrics.observe("queue_commit_seconds", time.monotonic() - began)
        for waiting in batch:
            if failure is None:
                waiting.future.set_result(None)
            else:
                waiting.future.set_exception(failure)
        if self._active is not None and self._active.synced >= self._segment_max_bytes:
            self._seal()

    def _write(self, records: list[Record]) -> None:
        if self._active is not None and self._active.broken and not self._seal():
            raise OSError(errno.EIO, "an earlier write failed and could not be undone yet")
        if self._active is None:
            self._last_id = new_segment_id(self._clock(), self._last_id)
            self._active = ActiveSegment.create(self._files, self._segments_dir, self._last_id)
        self._active.append(records)

    def _seal_due(self) -> bool:
        active = self._active
        if active is None or not active.synced or time.monotonic() < self._seal_after:
            return False
        if active.broken or self._intake_closed or active.synced >= self._segment_max_bytes:
            return not self._closing
        return bool(self._takers) and not self._sealed and active.age_seconds() >= self._segment_max_age

    def _until_seal(self) -> float | None:
        """Seconds until a seal may be due without anything else happening; None when only an event can make it so."""
        active = self._active
        if active is None or not active.synced:
            return None
        waits = self._seal_after - time.monotonic()
        if self._takers and not self._sealed:
            return max(waits, self._segment_max_age - active.age_seconds(), 0.001)
        return max(waits, 0.001) if waits > 0 else None

    def _seal(self) -> bool:
        """Hand the active segment over. When the disk refuses (False), it stays open and is tried again."""
        active = self._active
        assert active is not None  # noqa: S101  (both callers have looked)
        try:
            if not active.synced:
                active.discard()
                self._active = None
                return True
            path = active.seal()
        except OSError:
            active.broken = True  # its name may have changed already: nothing may be added to it
            self._metrics.count("queue_seal_errors")
            self._seal_after = time.monotonic() + SEAL_RETRY_SECONDS
            return False
        with self._lock:
            self._active = None
            self._sealed.append(self._segment(active.id, path, active.synced))
            self._bytes_sealed += active.synced
            self._active_bytes = 0
            self._report()
            self._ready.notify_all()
        return True


def _hold(path: Path) -> int:
    """Lock the directory for this process; the system lets go of it when the process ends in whatever way."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise QueueHeldError(
            f"{path.parent} is in use by another collector{f' (process {holder})' if holder else ''}; "
            "stop it, or choose another data directory"
        ) from error
    with contextlib.suppress(OSError):  # the number is for people; a full disk must not keep the collector down
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor

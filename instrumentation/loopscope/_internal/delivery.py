"""The exporter: a thread that sends start markers, heartbeats and spooled spans to the collector.

A thread of its own beside the worker, so that a collector that hangs delays no span on its way to the disk. Spans stay
in the spool until a 2xx; what the collector refuses for good is set aside in a file with the reason, counted, and never
sent again. Nothing here runs on the host's threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import forks, guard
from .backend import Backend, Kind, rejected_spans
from .drops import DropLog, untold_by_dead
from .encoding import marker
from .endpoints import credential_free
from .spool import SUFFIX, Frame, Segment, Spool
from .transport import Answer

if TYPE_CHECKING:
    from .config import Config
    from .recording import Start

LINGER_SECONDS = 0.05
"""Spans that end together travel together."""
HEARTBEAT_SECONDS = 5.0
ORPHAN_SCAN_SECONDS = 30.0
BATCH_MAX_BYTES = 4 * 1024 * 1024
BATCH_MAX_SPANS = 512
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
MAX_SERVER_FAILURES = 10
"""Answers of 500 and the like to the same batch before it is taken to be the cause and set aside. 401, 403, 429, 502,
503, 504 and no answer at all say nothing about the batch and are never counted."""
MARKERS_MAX = 5_000
REJECTED_MAX_BYTES = 64 * 1024 * 1024


class Exporter:
    def __init__(
        self,
        config: Config,
        spool: Spool,
        scope: bytes,
        resource: Callable[[], bytes],
        *,
        takes_over_drops: bool = True,
    ) -> None:
        """`takes_over_drops`: whether this process has spans of its own on which to tell what dead ones dropped."""
        self._takes_over_drops = takes_over_drops
        self._config = config
        self._spool = spool
        self._resource = resource
        self._backend = Backend(config, scope)
        self._address = credential_free(config.traces_url)
        self._jitter = random.Random()  # noqa: S311 - spreads retries; the host's shared generator is left alone
        self._wake = threading.Event()
        self._hurry = threading.Event()
        """Set while somebody waits for the delivery."""
        self._settled = threading.Condition()
        self._stopping = False
        self._markers: list[bytes] = []
        self._markers_on = config.starts_url is not None
        self._open: dict[int, Start] = {}
        self._open_lock = threading.Lock()
        self._beats: Sequence[Callable[[], None]] = ()
        self._next_heartbeat = 0.0
        self._beat_at = 0
        self._next_scan = 0.0
        self._scanned = threading.Event()
        """Set once what dead processes left has been looked for."""
        self._drops = DropLog(spool.directory, spool.name)
        self._drops_told = 0
        self._retry_at = 0.0
        self._failures = 0
        self._server_failures = 0
        self._round = 0
        """Attempts at the network so far; `wait_empty` uses it to see that one was made and failed."""
        self._max_spans = BATCH_MAX_SPANS
        self._thread = threading.Thread(target=guard.guarded(self._run), name="loopscope-exporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- called by the worker ---

    def mark(self, encoded: Sequence[bytes]) -> None:
        """Send these start markers soon."""
        if not self._markers_on or self._backend.kind is Kind.FOREIGN:
            return
        room = MARKERS_MAX - len(self._markers)
        if len(encoded) > room:
            guard.count("markers_dropped", len(encoded) - max(room, 0))
        self._markers += encoded[: max(room, 0)]
        self._wake.set()

    def opened(self, start: Start) -> None:
        """Send this start's marker again, every 5 s, until `closed`."""
        with self._open_lock:
            if not self._open:
                self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            self._open[start.span_id] = start
        self._wake.set()

    def closed(self, span_id: int) -> int:
        """No heartbeat from now on; when the last was sent, in Unix ns, of whatever span (0: none was)."""
        with self._open_lock:
            self._open.pop(span_id, None)
            return self._beat_at

    def every_beat(self, work: Sequence[Callable[[], None]]) -> None:
        """Have these done at each heartbeat; more may come."""
        self._beats = work

    def wake(self) -> None:
        self._wake.set()

    # --- called by whoever flushes ---

    def wait_empty(self, deadline: float, *, give_up_when_away: bool) -> bool:
        """Wait until the spool is empty; with `give_up_when_away` only until an attempt fails."""
        self._retry_at = 0.0
        begun = self._round
        self._hurry.set()
        self._wake.set()
        if not self._scanned.wait(max(deadline - time.monotonic(), 0.0)):
            return False
        with self._settled:
            while self._spool.spans_held:
                if give_up_when_away and self._round > begun and self._failures:
                    return False
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._settled.wait(min(left, 0.2))
        self._hurry.clear()
        return True

    def stop(self, timeout: float) -> None:
        self._stopping = True
        self._hurry.set()
        self._wake.set()
        if timeout > 0 and self._thread.is_alive():
            self._thread.join(timeout)

    def abandon_after_fork(self) -> None:
        """In a forked child: the parent's file is the parent's alone. Takes no lock."""
        self._drops.close()

    # --- the thread ---

    def _run(self) -> None:
        guard.guarded(_leave_no_traces)()
        while not self._stopping:
            try:
                self._wake.wait(self._patience())
                self._wake.clear()
                if self._stopping:
                    break
                self._beat()
                self._send_markers()
                self._scan()
                self._scanned.set()
                self._hurry.wait(LINGER_SECONDS)
                self._send_markers()
                self._deliver()
                self._note_drops()
            except Exception as error:
                if guard.reraise:
                    raise
                guard.swallowed("loopscope exporter", error)
                self._retry_at = time.monotonic() + MAX_BACKOFF_SECONDS
                time.sleep(FIRST_BACKOFF_SECONDS)  # whatever fails, fails slowly
            finally:
                self._scanned.set()
        for leave in (self._note_drops, self._drops.close, self._backend.close):
            try:
                leave()
            except Exception as error:
                if guard.reraise:
                    raise
                guard.swallowed("loopscope exporter's end", error)
        with self._settled:
            self._settled.notify_all()

    def _patience(self) -> float:
        now = time.monotonic()
        until = self._next_scan
        if self._open:
            until = min(until, self._next_heartbeat)
        if self._spool.spans_held:
            until = min(until, self._retry_at)
        return max(until - now, 0.0)

    def _beat(self) -> None:
        now = time.monotonic()
        if not self._open or now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_SECONDS
        for work in list(self._beats):
            work()
        with self._open_lock:
            starts = list(self._open.values())
            self._beat_at = time.time_ns()
        self.mark([marker(start, self._beat_at) for start in starts])

    def _send_markers(self) -> None:
        if not self._markers or not self._markers_on or self._config.starts_url is None:
            return
        markers, self._markers = self._markers, []
        answer = self._backend.send_markers(self._resource(), markers)
        if answer is None:
            return  # another backend: they are not for it
        if answer.ok:
            guard.count("markers_sent", len(markers))
        elif answer.says_nothing or answer.status >= 500:
            guard.count("markers_lost", len(markers))  # best effort: the finished span says it all
        else:
            self._markers_on = False
            guard.warn_once(
                "markers",
                "loopscope: %s answers %d; start markers are off (only Loopscope's collector takes them)",
                self._config.starts_url,
                answer.status,
            )

    def _deliver(self) -> None:
        while not self._stopping and time.monotonic() >= self._retry_at:
            batch = self._spool.next_batch(BATCH_MAX_BYTES, self._max_spans)
            if not batch:
                break
            try:
                done = self._send(batch)
            except Exception:
                self._spool.release(batch)
                raise
            self._round += 1
            with self._settled:
                self._settled.notify_all()
            if not done:
                break
            self._send_markers()

    def _send(self, batch: list[Frame]) -> bool:
        """One attempt at one batch; False when it has to wait."""
        segment = batch[0].segment
        own = segment.resource == self._spool.resource
        dropped = _dropped()
        resource = self._resource() if own else segment.resource
        spans = [segment.parts(frame) for frame in batch]
        answer = self._backend.send_spans(resource, spans)
        if answer.ok:
            self._failures = self._server_failures = 0
            self._max_spans = BATCH_MAX_SPANS
            guard.count("spans_delivered", len(batch))
            if own:
                self._drops_told = dropped
            if rejected := rejected_spans(answer):
                guard.count("spans_rejected", rejected)
            self._spool.settle(batch)
            return True
        if answer.says_nothing or answer.wants_key or answer.status >= 500:
            if not answer.says_nothing and not answer.wants_key:
                self._server_failures += 1
            if self._server_failures < MAX_SERVER_FAILURES:
                self._back_off(answer)
                self._spool.release(batch)
                return False
        self._refused(batch, spans, answer)
        return True

    def _back_off(self, answer: Answer) -> None:
        self._failures += 1
        guard.count("export_failures")
        guard.warn_once(
            "export",
            "loopscope: the collector at %s does not take spans (%s %s%s); they wait in the spool",
            self._address,
            answer.status or "no answer:",
            answer.reason,
            ": check LOOPSCOPE_API_KEY or the headers" if answer.wants_key else "",
        )
        wait = answer.retry_after
        if wait is None:
            ceiling = min(FIRST_BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10), MAX_BACKOFF_SECONDS)
            wait = ceiling * self._jitter.uniform(0.5, 1.0)
        self._retry_at = time.monotonic() + wait

    def _refused(self, batch: list[Frame], spans: list[Sequence[bytes]], answer: Answer) -> None:
        """Refused for good. One bad span must not take its neighbours along: halve until it stands alone."""
        if len(batch) > 1 and answer.status in (400, 413, 422, 500):
            self._max_spans = max(len(batch) // 2, 1)
            self._spool.release(batch)
            return
        self._server_failures = 0
        guard.count("spans_rejected", len(batch))
        guard.warn_once(
            f"rejected-{answer.status}",
            "loopscope: the collector refused %d span(s) for good: %d %s %r; they are set aside in %s",
            len(batch),
            answer.status,
            answer.reason,
            answer.body[:200],
            self._config.spool_dir,
        )
        _set_aside(self._spool.directory, batch[0].segment.resource, spans, answer)
        self._spool.settle(batch)

    def _note_drops(self) -> None:
        self._drops.note(_dropped(), self._drops_told)

    def _scan(self) -> None:
        now = time.monotonic()
        if now >= self._next_scan:
            self._next_scan = now + ORPHAN_SCAN_SECONDS
            if self._takes_over_drops and (untold := untold_by_dead(self._spool.directory, take=True)):
                guard.count("spans_dropped_by_dead", untold)
                self._note_drops()
            if found := self._spool.adopt_orphans():
                guard.count("spans_recovered", found)
                self._wake.set()


def _dropped() -> int:
    """What the resource of this process' spans says was dropped: by it, and by the dead whose count it took over."""
    counts = guard.counts()
    return counts.get("spans_dropped", 0) + counts.get("spans_dropped_by_dead", 0)


def _set_aside(directory: Path | None, resource: bytes, spans: list[Sequence[bytes]], answer: Answer) -> None:
    """Write refused spans in the spool's own format under `rejected/`, and the reason beside them."""
    if directory is None:
        return
    rejected = directory / "rejected"
    try:
        rejected.mkdir(mode=0o700, exist_ok=True)
        name = f"{time.time_ns()}-{answer.status}"
        segment = Segment.create(rejected, name, resource)
        for span in spans:
            segment.append(span)
        segment.close()
        reason = f"{answer.status} {answer.reason}\n".encode() + answer.body[:4096]
        (rejected / f"{name}.reason.txt").write_bytes(reason)
        _bound(rejected)
    except OSError as error:
        guard.warn_once("rejected", "loopscope: refused spans could not be set aside: %s", error)


def _bound(rejected: Path) -> None:
    files = sorted(rejected.glob(f"*{SUFFIX}"))
    total = sum(path.stat().st_size for path in files)
    while total > REJECTED_MAX_BYTES and len(files) > 1:
        oldest = files.pop(0)
        total -= oldest.stat().st_size
        guard.count("rejected_files_removed")
        oldest.unlink(missing_ok=True)
        oldest.with_name(oldest.name.removesuffix(SUFFIX) + ".reason.txt").unlink(missing_ok=True)


def _leave_no_traces() -> None:
    """What this thread sends must not be recorded by the host's own HTTP instrumentation."""
    with forks.importing:
        from opentelemetry import context

    context.attach(context.set_value("suppress_instrumentation", True))

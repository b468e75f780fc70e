"""From the host's threads to the spool: a bounded queue, and the worker that has each span written (`span_writer`).

The host's thread only puts a reference on the queue. Every span that cannot be kept is counted, and the count is told
to the collector (`loopscope.dropped.spans`). Threads start with the first item, so that a process that records nothing
(many forked children) has none.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from loopscope_schemas import attributes as at

from . import guard
from .config import QUEUE_MAX_ITEMS, Config
from .endpoints import credential_free
from .host_spans import HostSpans, current_host_context
from .spool import ADDRESS, directory_for

if TYPE_CHECKING:
    from .delivery import Exporter
    from .recording import Recording, Start
    from .span_writer import SpanWriter
    from .spool import Spool

COALESCE_SECONDS = 0.2
"""The worker waits this long after its first item: what comes meanwhile wakes nobody and is handled with it, a span
that ends meanwhile needs no start marker, and a call that returns just then has no competition. What a `kill -9` may
lose is what the last second produced, so this must stay well below one."""
SOON_SECONDS = 0.01
"""As long it waits where an answer must be read before the next call; no competition for a call that just returns."""
HURRY_SHARE = 8
"""The worker waits no longer once this part (1/8) of the memory it may hold is taken."""
BUSY_QUEUE_ITEMS = 200
"""With more than this waiting, the worker does not pause."""
SMALL_ITEM_BYTES = 2_000
"""What a span without content is taken to hold."""


class _Started(NamedTuple):
    start: Start
    heartbeat: bool
    host_parent: Any = None
    """The host's own span above this one, where the host's pipeline gets a copy."""


class _Ended(NamedTuple):
    recording: Recording
    size: int


class _Work(NamedTuple):
    do: Callable[[], None]


class _Barrier:
    """Set once the worker has handled everything queued before it."""

    def __init__(self) -> None:
        self.reached = threading.Event()


class _Stop:
    """The worker's last item; what is in the spool then may still be delivered for this long."""

    def __init__(self, deliver_seconds: float) -> None:
        self.deliver_seconds = deliver_seconds


class Pipeline:
    def __init__(self, config: Config, process_id: str, version: str) -> None:
        self._config = config
        self._process_id = process_id
        self._version = version
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._hurry = threading.Event()
        """Set when somebody waits for the worker, or much is queued."""
        self._soon = False
        """Whether the hurry is about an answer that is to be read."""
        # Reentrant: the garbage collector may end an abandoned stream, and so a span, anywhere on this thread.
        self._lock = threading.RLock()
        self._queued_bytes = 0
        self._queued_items = 0
        self._worker: threading.Thread | None = None
        self._spool: Spool | None = None
        self._exporter: Exporter | None = None
        self._hurry_bytes = config.memory_max_bytes // HURRY_SHARE
        self._closed = False
        self._handling = False
        self._own: deque[Any] = deque()
        """What the worker itself found to do: done at once, so that a flush that waits for what led to it has it."""
        self._beats: list[Callable[[], None]] = []
        self._prices_asked = False
        self._host_spans: HostSpans | None = None
        if config.host_spans != "off":
            self._host_spans = HostSpans(version, content=config.host_spans == "full")
        self._directory: Path | None = None
        if config.spool_dir is not None:
            self._directory = directory_for(config.spool_dir, config.traces_url)

    # --- called by the host's threads ---

    def started(self, start: Start, *, heartbeat: bool) -> None:
        """A span began."""
        host_parent = current_host_context(start) if self._host_spans is not None else None
        self._put(_Started(start, heartbeat, host_parent), SMALL_ITEM_BYTES, spans=0)

    def later(self, work: Callable[[], None]) -> None:
        """Have the worker do something, once it has handled what was queued before."""
        self._put(_Work(work), SMALL_ITEM_BYTES, spans=0)

    def silence(self, span_id: int) -> int:
        """No heartbeat of this span from now on; when the last of any span was sent, in Unix ns (0: none was)."""
        return self._exporter.closed(span_id) if self._exporter is not None else 0

    def every_beat(self, work: Callable[[], None]) -> None:
        """Have something done every few seconds while a run is open."""
        self._beats.append(work)

    def finished(self, recording: Recording) -> bool:
        """A span ended; False when it cannot be kept."""
        payload = recording.payload
        size = SMALL_ITEM_BYTES + payload.size
        if payload.texts:
            size += sum(map(len, payload.texts.values()))
        if payload.bodies:
            size += sum(map(len, payload.bodies.values()))
        guard.count("spans_recorded")
        kept = self._put(_Ended(recording, size), size, spans=1)
        if payload.awaited:
            self._soon = True
            self._hurry.set()
        return kept

    def _put(self, item: object, size: int, *, spans: int) -> bool:
        with self._lock:
            # One span of any size passes an empty queue: a bound must not make the largest request unrecordable.
            full = self._queued_items >= QUEUE_MAX_ITEMS or (
                self._queued_items and self._queued_bytes + size > self._config.memory_max_bytes
            )
            if full or self._closed:
                if spans:
                    guard.count("spans_dropped", spans)
                    guard.warn_once("queue", "loopscope: spans come faster than they can be kept; some are dropped")
                return False
            self._queued_bytes += size
            self._queued_items += 1
            if self._worker is None:
                self._start_threads()
            if self._queued_items == BUSY_QUEUE_ITEMS or self._queued_bytes > self._hurry_bytes:
                self._hurry.set()
        if self._handling and threading.current_thread() is self._worker:
            self._own.append(item)
        else:
            self._queue.put(item)
        return True

    def _start_threads(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=guard.guarded(self._work), name="loopscope-worker", daemon=True)
            self._worker.start()

    def recover_orphans(self) -> None:
        """Start the threads when an earlier process left spans behind."""
        if self._directory is not None and self._directory.is_dir() and any(self._directory.glob("*.spool")):
            with self._lock:
                self._start_threads()

    def flush(self, timeout: float, *, give_up_when_away: bool = False) -> bool:
        """Wait until everything so far is delivered; False when it is not in time, or was dropped or refused
        meanwhile."""
        if self._worker is None:
            return True
        deadline = time.monotonic() + timeout
        lost = self._lost()
        barrier = _Barrier()
        self._queue.put(barrier)
        self._hurry.set()
        if not barrier.reached.wait(max(deadline - time.monotonic(), 0.0)) or self._exporter is None:
            return False
        empty = self._exporter.wait_empty(deadline, give_up_when_away=give_up_when_away)
        if self._host_spans is not None:
            self._host_spans.wait(deadline - time.monotonic())
        return empty and self._lost() == lost

    def settle(self, timeout: float) -> bool:
        """Wait until the worker has read everything so far, delivered or not; False when it has not in time."""
        if self._worker is None:
            return True
        barrier = _Barrier()
        self._queue.put(barrier)
        self._hurry.set()
        return barrier.reached.wait(timeout)

    @staticmethod
    def _lost() -> int:
        counts = guard.counts()
        return counts.get("spans_dropped", 0) + counts.get("spans_rejected", 0)

    @property
    def busy(self) -> bool:
        """Whether the worker still runs."""
        return self._worker is not None and self._worker.is_alive()

    def close(self, timeout: float, *, deliver_seconds: float = 0.0) -> None:
        """Take nothing more; what is queued goes to the spool and, in the background, to the collector if it is there.

        Waits at most `timeout` seconds for that; what is not delivered stays in the spool for the next process.
        """
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            self._queue.put(_Stop(deliver_seconds))
            self._hurry.set()
            if timeout > 0:
                worker.join(timeout)

    def abandon_after_fork(self) -> None:
        """In a forked child: none of this is ours."""
        if self._spool is not None:
            self._spool.abandon_after_fork()
        if self._exporter is not None:
            self._exporter.abandon_after_fork()

    def gauges(self) -> dict[str, int]:
        spool = self._spool
        return {
            "queue_spans": self._queued_items,
            "queue_bytes": self._queued_bytes,
            "spool_spans": spool.spans_held if spool else 0,
            "spool_bytes": spool.bytes_held if spool else 0,
        }

    # --- the worker ---

    def _work(self) -> None:
        try:
            self._run()
        finally:
            # Whatever ended it: nothing more is kept, and whoever waits is told so.
            with self._lock:
                self._closed = True
            self._fail([])

    def _fail(self, items: list[Any]) -> _Stop | None:
        """What could not be handled, and what is queued when the worker has ended, is lost: counted, nobody waits."""
        try:
            while self._closed:
                items.append(self._queue.get_nowait())
        except Empty:
            pass
        stop: _Stop | None = None
        for item in items:
            if isinstance(item, _Barrier):
                item.reached.set()
            elif isinstance(item, _Stop):
                stop = item
            elif item is not None:
                with self._lock:
                    self._queued_items -= 1
                    self._queued_bytes -= item.size if isinstance(item, _Ended) else SMALL_ITEM_BYTES
                if isinstance(item, _Ended):
                    guard.count("spans_dropped")
        return stop

    def _run(self) -> None:
        from . import forks

        with forks.importing:
            from .delivery import Exporter
            from .encoding import resource, scope
            from .redaction import Scrubber
            from .rule_search import RuleSet
            from .span_writer import SpanWriter
            from .spool import Spool

        if self._directory is not None:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._directory / ADDRESS).write_text(credential_free(self._config.traces_url) + "\n", "utf-8")
            except OSError as error:
                guard.warn_once("spool", "loopscope: cannot create the spool (%s); spans wait in memory", error)
                self._directory = None
        name = f"{time.time_ns()}-{self._process_id}"
        self._spool = Spool(self._directory, name, resource(self._resource_attributes()), self._config.spool_max_bytes)
        self._exporter = exporter = Exporter(
            self._config, self._spool, scope(self._version), lambda: resource(self._resource_attributes())
        )
        exporter.every_beat(self._beats)
        exporter.start()
        exporter.wake()
        scrubber = Scrubber(
            credentials=self._config.redact, rules=RuleSet(self._config.redact_rules, self._config.redact_pii)
        )
        writer = SpanWriter(self._config, self._version, self._spool, scrubber, self._host_spans, busy=self._is_busy)
        stop: _Stop | None = None
        while stop is None:
            items = [self._queue.get()]
            if not isinstance(items[0], _Barrier | _Stop):
                self._hurry.wait(COALESCE_SECONDS)
                if self._soon:
                    time.sleep(SOON_SECONDS)
            self._soon = False
            self._hurry.clear()
            try:
                while True:
                    items.append(self._queue.get_nowait())
            except Empty:
                pass
            try:
                stop = self._handle(items, exporter, writer)
            except Exception as error:
                if guard.reraise:
                    raise
                guard.swallowed("loopscope worker's round", error)
                self._handling = False
                stop = self._fail(items)
        if stop.deliver_seconds:
            exporter.wait_empty(time.monotonic() + stop.deliver_seconds, give_up_when_away=True)
        exporter.stop(1.0)
        self._spool.close()

    def _handle(self, items: list[Any], exporter: Exporter, writer: SpanWriter) -> _Stop | None:
        from .encoding import marker

        ended = {item.recording.start.span_id for item in items if isinstance(item, _Ended)}
        starts = [item for item in items if isinstance(item, _Started)]
        # A span that ended in the meantime needs no marker any more.
        waiting = [item for item in starts if item.start.span_id not in ended]
        try:
            starting = [writer.cleaned(item.start) for item in waiting]
            for item, start in zip(waiting, starting, strict=True):
                if item.heartbeat:
                    exporter.opened(start)
            exporter.mark([marker(start) for start in starting])
        except Exception as error:  # noqa: BLE001 - a marker is best effort
            guard.swallowed("loopscope start marker", error)
        self._begin_in_host(starts, writer)
        with self._lock:
            self._queued_items -= len(starts)
            self._queued_bytes -= SMALL_ITEM_BYTES * len(starts)
        items[:] = [item for item in items if not isinstance(item, _Started)]
        if not self._prices_asked and any(item.start.attributes.get(at.OPERATION_NAME) == "chat" for item in starts):
            self._prices_asked = True
            threading.Thread(target=guard.guarded(_import_prices), name="loopscope-prices", daemon=True).start()
        stop: _Stop | None = None
        self._handling = True
        for index, item in enumerate(items):
            if isinstance(item, _Barrier):
                item.reached.set()
            elif isinstance(item, _Stop):
                stop = item
            else:
                self._handle_one(item, exporter, writer)
            items[index] = None  # the bodies go as soon as they are written
        self._handling = False
        guard.guarded(exporter.wake)()  # what was written is written, whatever this does
        return stop

    def _handle_one(self, item: object, exporter: Exporter, writer: SpanWriter) -> None:
        self._own.append(item)
        while self._own:
            item = self._own.popleft()
            if isinstance(item, _Work):
                self._do(item)
            elif isinstance(item, _Ended):
                self._keep(item, exporter, writer)
            elif isinstance(item, _Started):
                self._queue.put(item)

    def _do(self, item: _Work) -> None:
        try:
            item.do()
        except Exception as error:  # noqa: BLE001 - what was to be found out is not; the spans are kept
            guard.swallowed("loopscope worker's inference", error)
        finally:
            with self._lock:
                self._queued_items -= 1
                self._queued_bytes -= SMALL_ITEM_BYTES

    def _begin_in_host(self, starts: list[_Started], writer: SpanWriter) -> None:
        if self._host_spans is None:
            return
        for item in starts:
            try:
                self._host_spans.began(writer.cleaned(item.start), item.host_parent)
            except Exception as error:  # noqa: BLE001 - a copy is best effort
                guard.swallowed("loopscope host spans", error)

    def _keep(self, item: _Ended, exporter: Exporter, writer: SpanWriter) -> None:
        try:
            exporter.closed(item.recording.start.span_id)
            writer.write(item.recording)
        except Exception as error:  # noqa: BLE001 - one span that cannot be written must not end the worker
            guard.count("spans_dropped")
            guard.swallowed("loopscope worker", error)
        finally:
            with self._lock:
                self._queued_items -= 1
                self._queued_bytes -= item.size

    def _is_busy(self) -> bool:
        return self._queued_items >= BUSY_QUEUE_ITEMS

    def _resource_attributes(self) -> dict[str, Any]:
        config = self._config
        attributes: dict[str, Any] = {
            **config.resource_attributes,
            at.SERVICE_NAME: config.service_name,
            at.SERVICE_INSTANCE_ID: self._process_id,
            at.PROCESS_ID: self._process_id,
            at.PROCESS_PID: os.getpid(),
            at.HOST_NAME: socket.gethostname(),
            at.SDK_VERSION: self._version,
        }
        if config.agent_version:
            attributes[at.SERVICE_VERSION] = config.agent_version
        if config.environment:
            attributes[at.DEPLOYMENT_ENVIRONMENT] = config.environment
        counts = guard.counts()
        if dropped := counts.get("spans_dropped", 0) + counts.get("spans_dropped_by_dead", 0):
            attributes[at.DROPPED_SPANS] = dropped
        return attributes


def _import_prices() -> None:
    """While the first LLM call is under way: the list takes half a second, and its span should not wait that long."""
    from . import forks

    try:
        with forks.importing:
            import genai_prices  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except Exception as error:  # noqa: BLE001 - without it costs are unknown, all else works
        guard.swallowed("loopscope import of the price list", error)

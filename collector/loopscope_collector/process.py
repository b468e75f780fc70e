"""The process of `loopscope up`: receiver, queue, engine or server, writer, dashboards; their start and their end.

The command line builds `CollectorSettings` and calls `run_collector`. What listens is bound before anything is started,
so that a taken port costs nothing; data is accepted as soon as the queue is open, also while the store still starts.
"""

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Final
from urllib.parse import quote

from loopscope_collector.dashboard_process import (
    DashboardError,
    DashboardProcess,
    check_installed,
    default_command,
    reserve_port,
)
from loopscope_collector.engine import EngineError, EngineProcess
from loopscope_collector.ingest import Ingest
from loopscope_collector.keys import KeysError, is_loopback, require_keys
from loopscope_collector.metrics import Metrics
from loopscope_collector.process_writer import WriterLoop
from loopscope_collector.queue import DurableQueue, QueueHeldError
from loopscope_collector.receiver import PortTakenError, Readiness, Receiver, ReceiverServer, bind_listener
from loopscope_collector.receiver.requests import Limits
from loopscope_collector.receiver.serving import url_of
from loopscope_collector.settings import CollectorSettings
from loopscope_collector.store import Store, StoreRefused, StoreUnavailable
from loopscope_schemas import migrate
from loopscope_schemas.dsn import DsnError, EmbeddedDsn, ServerDsn, parse_dsn

CANNOT_START: Final = 2
"""Exit code when the settings, a port, the data directory or the store make a start impossible."""

DashboardCommand = Callable[[str, int], Sequence[str]]

_STORE_RETRY_SECONDS: Final = 1.0
_CARE_SECONDS: Final = 1.0
_DENIED: Final = ("AUTHENTICATION_FAILED", "Code: 516", "REQUIRED_PASSWORD")

log = logging.getLogger("loopscope.process")


class StartError(Exception):
    """The collector cannot start. The message is one line for the person who started it."""


_REASONS: Final = (
    StartError,
    KeysError,
    DsnError,
    PortTakenError,
    QueueHeldError,
    EngineError,
    DashboardError,
    StoreRefused,
    migrate.MigrationError,
)


def run_collector(settings: CollectorSettings, *, dashboard_command: DashboardCommand = default_command) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code: 0 after a drain, 2 when it cannot start.

    Prints `otlp-http URL`, `clickhouse URL` and `dashboard URL`, each when it is ready. Call from the main thread.
    """
    _log_to_stderr()
    stopping = threading.Event()
    with _signals(stopping):
        collector = _Collector(settings, dashboard_command, stopping)
        try:
            collector.start()
            while not stopping.wait(_CARE_SECONDS):
                collector.care()
        except _REASONS as error:
            print(f"loopscope: {error}", file=sys.stderr, flush=True)
            return CANNOT_START
        except OSError as error:
            print(f"loopscope: {error}; check the data directory {settings.data_dir}", file=sys.stderr, flush=True)
            return CANNOT_START
        finally:
            collector.stop()
    return 0


class _Collector:
    """Everything that runs; each part exists once it was started."""

    def __init__(self, settings: CollectorSettings, command: DashboardCommand, stopping: threading.Event) -> None:
        self._settings = settings
        self._command = command
        self._stopping = stopping
        self._metrics = Metrics()
        self._queue: DurableQueue | None = None
        self._receiver: ReceiverServer | None = None
        self._engine: EngineProcess | None = None
        self._writer: WriterLoop | None = None
        self._dashboard: DashboardProcess | None = None
        self._started_at = time.time()

    def start(self) -> None:
        """Start part after part. Raises one of _REASONS; `stop` ends what was started."""
        settings = self._settings
        dsn = _dsn_of(settings)
        self._check_keys(dsn)
        dashboard_port = 0
        if settings.dashboard:
            check_installed()
            dashboard_port = reserve_port(settings.bind, settings.dashboard_port)
        listener = bind_listener(settings.bind, settings.otlp_http_port, flag="--otlp-http-port")
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._queue = self._open_queue()
        except BaseException:
            listener.close()
            raise
        self._receiver = ReceiverServer(self._make_receiver(self._queue), listener).start()
        _announce("otlp-http", url_of(settings.bind, self._receiver.port))

        if isinstance(dsn, EmbeddedDsn):
            dsn, readers_dsn = self._start_engine(dsn)
        else:
            readers_dsn = settings.dsn.get_secret_value() if settings.dsn else ""
        store = Store(dsn)
        if not self._migrate(store):
            return
        self._writer = WriterLoop(
            self._queue,
            Ingest(
                store,
                retention_days=settings.retention_days,
                crash_after_seconds=settings.crash_after_seconds,
                metrics=self._metrics,
            ),
            probe=lambda: store.query("SELECT 1"),
            metrics=self._metrics,
            on_check=self._measure,
        )
        self._writer.start()
        if settings.dashboard:
            environment = {"LOOPSCOPE_DSN": readers_dsn, "LOOPSCOPE_READ_KEYS": ",".join(settings.read_key_texts())}
            self._dashboard = DashboardProcess(
                settings.bind, dashboard_port, environment=environment, command=self._command
            )
            self._dashboard.start()
            if self._dashboard.wait_ready(self._stopping):
                _announce("dashboard", self._dashboard.url)

    def care(self) -> None:
        """From the main thread, every second: start again what ended by itself. Raises StartError if that cannot be."""
        if self._dashboard is not None:
            self._dashboard.keep_alive()
        if self._receiver is not None and not self._receiver.is_alive:
            raise StartError("the receiver ended; see the lines above")

    def stop(self) -> None:
        """Drain and end everything, in the order in which data flows. What is not stored stays in the queue."""
        if self._receiver is not None:
            self._receiver.stop()
        if self._queue is not None:
            self._queue.close_intake()
        if self._writer is not None:
            if not self._writer.drain(self._settings.drain_seconds):
                log.warning("what the store did not take yet is kept in %s", self._settings.queue_dir)
            self._writer.stop()
        if self._dashboard is not None:
            self._dashboard.stop()
        if self._engine is not None:
            self._engine.stop()
        if self._queue is not None:
            self._queue.close()

    def _check_keys(self, dsn: EmbeddedDsn | ServerDsn) -> None:
        settings = self._settings
        needed: dict[str, Sequence[Any]] = {"LOOPSCOPE_INGEST_KEYS": settings.ingest_keys}
        if settings.dashboard or isinstance(dsn, EmbeddedDsn):
            needed["LOOPSCOPE_READ_KEYS"] = settings.read_keys
        require_keys(settings.bind, needed)

    def _open_queue(self) -> DurableQueue:
        settings = self._settings
        return DurableQueue(
            settings.queue_dir,
            max_bytes=settings.queue_max_bytes,
            segment_max_bytes=settings.segment_max_bytes,
            segment_max_age_seconds=settings.segment_max_age_seconds,
            dead_letter_max_bytes=settings.dead_letter_max_bytes,
            metrics=self._metrics,
        )

    def _make_receiver(self, queue: DurableQueue) -> Receiver:
        settings = self._settings
        return Receiver(
            queue,
            limits=Limits(settings.max_body_bytes, settings.max_decompressed_bytes, settings.max_request_spans),
            metrics=self._metrics,
            ingest_keys=settings.ingest_key_texts(),
            read_keys=settings.read_key_texts(),
            readiness=self._readiness,
            inflight_max_bytes=settings.inflight_max_bytes,
            body_idle_seconds=settings.body_idle_seconds,
        )

    def _start_engine(self, dsn: EmbeddedDsn) -> tuple[ServerDsn, str]:
        """Start the engine; returns the writer's address of it and the readers'."""
        settings = self._settings
        engine = EngineProcess(
            dsn.path,
            host=settings.bind,
            port=settings.clickhouse_port,
            write_secret=secrets.token_urlsafe(32),
            read_keys=settings.read_key_texts(),
            on_restart=lambda _reason: self._metrics.count("engine_restarts"),
        )
        self._engine = engine
        engine.start()
        engine.watch()
        self._metrics.count("engine_restarts", 0)
        _announce("clickhouse", url_of(settings.bind, engine.port))
        writers = parse_dsn(engine.write_dsn)
        if not isinstance(writers, ServerDsn):
            raise StartError("the engine gave an address that is no server's")
        key = next(iter(settings.read_key_texts()), "")
        host = settings.bind if is_loopback(settings.bind) else "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        return writers, f"clickhouse://default:{quote(key, safe='')}@{host}:{engine.port}/{writers.database}"

    def _migrate(self, store: Store) -> bool:
        """Bring the schema up to date, waiting for a server that is not up yet; False when told to stop meanwhile."""
        target = migrate.Target(store.database, store.cluster, self._settings.retention_days)
        said = False
        while not self._stopping.is_set():
            try:
                applied = migrate.apply(store.query, store.command, target)
                if applied:
                    log.info("applied %d migrations, up to %s", len(applied), applied[-1])
                return True
            except StoreUnavailable as error:
                if any(word in str(error) for word in _DENIED):
                    raise StartError(f"the store refuses this user and password: {error}") from error
                if not said:
                    log.warning("%s; waiting for it, what arrives is kept in the queue", error)
                    said = True
                self._stopping.wait(_STORE_RETRY_SECONDS)
        return False

    def _readiness(self) -> Readiness:
        writer = self._writer
        problem = "the store is being prepared" if writer is None else writer.store_error
        if writer is not None and not writer.is_alive:
            problem = "the writer ended"
        detail: dict[str, Any] = {"store": problem or "ok", "uptime_seconds": round(time.time() - self._started_at, 1)}
        if self._engine is not None:
            detail["engine_restarts"] = self._engine.restarts
        return Readiness(problem is None, detail)

    def _measure(self) -> None:
        self._metrics.gauge("collector_resident_bytes", _resident_bytes())
        if self._engine is not None:
            self._metrics.gauge("engine_resident_bytes", self._engine.memory_bytes())


def _dsn_of(settings: CollectorSettings) -> EmbeddedDsn | ServerDsn:
    return parse_dsn(settings.dsn.get_secret_value()) if settings.dsn else EmbeddedDsn(settings.store_dir)


def _announce(what: str, url: str) -> None:
    print(f"{what} {url}", flush=True)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  (every two seconds: the plain way)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0  # not Linux: unknown


@contextlib.contextmanager
def _signals(stopping: threading.Event) -> Generator[None]:
    """SIGINT, SIGTERM or SIGHUP asks for a drain; a SIGINT after that ends the process where it is."""

    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True  # at once: the next signal may interrupt this very handler
            # In a thread of its own: the interrupted code may hold the event's lock.
            threading.Thread(target=stopping.set, name="loopscope-stop", daemon=True).start()
        elif number == signal.SIGINT:
            os._exit(130)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # What is left is the end of the process: a Ctrl-C too many must not turn it into a traceback and a failure.
            signal.signal(number, signal.SIG_IGN if handler is signal.default_int_handler else handler)


def _log_to_stderr() -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="loopscope: %(levelname)s %(message)s")

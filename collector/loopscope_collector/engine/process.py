"""The parent's side of the engine: start the child, watch it, start it again, stop it.

Called by the collector. Imports neither chDB nor the server: everything else is said over HTTP.
"""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from loopscope_collector.engine.config import DATABASE, WRITER_USER, EngineConfig

START_SECONDS = 60.0
STOP_SECONDS = 45.0
RESTART_PAUSE_SECONDS = 0.2
WATCH_SECONDS = 0.25
MAX_PAUSE_SECONDS = 10.0

log = logging.getLogger("loopscope.engine")


class EngineError(Exception):
    """The engine could not be started or did not stay up; the text says what to do."""


class EngineProcess:
    """One engine child on one data directory."""

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8123,
        write_secret: str,
        read_keys: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        on_restart: Callable[[str], None] | None = None,
    ) -> None:
        """`port` 0 takes a free one, which restarts keep. `options` are further fields of `EngineConfig`.

        `on_restart` is called from the watching thread with the reason for each restart.
        """
        if not write_secret:
            message = (
                "the engine needs a write secret: pass one made for this start, as secrets.token_urlsafe(32) makes it"
            )
            raise EngineError(message)
        self._config = EngineConfig(
            data_dir=Path(data_dir).absolute(),
            host=host,
            port=port,
            write_secret=write_secret,
            read_keys=tuple(read_keys),
            **(options or {}),
        )
        self._on_restart = on_restart
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self.restarts = 0

    def start(self) -> Self:
        """Start the child and wait until it answers. Raises EngineError: port taken, directory held, ..."""
        with self._lock:
            self._stopping.clear()
            self._launch()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on; after `start`."""
        return self._config.port

    @property
    def address(self) -> str:
        """`host:port`."""
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return f"{host}:{self._config.port}"

    @property
    def read_url(self) -> str:
        """For people and Grafana; holds no secret."""
        return f"http://{self.address}"

    @property
    def write_dsn(self) -> str:
        """For clickhouse-connect, with the write secret. Not for logs."""
        return f"clickhouse://{WRITER_USER}:{quote(self._config.write_secret, safe='')}@{self.address}/{DATABASE}"

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs now."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self.pid is not None

    def memory_bytes(self) -> int:
        """Resident memory of the child, 0 when it does not run or the system does not tell."""
        pid = self.pid
        if pid is None:
            return 0
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def watch(self) -> None:
        """Watch from a thread: a child that died, or outgrew its memory, is started again on the same port."""
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
            self._watcher.start()

    @property
    def data_dir(self) -> Path:
        """Where the engine keeps its data."""
        return self._config.data_dir

    def kill(self) -> None:
        """End the child at once, as a crash would: for tests and for a child that hangs. `watch` starts it again."""
        child = self._child
        if child is not None:
            child.kill()

    def stop(self) -> int | None:
        """End the child: readers' statements are killed, the writer's get some seconds, then the process ends.

        Idempotent. Returns the child's exit code, None when there was none.
        """
        self._stopping.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(STOP_SECONDS)
        with self._lock:
            return self._end_child()

    def _launch(self) -> None:
        read_end, write_end = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "loopscope_collector.engine"],
                stdin=subprocess.PIPE,
                stdout=write_end,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which drains the child
                env=_child_environment(),
            )
        finally:
            os.close(write_end)
        self._child = child
        try:
            assert child.stdin is not None  # noqa: S101 - for the type checker: PIPE was asked for
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(self._config.to_json().encode() + b"\n")
                child.stdin.flush()
            report = _read_report(read_end, child)
        except BaseException:
            self._end_child()
            raise
        finally:
            os.close(read_end)
        if "error" in report:
            self._end_child()
            raise EngineError(str(report["error"]))
        self._config = replace(self._config, port=int(report["port"]))

    def _end_child(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("loopscope engine: pid %d did not end within %g s and is killed", child.pid, STOP_SECONDS)
            child.kill()
            child.wait()
        return child.returncode

    def _watch(self) -> None:
        pause = RESTART_PAUSE_SECONDS
        while not self._stopping.is_set():
            reason = self._reason_to_restart()
            if reason is None:
                self._wait_for_death()
                continue
            log.warning("loopscope engine: %s; starting it again", reason)
            try:
                with self._lock:
                    if self._stopping.is_set():
                        return
                    self._end_child()
                    self._launch()
            except EngineError as error:
                log.error("loopscope engine: restart failed, next try in %g s: %s", pause, error)
                self._stopping.wait(pause)
                pause = min(MAX_PAUSE_SECONDS, pause * 2)
                continue
            pause = RESTART_PAUSE_SECONDS
            self.restarts += 1
            if self._on_restart is not None:
                self._on_restart(reason)

    def _wait_for_death(self) -> None:
        """Return soon after the child's death, or after a while, or soon after `stop`."""
        child = self._child
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(WATCH_SECONDS)

    def _reason_to_restart(self) -> str | None:
        child = self._child
        code = child.poll() if child is not None else None
        if child is None or code is not None:
            return f"the engine process ended with code {code}"
        used = self.memory_bytes()
        if used > self._config.memory_limit_bytes:
            return f"the engine process holds {used >> 20} MiB, more than {self._config.memory_limit_bytes >> 20}"
        return None


def _child_environment() -> dict[str, str]:
    """Our environment without secrets: what the child must know it reads from its pipe."""
    secret = (
        "LOOPSCOPE_INGEST_KEYS",
        "LOOPSCOPE_READ_KEYS",
        "LOOPSCOPE_ADMIN_KEYS",
        "LOOPSCOPE_DSN",
        "ANTHROPIC_API_KEY",
    )
    return {name: value for name, value in os.environ.items() if name not in secret}


def _read_report(fd: int, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The child's one line. Raises EngineError when it ends or keeps silent."""
    line = b""
    deadline = time.monotonic() + START_SECONDS
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise EngineError(
                f"the engine process did not come up within {START_SECONDS:g} s; its log is on standard error"
            )
        if not select.select([fd], [], [], min(left, 0.5))[0]:
            continue
        piece = os.read(fd, 65536)
        if not piece:
            code = child.wait(10)
            raise EngineError(
                f"the engine process ended with code {code} before it was ready; its log is on standard error"
            )
        line += piece
    return json.loads(line)

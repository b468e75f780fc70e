"""`loopscope up` as a user starts it, for journey tests: free ports, a directory of the test's own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import clickhouse_connect

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 60.0


class Collector:
    """A running collector. `addresses` has what it printed: otlp-http, clickhouse and, with dashboards, dashboard."""

    def __init__(
        self, data_dir: Path, *, dashboard: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        self.addresses: dict[str, str] = {}
        self._dashboard = dashboard
        self._errors = data_dir.parent / f"{data_dir.name}.stderr"
        self._command = [
            sys.executable, "-m", "loopscope.cli", "up", "--data-dir", str(data_dir),
            "--otlp-http-port", "0", "--clickhouse-port", "0", "--dashboard-port", "0",
        ]  # fmt: skip
        if not dashboard:
            self._command.append("--no-dashboard")
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start and wait until it has printed all its addresses."""
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment
            )
        assert self._process.stdout is not None
        last = "dashboard" if self._dashboard else "clickhouse"
        for line in self._process.stdout:
            name, _, address = line.strip().partition(" ")
            self.addresses[name] = address
            if name == last:
                return self
        raise AssertionError(f"the collector did not start: {self.errors()}")

    def errors(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text()

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> Any:
        """A reader's clickhouse-connect client."""
        address = urlsplit(self.addresses["clickhouse"])
        return cast(
            "Any", clickhouse_connect.get_client(host=address.hostname, port=address.port or 0, database="loopscope")
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def eventually(wanted: Any, ask: Any, seconds: float = 60.0) -> None:
    """Ask until the answer is the wanted one; fails with the last answer after so many seconds."""
    deadline = time.monotonic() + seconds
    answer = ask()
    while answer != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        answer = ask()
    assert answer == wanted

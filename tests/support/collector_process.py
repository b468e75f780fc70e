"""The whole collector as a real process: started, spoken to over HTTP, stopped or killed."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import clickhouse_connect
import httpx
import psutil
from clickhouse_connect.driver.client import Client

PROGRAM = """
import sys
from loopscope_collector.process import run_collector
from loopscope_collector.settings import CollectorSettings, explain
def streamlit(bind, port):
    app = sys.argv[1]
    return ("-m", "streamlit", "run", app, f"--server.address={bind}", f"--server.port={port}",
            "--server.headless=true", "--browser.gatherUsageStats=false")
try:
    settings = CollectorSettings()
except ValueError as error:
    print(explain(error), file=sys.stderr)
    sys.exit(2)
sys.exit(run_collector(settings, dashboard_command=streamlit))
"""

START_SECONDS = 120.0


class CollectorProcess:
    """A collector in a process of its own. Ports are free ones; dashboards only when `app` is given."""

    def __init__(
        self, data_dir: Path, *, app: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        settings = {
            "LOOPSCOPE_DATA_DIR": str(data_dir),
            "LOOPSCOPE_OTLP_HTTP_PORT": "0",
            "LOOPSCOPE_CLICKHOUSE_PORT": "0",
            "LOOPSCOPE_DASHBOARD_PORT": "0",
            "LOOPSCOPE_DASHBOARD": "true" if app else "false",
            **(environment or {}),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOOPSCOPE_")}
        self.log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `end`)
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(app or "")],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=inherited | settings,
            start_new_session=True,  # a process group to interrupt as a terminal does
        )
        self.addresses: dict[str, str] = {}

    def wait_for(self, *names: str) -> None:
        """Read announcements until these are there."""
        assert self.child.stdout is not None
        while not set(names) <= set(self.addresses):
            line = self.child.stdout.readline()
            assert line, f"the collector ended with {self.child.wait()}: {self.errors()}"
            name, _, url = line.strip().partition(" ")
            self.addresses[name] = url

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        self.log.seek(0)
        return self.log.read()

    def http(self) -> httpx.Client:
        """A client of the receiver."""
        return httpx.Client(base_url=self.addresses["otlp-http"], timeout=60, trust_env=False)

    def reader(self, key: str = "") -> Client:
        """A client of the embedded engine."""
        url = httpx.URL(self.addresses["clickhouse"])
        return clickhouse_connect.get_client(host=url.host, port=url.port, password=key, database="loopscope")

    def wait_until_stored(self) -> None:
        """Wait until the queue is empty and the store answers."""
        deadline = time.monotonic() + START_SECONDS
        with self.http() as client:
            while True:
                state = client.get("/healthz").json()
                if state["ready"] and state["queue_bytes"] == 0:
                    return
                assert time.monotonic() < deadline, f"not stored: {state}; {self.errors()}"
                time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        parent = psutil.Process(self.child.pid)
        return [parent, *parent.children(recursive=True)]

    def interrupt(self, number: int = signal.SIGINT, *, group: bool = False) -> None:
        """Send a signal, to the whole process group as a terminal does if asked."""
        if group:
            os.killpg(self.child.pid, number)
        else:
            self.child.send_signal(number)

    def end(self) -> None:
        """Make sure that nothing is left."""
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = self.family()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.log.close()


@contextmanager
def collector_process(
    data_dir: Path, *, app: Path | None = None, environment: Mapping[str, str] | None = None
) -> Generator[CollectorProcess]:
    """A collector that is gone afterwards."""
    process = CollectorProcess(data_dir, app=app, environment=environment)
    try:
        yield process
    finally:
        process.end()


def wait_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for processes to end; those that did not within a minute."""
    return psutil.wait_procs(processes, timeout=60)[1]

"""Dashboards in a process of their own, the store they read, and the runs that tests of them look for."""

import os
import secrets
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from clickhouse_connect.driver.client import Client

from loopscope_collector.engine import EngineProcess
from loopscope_dashboards.command import streamlit_command
from support.hostile import HOSTILE
from support.recorded_runs import SECOND, Rows, Turn, add_run, run_id_of, support_turns, text, use

READ_KEY = "a-read-key-for-tests"
BIG_CHARS = 10 * 1024 * 1024
START_SECONDS = 90.0


@dataclass(slots=True)
class Store:
    """A running engine and what was put into it."""

    client: Client
    dsn: str
    """For readers."""
    now: int
    """Unix nanoseconds of the seeding."""
    runs: dict[str, str] = field(default_factory=dict[str, str])
    """Run ids by what is special about them."""


def engine_in(folder: Path) -> EngineProcess:
    """An engine of its own on a free port."""
    return EngineProcess(folder, port=0, write_secret=secrets.token_urlsafe(16), read_keys=[READ_KEY])


def read_dsn(engine: EngineProcess) -> str:
    """What the dashboards are started with."""
    return f"clickhouse://reader:{READ_KEY}@{engine.address}/loopscope"


def seed(store: Store) -> None:
    """The runs that the tests look for."""
    rows = Rows()
    now = store.now

    def add(name: str, number: int, turns: list[Turn], ago: int, **more: object) -> None:
        state = add_run(rows, number, turns, at=now - ago * SECOND, **more)  # type: ignore[arg-type]
        store.runs[name] = state.run_id

    for number in range(60):
        add(f"ordinary {number}", number + 1, support_turns(2 + number % 5), 3_600 + number * 60, agent="support")
    add("support", 101, support_turns(12), 300, version="1.5.0", estimate=Decimal("0.12"), environment="staging")
    add("unpriced", 102, support_turns(2, cost=None), 280, agent="unpriced")
    add("running", 103, support_turns(3), 20, agent="research", outcome="running")
    crashed = support_turns(4)
    crashed[-1].unfinished = True
    add("crashed", 104, crashed, 900, agent="file-job", outcome="crashed")
    failed = [*support_turns(3)[:-1], Turn([], error="Overloaded: try again later", stop_reason="")]
    add("failed", 105, failed, 800, agent="support", outcome="failed")
    hostile_turns = [
        Turn([text(HOSTILE), use("get_order<script>", "toolu_1", order_id=HOSTILE)], [HOSTILE]),
        Turn([text("done " + HOSTILE)], stop_reason="end_turn"),
    ]
    add(
        "hostile", 106, hostile_turns, 700, agent=HOSTILE[:180], version="<i>1</i>", question=HOSTILE, system=HOSTILE,
        final_answer=HOSTILE, user_id="[u](javascript:alert(1))", environment="![e](http://evil.example/e.png)",
    )  # fmt: skip
    big = ("0123456789 lorem ipsum dolor " * (BIG_CHARS // 29 + 1))[:BIG_CHARS]
    add(
        "big",
        107,
        [Turn([use("get_order", "toolu_1", order_id="x")], [big]), Turn([text("read it")])],
        600,
        agent="big",
    )
    parent = add_run(rows, 108, support_turns(2), at=now - 500 * SECOND, agent="boss", question="Delegate this.")
    store.runs["parent"] = parent.run_id
    add(
        "child", 109, [Turn([text("only the child knows the word xylophone-7")], stop_reason="end_turn")], 499,
        agent="helper", parent=(parent.trace_id, parent.run_id, parent.run_id[:16]), question="Be quick.",
    )  # fmt: skip
    _add_found(store, rows, now - 400_000 * SECOND)
    rows.insert(store.client)


def _add_found(store: Store, rows: Rows, at: int) -> None:
    """A run that was found in the history of its calls, and the host's own recording of it."""
    first = len(rows.spans)
    found = add_run(rows, 110, support_turns(2), at=at, agent="found")
    spans = rows.spans[first:]
    root = next(span for span in spans if span.kind == "run")
    call = next(span for span in spans if span.kind == "llm")
    found.inferred = root.inferred = True
    next(span for span in spans if span.kind == "tool").inferred = True
    rows.spans += [
        replace(root, span_id=f"{number:016x}", parent_span_id=root.span_id, kind=kind, operation=kind, name=name)
        for number, (kind, name) in enumerate([("step", "fetch orders"), ("limit", "max_turns")], 1)
    ]
    twin = replace(
        call, span_id="000000000000000a", parent_span_id="", dialect="anthropic_native",
        scope="com.anthropic.sdk.python", duplicate_of=call.span_id, duplicate_of_run=found.run_id,
    )  # fmt: skip
    shadow = replace(found, run_id=run_id_of(111), inferred=False, duplicate_of=found.run_id)
    rows.spans += [twin, replace(twin, span_id="000000000000000b", run_id=shadow.run_id)]
    rows.runs.append(shadow)
    store.runs |= {"found": found.run_id, "shadow": shadow.run_id}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Until a Streamlit process answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the process ended with code {process.returncode}"
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer at {url} within {START_SECONDS:g} s")


class Dashboards:
    """The dashboards in a process of their own."""

    def __init__(self, dsn: str, *, read_keys: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "LOOPSCOPE_DSN": dsn, "LOOPSCOPE_READ_KEYS": read_keys}
        self._process = subprocess.Popen(
            streamlit_command("127.0.0.1", self.port),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> "Dashboards":
        """Until it answers."""
        wait_for(self.url, self._process)
        return self

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

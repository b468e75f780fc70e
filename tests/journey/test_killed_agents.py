"""Agents that are killed, and agents whose collector is away: what had ended is in the store, once.

Real processes, real HTTP, a real collector and its store. Each agent writes a log of its own, synced to disk line by
line, of what it had finished; that log is what the store is held against.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import pytest
from clickhouse_connect.driver.client import Client
from support.collector_process import CollectorProcess, collector_process

from loopscope.stub import StubServer

KILLS = 50
AT_ONCE = 5
GRACE_SECONDS = 1.0
"""What ended longer ago than this when its process was killed must not be lost."""
CRASH_AFTER_SECONDS = 8
PATIENCE_SECONDS = 120.0

AGENT = '''
import json, os, random, sys, time
import anthropic, loopscope

def agent(log_path, seed, runs):
    """Runs of a few turns with a tool between them; every end of a turn or run goes to the log before it goes on."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(**what):
        os.write(log, (json.dumps({"at": time.time(), **what}) + "\\n").encode())
        os.fsync(log)

    chance = random.Random(seed)
    loopscope.configure(agent=f"agent-{seed}", environment="test")
    client = anthropic.Anthropic()

    @loopscope.tool
    def look(number):
        return f"seen {number}"

    for number in range(runs):
        with loopscope.run() as run:
            note(event="begun", run=run.id)
            messages = []
            for turn in range(chance.choice([3, 6, 150])):
                messages.append({"role": "user", "content": f"agent {seed}, run {number}, turn {turn}"})
                answer = client.messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=messages)
                note(event="turn", run=run.id, response=answer.id)
                messages.append({"role": "assistant", "content": answer.content[0].text})
                look(turn)
                time.sleep(chance.uniform(0.005, 0.08))
        note(event="ended", run=run.id)
'''

NURSERY = (
    AGENT
    + """
# Agents are forked from a process that has imported what an agent imports: fifty imports would take minutes.
import genai_prices
for line in sys.stdin:
    log_path, seed = line.split()
    child = os.fork()
    if child == 0:
        agent(log_path, int(seed), 10**9)
        os._exit(0)
    print(child, flush=True)
while True:  # their ends are collected when all are asked for
    try:
        os.wait()
    except ChildProcessError:
        break
"""
)


def environment_of(stub: StubServer, endpoint: str, spool: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPSCOPE_", "OTEL_"))}
    return {
        **clean,
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "any",
        "LOOPSCOPE_ENDPOINT": endpoint,
        "LOOPSCOPE_SPOOL_DIR": str(spool),
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }


class Nursery:
    """Starts agents by fork; each is a process to be killed by its id."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stdin: IO[str] = self._process.stdin  # pyright: ignore[reportAttributeAccessIssue]
        self._stdout: IO[str] = self._process.stdout  # pyright: ignore[reportAttributeAccessIssue]
        self._children: set[int] = set()

    def start(self, log: Path, seed: int) -> int:
        self._stdin.write(f"{log} {seed}\n")
        self._stdin.flush()
        child = int(self._stdout.readline())
        self._children.add(child)
        return child

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        self._children.discard(child)

    def end(self) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._stdin.close()
        self._process.wait(60)
        self._stdout.close()


class Doomed:
    """An agent that is killed at a random moment after a random amount of work, however fast the machine is."""

    def __init__(self, child: int, log: Path, chance: random.Random) -> None:
        self.child = child
        self._log = log
        self._lines = chance.choice([0, chance.randint(1, 40), chance.randint(1, 40)])
        self._then_seconds = chance.uniform(0.0, 1.6)
        self._worked_at: float | None = None

    def is_due(self) -> bool:
        if self._worked_at is None and len(lines_of(self._log)) >= self._lines:
            self._worked_at = time.monotonic()
        return self._worked_at is not None and time.monotonic() >= self._worked_at + self._then_seconds


@contextlib.contextmanager
def nursery(environment: dict[str, str]) -> Generator[Nursery]:
    made = Nursery(environment)
    try:
        yield made
    finally:
        made.end()


def lines_of(log: Path) -> list[dict[str, Any]]:
    """What an agent had written; its last line may have been cut off by the kill."""
    if not log.exists():
        return []
    whole, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def flush(environment: dict[str, str], seconds: float = 60) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "loopscope.cli", "flush", "--json", "--timeout", str(seconds)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {"exit": done.returncode, **json.loads(done.stdout)}


def stored_calls(store: Client) -> Counter[str]:
    """Response id -> rows of the read contract; several mean that something counts twice.

    A call that was under way when its process was killed is known from its start marker, and has none.
    """
    rows = store.query("SELECT response_id FROM calls WHERE response_id IS NOT NULL").result_rows
    return Counter(row[0] for row in rows)


def stored_runs(store: Client) -> dict[str, tuple[str, int]]:
    rows = store.query("SELECT run_id, outcome, llm_calls FROM runs").result_rows
    assert len(rows) == len({row[0] for row in rows})
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_fifty_killed_agents_lose_nothing_that_had_ended(tmp_path: Path) -> None:
    """At random moments, several at once; what they left behind is delivered by those that come after them."""
    chance = random.Random(4711)
    settings = {"LOOPSCOPE_CRASH_AFTER_SECONDS": str(CRASH_AFTER_SECONDS)}
    killed_at: dict[int, float] = {}
    logs = {seed: tmp_path / f"agent-{seed}.log" for seed in range(KILLS)}
    with collector_process(tmp_path / "data", environment=settings) as collector, StubServer() as stub:
        collector.wait_for("otlp-http", "clickhouse")
        collector.wait_until_stored()
        environment = environment_of(stub, collector.addresses["otlp-http"], tmp_path / "spool")
        with nursery(environment) as agents:
            waiting = list(logs)
            alive: dict[int, Doomed] = {}
            while waiting or alive:
                while waiting and len(alive) < AT_ONCE:
                    seed = waiting.pop(0)
                    alive[seed] = Doomed(agents.start(logs[seed], seed), logs[seed], chance)
                for seed, agent in list(alive.items()):
                    if agent.is_due():
                        killed_at[seed] = time.time()
                        agents.kill(agent.child)
                        del alive[seed]
                time.sleep(0.02)
        flushed = flush(environment)
        assert flushed["exit"] == 0, flushed
        assert (flushed["left"], flushed["refused"], flushed["held_files"]) == (0, 0, 0)
        assert not list((tmp_path / "spool").rglob("*.spool"))
        collector.wait_until_stored()
        store = collector.reader()
        held_against_the_logs(store, logs, killed_at)


def held_against_the_logs(store: Client, logs: dict[int, Path], killed_at: dict[int, float]) -> None:
    turns: set[str] = set()
    completed: set[str] = set()
    ended: set[str] = set()
    begun: set[str] = set()
    calls_of: Counter[str] = Counter()
    for seed, log in logs.items():
        for line in lines_of(log):
            settled = line["at"] < killed_at[seed] - GRACE_SECONDS
            match line["event"]:
                case "turn" if settled:
                    turns.add(line["response"])
                    calls_of[line["run"]] += 1
                case "begun" if settled:
                    begun.add(line["run"])
                case "ended":
                    ended.add(line["run"])
                    if settled:
                        completed.add(line["run"])
                case _:
                    pass
    assert len(turns) > 3 * KILLS, "the agents did too little for this to mean anything"
    stored = stored_calls(store)
    assert not turns - set(stored), "turns that had ended are lost"
    assert {response: rows for response, rows in stored.items() if rows > 1} == {}, "calls that count twice"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # a run is called crashed once its process was silent for long enough
        runs = stored_runs(store)
        if "running" not in {outcome for outcome, _ in runs.values()} or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert {runs[run][0] for run in completed} == {"completed"}
    crashed = {run for run in begun - ended if runs[run][0] == "crashed"}
    assert crashed == begun - ended
    assert len(crashed) > KILLS / 5
    assert all(runs[run][1] >= calls for run, calls in calls_of.items())
    ((rows, spans),) = store.query("SELECT count(), uniqExact(span_id) FROM calls").result_rows
    assert rows == spans == sum(calls for _, calls in runs.values())


@pytest.mark.slow
def test_a_collector_that_was_away_for_an_agents_whole_life_gets_everything_once(tmp_path: Path) -> None:
    """One agent's spans are delivered by `loopscope flush`, the other's by a next process that does nothing itself."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with StubServer() as stub:
        environments = [
            environment_of(stub, f"http://127.0.0.1:{port}", tmp_path / name) for name in ("flushed", "taken-over")
        ]
        logs = [tmp_path / "first.log", tmp_path / "second.log"]
        for number, (environment, log) in enumerate(zip(environments, logs, strict=True)):
            program = AGENT + f"\nagent({str(log)!r}, {number}, 3)\n"
            done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=120, check=False)
            assert done.returncode == 0
        assert flush(environments[0], 0.5)["exit"] == 1
        with collector_at(tmp_path / "data", port) as collector:
            flushed = flush(environments[0])
            assert (flushed["exit"], flushed["left"]) == (0, 0)
            next_one = "import loopscope; loopscope.configure(); assert loopscope.flush(60), loopscope.stats()"
            subprocess.run([sys.executable, "-c", next_one], env=environments[1], timeout=120, check=True)
            assert flush(environments[0])["found"] == flush(environments[1])["found"] == 0
            collector.wait_until_stored()
            store = collector.reader()
            lines = [line for log in logs for line in lines_of(log)]
            turns = [line["response"] for line in lines if line["event"] == "turn"]
            assert stored_calls(store) == Counter(turns)
            runs = stored_runs(store)
            assert set(runs) == {line["run"] for line in lines}
            assert len(runs) == 6
            assert {outcome for outcome, _ in runs.values()} == {"completed"}
            tools = store.query("SELECT count() FROM tool_calls WHERE NOT inferred").result_rows
            assert tools == [(len(turns),)]


@contextlib.contextmanager
def collector_at(data: Path, port: int) -> Generator[CollectorProcess]:
    with collector_process(data, environment={"LOOPSCOPE_OTLP_HTTP_PORT": str(port)}) as collector:
        collector.wait_for("otlp-http", "clickhouse")
        collector.wait_until_stored()
        yield collector

"""From the process to the collector: away, slow, refusing, killed, forked; nothing blocks, nothing is silent."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import delivery, runtime
from loopscope._internal.spool import Segment, Spool

from .conftest import Configure, ask, delivered
from .provider_server import DEADLINE_SECONDS, Request, Server, running_server


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS:.0f} s for {what}: {loopscope.stats()}"
        time.sleep(0.01)


def spool_files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in tmp_path.rglob("*.spool") if "rejected" not in path.parts)


@contextlib.contextmanager
def agent_process(code: str, **environment: str) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(*statuses: int, **headers: str) -> Callable[[Request], tuple[int, dict[str, str]]]:
    """These, then 200."""
    left = list(statuses)
    return lambda _: (left.pop(0), {k.replace("_", "-"): v for k, v in headers.items()}) if left else (200, {})


def test_a_collector_that_is_away_blocks_nobody_and_gets_all_later(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    configure(endpoint=f"http://127.0.0.1:{port}")
    for number in range(5):
        client.messages.create(**ask(f"call {number}"))
    until(lambda: loopscope.stats()["spool_spans"] == 10, "the calls and their runs to be spooled")
    assert not loopscope.flush(0.1)
    assert loopscope.shutdown(0.5) is False
    assert loopscope.stats()["spans_dropped"] == 0
    until(lambda: all(path.stat().st_size > 100 for path in spool_files(tmp_path)), "the spool to be left alone")
    # The spool belongs to the address it was recorded for; a collector elsewhere must not get it.
    configure()
    client.messages.create(**ask("elsewhere"))
    delivered()
    assert len(server.calls()) == 1
    with running_server_at(port) as late:
        configure(endpoint=f"http://127.0.0.1:{port}")
        late.wait_for(lambda: len(late.calls()) == 5, "the spooled calls")
        assert sorted(c["loopscope.request.body"] for c in late.calls()) == [r.body for r in server.messages[:5]]
        until(lambda: len(spool_files(tmp_path)) <= 1, "the delivered spool file to be removed")


@contextlib.contextmanager
def running_server_at(port: int) -> Generator[Server]:
    late = Server(port)
    late.start()
    try:
        yield late
    finally:
        late.stop()


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(
    status: int, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.answer_traces = answers(status, status, Retry_After="0")
    configure()
    client.messages.create(**ask())
    delivered()
    assert len(server.calls()) == 1
    assert loopscope.stats()["export_failures"] == 2
    assert loopscope.stats()["spans_rejected"] == 0


def test_retry_after_is_honoured(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    asked: list[float] = []
    given = answers(429, Retry_After="1")

    def answer(request: Request) -> tuple[int, dict[str, str]]:
        asked.append(time.monotonic())
        return given(request)

    server.answer_traces = answer
    configure()
    client.messages.create(**ask())
    server.wait_for(lambda: bool(server.calls()), "the call")
    assert asked[1] - asked[0] >= 1.0


def test_one_refused_span_does_not_take_its_neighbours_along(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda request: (400, {}) if b"poison" in request.body else (200, {})
    configure()
    for number in range(20):
        client.messages.create(**ask("poison" if number == 13 else f"call {number}"))
    loopscope.flush(60)
    assert len(server.calls()) == 19
    assert loopscope.stats()["spans_rejected"] == 1
    assert loopscope.stats()["spool_spans"] == 0
    (kept,) = tmp_path.rglob("rejected/*.spool")
    assert b"poison" in kept.read_bytes()
    (reason,) = tmp_path.rglob("rejected/*.reason.txt")
    assert reason.read_text().startswith("400 ")
    client.messages.create(**ask("after"))
    delivered()


def test_an_answer_that_fails_for_ever_is_given_up(
    server: Server,
    configure: Configure,
    client: anthropic.Anthropic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "MAX_SERVER_FAILURES", 2)
    server.answer_traces = lambda request: (500, {"Retry-After": "0"}) if b"poison" in request.body else (200, {})
    configure()
    client.messages.create(**ask("poison"))
    assert not loopscope.flush(60)
    client.messages.create(**ask("good"))
    delivered()
    assert loopscope.stats()["spans_rejected"] == 1
    assert len(server.calls()) == 1


def test_spans_of_a_killed_agent_are_delivered_by_the_next(
    server: Server, configure: Configure, tmp_path: Path
) -> None:
    """SIGKILL right after the last call's span was spooled; the collector was away all the time."""
    server.answer_traces = lambda _: (503, {"Retry-After": "60"})
    code = """
        import anthropic, loopscope, os, sys, time
        loopscope.configure(agent="doomed", environment="test")
        client = anthropic.Anthropic()
        with loopscope.run():
            for number in range(4):
                client.messages.create(model="claude-sonnet-4-6", max_tokens=1,
                                       messages=[{"role": "user", "content": f"turn {number}"}])
            while loopscope.stats()["spool_spans"] < 4:
                time.sleep(0.01)
            print("spooled", flush=True)
            time.sleep(600)
    """
    environment = {
        "LOOPSCOPE_ENDPOINT": server.url,
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
    }
    with agent_process(code, **environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        server.wait_for(lambda: len(server.markers()) > 0, "the run's start marker")
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    server.answer_traces = lambda _: (200, {})
    configure()
    server.wait_for(lambda: len(server.calls()) == 4, "the dead agent's calls")
    calls = server.calls()
    assert [call["loopscope.request.body"] for call in calls] == [request.body for request in server.messages]
    assert {call.resource["service.name"] for call in calls} == {"doomed"}
    assert len({call.resource["loopscope.process.id"] for call in calls}) == 1
    assert server.markers()[0]["loopscope.run.id"] == calls[0]["loopscope.run.id"]
    until(lambda: not spool_files(tmp_path), "the orphaned file to be removed")


def test_a_torn_end_of_a_spool_file_costs_only_that_span(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda _: (503, {"Retry-After": "60"})
    configure()
    for number in range(3):
        client.messages.create(**ask(f"call {number}"))
    assert not loopscope.flush(1)
    loopscope.shutdown(0)
    (path,) = spool_files(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    server.answer_traces = lambda _: (200, {})
    configure()
    server.wait_for(lambda: len(server.spans()) == 5, "the whole spans: three calls and two of their runs")
    assert loopscope.stats()["spool_frames_damaged"] == 1


def test_a_full_spool_drops_the_oldest_and_says_so(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda _: (503, {"Retry-After": "0.01"})
    configure(spool_max_bytes=1024 * 1024)
    for number in range(30):
        client.messages.create(**ask(f"call {number} " + "x" * 100_000))
    until(lambda: loopscope.stats()["queue_spans"] == 0, "the worker")
    dropped = loopscope.stats()["spans_dropped"]
    assert dropped > 0
    assert sum(path.stat().st_size for path in spool_files(tmp_path)) <= 1024 * 1024 + 16_384
    server.answer_traces = lambda _: (200, {})
    delivered()
    calls = server.calls()
    assert len(server.spans()) == 2 * 30 - dropped, "each call is a run with a span of its own"
    assert b"call 29 " in calls[-1]["loopscope.request.body"]
    assert calls[-1].resource["loopscope.dropped.spans"] == dropped


def test_the_queue_is_bounded_in_bytes(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope._internal.pipeline import Pipeline

    proceed = threading.Event()
    handle: Any = vars(Pipeline)["_handle"]

    def held(self: Pipeline, *args: object) -> object:
        proceed.wait(DEADLINE_SECONDS)
        return handle(self, *args)

    monkeypatch.setattr(Pipeline, "_handle", held)
    configure(memory_max_bytes=1024 * 1024)
    for _ in range(30):
        client.messages.create(**ask("x" * 100_000))
    assert loopscope.stats()["queue_bytes"] <= 1024 * 1024
    dropped = loopscope.stats()["spans_dropped"]
    assert dropped >= 15
    proceed.set()
    delivered()
    assert len(server.calls()) == 30 - dropped


def test_without_a_disk_spans_wait_in_memory(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    for number in range(3):
        client.messages.create(**ask(f"call {number}"))
    delivered()
    assert len(server.calls()) == 3
    assert loopscope.stats()["spool_errors"] == 6, "of three calls and their runs"


def test_reconfiguring_sends_on_to_the_new_collector(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    with running_server() as other:
        configure()
        client.messages.create(**ask("first"))
        with loopscope.run("spans both") as run:
            configure(endpoint=other.url, agent="renamed")
            client.messages.create(**ask("second"))
        client.messages.create(**ask("third"))
        delivered()
        server.wait_for(lambda: len(server.calls()) == 1, "the first call")
        assert [call["gen_ai.agent.name"] for call in other.calls()] == ["spans both", "renamed"]
        assert other.spans()[1]["loopscope.run.id"] == run.id


def test_start_markers_and_heartbeats(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.05)
    configure(user_id="u")

    @loopscope.tool
    def waits() -> None:
        server.wait_for(lambda: any(m.operation == "execute_tool" for m in server.markers()), "the tool's marker")

    with loopscope.run("visible") as run:
        server.wait_for(lambda: bool(server.markers()), "the run's marker")
        first = server.markers()[0]
        assert first["loopscope.run.id"] == run.id
        assert first["user.id"] == "u"
        assert first["gen_ai.agent.name"] == "visible"
        assert first.span.end_time_unix_nano == 0
        assert first.get("loopscope.heartbeat.at") is None
        waits()
        beats = lambda: [m for m in server.markers() if m.get("loopscope.heartbeat.at")]  # noqa: E731
        server.wait_for(lambda: len(beats()) >= 3, "heartbeats")
        assert {m["loopscope.run.id"] for m in beats()} == {run.id}
        assert {m.operation for m in beats()} == {"invoke_agent"}
        at = [m["loopscope.heartbeat.at"] for m in beats()]
        assert at == sorted(at)
        assert at[0] > first.span.start_time_unix_nano
    delivered()
    ended = next(span for span in server.spans() if span.operation == "invoke_agent")
    assert ended.span.span_id == first.span.span_id
    assert ended.span.start_time_unix_nano == first.span.start_time_unix_nano
    count = len(beats())
    client.messages.create(**ask())
    delivered()
    assert len(beats()) <= count + 1, "an ended run beats no more"


def test_a_backend_that_is_not_ours_gets_no_more_markers(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.02)
    asked: list[Request] = []

    def refuse(request: Request) -> tuple[int, dict[str, str]]:
        asked.append(request)
        return 404, {}

    server.answer_starts = refuse
    configure()
    with loopscope.run("r"):
        server.wait_for(lambda: bool(asked), "the first marker")
        client.messages.create(**ask())
        delivered()
        client.messages.create(**ask())
        delivered()
    delivered()
    assert len(asked) == 1
    assert len(server.spans()) == 3


def test_a_fork_records_for_itself(server: Server, configure: Configure, tmp_path: Path) -> None:
    environment = {
        "LOOPSCOPE_ENDPOINT": server.url,
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    code = """
        import anthropic, loopscope, os
        loopscope.configure(agent="forking")
        client = anthropic.Anthropic()
        ask = dict(model="claude-sonnet-4-6", max_tokens=1)
        with loopscope.run() as run:
            client.messages.create(messages=[{"role": "user", "content": "parent"}], **ask)
            child = os.fork()
            if child == 0:
                client = anthropic.Anthropic()
                client.messages.create(messages=[{"role": "user", "content": "child"}], **ask)
            # The child leaves the block as well: the run's span is the parent's to end.
        assert loopscope.flush(60), loopscope.stats()
        assert loopscope.stats()["internal_errors"] == 0
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client.messages.create(messages=[{"role": "user", "content": "parent again"}], **ask)
        assert loopscope.flush(60)
    """
    with agent_process(code, **environment) as process:
        assert process.wait(120) == 0
    spans = server.spans()
    assert len(server.calls()) == 3
    assert [span.operation for span in spans if not span.get("loopscope.run.inferred")].count("invoke_agent") == 1
    by_text = {json.loads(call["loopscope.request.body"])["messages"][0]["content"]: call for call in server.calls()}
    parent, child, again = by_text["parent"], by_text["child"], by_text["parent again"]
    assert parent["loopscope.run.id"] == child["loopscope.run.id"] != again["loopscope.run.id"]
    assert child.resource["loopscope.process.id"] != parent.resource["loopscope.process.id"]
    assert parent.resource["loopscope.process.id"] == again.resource["loopscope.process.id"]
    assert child.resource["process.pid"] != parent.resource["process.pid"]
    # The child left by os._exit: its file may stay for the next process to clear away, with nothing in it.
    for path in spool_files(tmp_path):
        left = Segment.adopt(path)
        assert left is not None
        assert not left.pending
        left.close()


def test_the_exit_of_a_process_delivers_and_never_hangs(server: Server, tmp_path: Path) -> None:
    code = """
        import anthropic, loopscope
        loopscope.configure(agent="short", exit_flush_seconds=30)
        anthropic.Anthropic().messages.create(
            model="claude-sonnet-4-6", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    """
    environment = {
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
    }
    with agent_process(code, **environment, LOOPSCOPE_ENDPOINT=server.url) as process:
        assert process.wait(60) == 0
    assert len(server.calls()) == 1
    assert not spool_files(tmp_path)
    # Nobody there: one attempt, and out; far below the 30 s that it could have taken.
    with agent_process(code, **environment, LOOPSCOPE_ENDPOINT="http://127.0.0.1:1") as process:
        assert process.wait(25) == 0
    (path,) = spool_files(tmp_path)
    assert b"claude-sonnet-4-6" in path.read_bytes()


def test_credentials_for_the_collector_are_sent(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure(api_key="the-key", headers={"X-Team": "agents"})
    client.messages.create(**ask())
    delivered()
    assert server.traces[0].headers["authorization"] == "Bearer the-key"
    assert server.traces[0].headers["x-team"] == "agents"
    active = runtime.active()
    assert active is not None
    assert "the-key" not in repr(active.config)


def test_the_spool_is_its_owners_alone(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda _: (503, {})
    configure()
    client.messages.create(**ask())
    until(lambda: bool(spool_files(tmp_path)), "the spool file")
    (path,) = spool_files(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_a_dead_process_delivered_is_not_delivered_again(
    server: Server, configure: Configure, tmp_path: Path
) -> None:
    """Its file holds delivered and undelivered spans when it is killed; only the latter are left to do."""
    server.answer_traces = lambda request: (503, {"Retry-After": "60"}) if b"turn 3" in request.body else (200, {})
    code = """
        import anthropic, loopscope, time
        loopscope.configure(agent="doomed")
        client = anthropic.Anthropic()
        for number in range(5):
            client.messages.create(model="claude-sonnet-4-6", max_tokens=1,
                                   messages=[{"role": "user", "content": f"turn {number}"}])
            if number == 1:
                # Spooled together with what follows, so that the file is not emptied by this delivery.
                while loopscope.stats()["spans_delivered"] < 1:
                    time.sleep(0.01)
        while loopscope.stats()["spool_spans"] < 1 or loopscope.stats()["queue_spans"]:
            time.sleep(0.01)
        time.sleep(0.5)
        print(loopscope.stats()["spans_delivered"], flush=True)
        time.sleep(600)
    """
    environment = {
        "LOOPSCOPE_ENDPOINT": server.url,
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
    }
    with agent_process(code, **environment) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) >= 1
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    server.answer_traces = lambda _: (200, {})
    configure()
    server.wait_for(lambda: len({call.span.span_id for call in server.calls()}) == 5, "the dead agent's calls")
    delivered()
    assert len(server.calls()) == 5


def test_the_cursor_survives_in_the_file(tmp_path: Path) -> None:
    """Also where a process died between emptying its file and setting the cursor back, and in the first format."""
    spool = Spool(tmp_path, "one", b"resource", 1 << 20)
    for number in range(6):
        spool.append([b"span %d" % number])
    spool.settle(spool.next_batch(1 << 20, 4))
    spool.close()

    def left() -> list[bytes]:
        (path,) = tmp_path.glob("*.spool")
        segment = Segment.adopt(path)
        assert segment is not None
        found = [segment.read(frame) for frame in segment.pending]
        segment.close()
        return found

    (path,) = tmp_path.glob("*.spool")
    assert left() == [b"span 4", b"span 5"]
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + (1 << 40).to_bytes(8, "big") + whole[16:])
    assert left() == [b"span %d" % number for number in range(6)]
    path.write_bytes(b"LOOPSPL1" + whole[16:])
    assert left() == [b"span %d" % number for number in range(6)]
    path.write_bytes(b"SOMETHING" + whole)
    assert Segment.adopt(path) is None
    assert path.exists(), "a file of an unknown format is not ours to remove"


def test_files_of_a_dead_process_are_taken_over_in_their_order(tmp_path: Path) -> None:
    dead = Spool(tmp_path, "1-dead", b"resource", 1 << 20)
    for number in range(10):
        dead.append([b"%d" % number * 60_000])
    dead.close()
    assert len(list(tmp_path.glob("*.spool"))) > 2
    mine = Spool(tmp_path, "2-mine", b"resource", 1 << 20)
    mine.append([b"mine"])
    assert mine.adopt_orphans() == 10
    order: list[bytes] = []
    while batch := mine.next_batch(1 << 20, 1):
        order.append(batch[0].segment.read(batch[0])[:1])
        mine.settle(batch)
    assert order == [*(b"%d" % number for number in range(10)), b"m"]
    mine.close()


def test_what_a_dead_process_dropped_is_told_by_the_next(server: Server, configure: Configure, tmp_path: Path) -> None:
    code = """
        import anthropic, loopscope, time
        loopscope.configure(agent="doomed", spool_max_bytes=1024 * 1024)
        client = anthropic.Anthropic()
        for number in range(30):
            client.messages.create(model="claude-sonnet-4-6", max_tokens=1,
                                   messages=[{"role": "user", "content": "x" * 100_000}])
        while loopscope.stats()["queue_spans"]:
            time.sleep(0.01)
        time.sleep(0.5)
        print(loopscope.stats()["spans_recorded"], loopscope.stats()["spans_dropped"], flush=True)
        time.sleep(600)
    """
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    environment = {
        "LOOPSCOPE_ENDPOINT": f"http://127.0.0.1:{port}",
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
    }
    with agent_process(code, **environment) as process:
        assert process.stdout is not None
        recorded, dropped = map(int, process.stdout.readline().split())
        assert dropped > 0
        until(lambda: bool(list(tmp_path.rglob("*.drops"))), "the count to be written down")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with running_server_at(port) as late, anthropic.Anthropic(api_key="k", base_url=server.url) as client:
        configure(endpoint=late.url)
        late.wait_for(lambda: len(late.spans()) == recorded - dropped, "the spans that are left")
        client.messages.create(**ask("mine"))
        delivered()
        mine = next(call for call in late.calls() if call.resource["service.name"] == "tester")
        assert mine.resource["loopscope.dropped.spans"] == dropped
        assert loopscope.stats()["spans_dropped"] == 0
        until(lambda: not list(tmp_path.rglob("*.drops")), "the count to be told and forgotten")


def test_a_collector_that_hangs_holds_up_neither_the_host_nor_its_end(server: Server, tmp_path: Path) -> None:
    """It takes connections and never answers: the agent's calls go on, its end waits as long as it was told to."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        code = """
            import anthropic, loopscope
            loopscope.configure(agent="patient", exit_flush_seconds=0.5)
            client = anthropic.Anthropic()
            with loopscope.run():
                for number in range(20):
                    client.messages.create(model="claude-sonnet-4-6", max_tokens=1,
                                           messages=[{"role": "user", "content": f"turn {number}"}])
            print(loopscope.stats()["spans_recorded"], loopscope.stats()["spans_dropped"], flush=True)
        """
        environment = {
            "LOOPSCOPE_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "k",
        }
        with agent_process(code, **environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "21 0\n"
            assert process.wait(60) == 0
    left = [Segment.adopt(path) for path in spool_files(tmp_path)]
    assert sum(len(segment.pending) for segment in left if segment is not None) == 21
    for segment in left:
        assert segment is not None
        segment.close()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_record_for_themselves(method: str, server: Server, tmp_path: Path) -> None:
    program = tmp_path / "pool.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, anthropic, loopscope

            # A forked worker has its parent's configuration; a spawned one imports this again.
            loopscope.configure(agent="pooled")

            def call(text):
                anthropic.Anthropic().messages.create(
                    model="claude-sonnet-4-6", max_tokens=1, messages=[{{"role": "user", "content": text}}])
                assert loopscope.flush(60), loopscope.stats()
                assert loopscope.stats()["internal_errors"] == 0
                return loopscope.stats()["spans_delivered"]

            if __name__ == "__main__":
                call("parent")
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    assert min(pool.map(call, ["one", "two", "three", "four"], chunksize=1)) >= 1
                call("parent again")
            """
        )
    )
    environment = {
        **os.environ,
        "LOOPSCOPE_ENDPOINT": server.url,
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    subprocess.run([sys.executable, str(program)], env=environment, timeout=180, check=True)
    texts = [json.loads(call["loopscope.request.body"])["messages"][0]["content"] for call in server.calls()]
    assert sorted(texts) == ["four", "one", "parent", "parent again", "three", "two"]
    processes = {call.resource["loopscope.process.id"]: call.resource["process.pid"] for call in server.calls()}
    assert len(set(processes.values())) == len(processes) >= 2


def test_a_server_that_forks_its_workers(server: Server, tmp_path: Path) -> None:
    """As gunicorn does with a preloaded application: configured in the master, calls in the workers, SIGTERM, new ones.

    A worker that is killed leaves spans behind; a later worker of the same master delivers them.
    """
    code = """
        import anthropic, loopscope, os, signal, sys
        loopscope.configure(agent="preloaded")
        client = anthropic.Anthropic()

        def serve(name, *, killed):
            client.messages.create(model="claude-sonnet-4-6", max_tokens=1,
                                   messages=[{"role": "user", "content": name}])
            if killed:
                while loopscope.stats()["queue_spans"]:
                    pass
                os.kill(os.getpid(), signal.SIGKILL)

        for generation in range(2):
            workers = []
            for number in range(3):
                child = os.fork()
                if child == 0:
                    serve(f"worker {generation}.{number}", killed=generation == 0)
                    sys.exit(0)  # runs the exit hooks, as gunicorn's workers do
                workers.append(child)
            for child in workers:
                os.waitpid(child, 0)
        assert loopscope.flush(60)
        print("done", flush=True)
    """
    environment = {
        "LOOPSCOPE_ENDPOINT": server.url,
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
        "LOOPSCOPE_EXIT_FLUSH_SECONDS": "60",
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "k",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    with agent_process(code, **environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert process.wait(60) == 0
    bodies = {call["loopscope.request.body"] for call in server.calls()}
    assert bodies == {request.body for request in server.messages}
    assert len(bodies) == 6

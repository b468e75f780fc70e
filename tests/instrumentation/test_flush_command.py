"""`loopscope flush`: what dead processes left is delivered once, and said; exit codes mean something."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal.spool import Segment

from .conftest import Configure, ask
from .provider_server import Server


@pytest.fixture
def away() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return f"http://127.0.0.1:{reserved.getsockname()[1]}"


def flush(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPSCOPE_", "OTEL_"))}
    return subprocess.run(
        [sys.executable, "-m", "loopscope.cli", "flush", *arguments],
        env=clean | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def is_left(path: Path) -> bool:
    """Whether no pipeline holds the file any more."""
    segment = Segment.adopt(path)
    if segment is not None:
        segment.close()
    return segment is not None


def left_behind(
    configure: Configure, client: anthropic.Anthropic, server: Server, tmp_path: Path, calls: int = 3
) -> None:
    """Spans for the server that are still in the spool once the process is done with it: each call, and its run."""
    server.answer_traces = lambda _: (503, {"Retry-After": "300"})
    configure()
    for number in range(calls):
        client.messages.create(**ask(f"call {number}"))
    assert not loopscope.flush(1)
    loopscope.shutdown(0)
    server.wait_for(lambda: all(map(is_left, tmp_path.rglob("*.spool"))), "the pipeline to leave")


def test_it_delivers_what_was_left_once(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    left_behind(configure, client, server, tmp_path)
    server.answer_traces = lambda _: (200, {})
    arguments = ("--endpoint", server.url, "--spool-dir", str(tmp_path / "spool"), "--timeout", "60")
    done = flush(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"6 of 6 spans delivered to {server.url}/v1/traces\n"
    assert [call["loopscope.request.body"] for call in server.calls()] == [r.body for r in server.messages]
    assert server.calls()[0].resource["service.name"] == "tester"
    assert not list(tmp_path.rglob("*.spool"))
    again = flush(*arguments, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["found"] == 0
    assert len(server.calls()) == 3


def test_its_settings_come_from_the_environment_as_an_agents_do(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    left_behind(configure, client, server, tmp_path)
    server.answer_traces = lambda _: (200, {})
    done = flush(
        "--json",
        LOOPSCOPE_ENDPOINT=server.url,
        LOOPSCOPE_SPOOL_DIR=str(tmp_path / "spool"),
        LOOPSCOPE_API_KEY="the-key",
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["delivered"] == 6
    assert server.traces[0].headers["authorization"] == "Bearer the-key"


def test_what_cannot_be_delivered_stays(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path, away: str
) -> None:
    configure(endpoint=away)
    client.messages.create(**ask())
    assert not loopscope.flush(1)
    loopscope.shutdown(0)
    server.wait_for(lambda: all(map(is_left, tmp_path.rglob("*.spool"))), "the pipeline to leave")
    directory = ("--spool-dir", str(tmp_path / "spool"), "--timeout", "2")
    done = flush("--endpoint", away, *directory)
    assert done.returncode == 1, done
    assert done.stdout.startswith("0 of 2 spans delivered")
    assert "2 spans are left" in done.stdout
    assert len(list(tmp_path.rglob("*.spool"))) == 1
    # For another address it is only said where the spans are for.
    other = flush("--endpoint", server.url, *directory, "--json")
    assert other.returncode == 0
    told: dict[str, Any] = json.loads(other.stdout)
    assert [one["endpoint"] for one in told["elsewhere"]] == [f"{away}/v1/traces"]
    assert server.traces == []


def test_what_is_refused_is_said(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    left_behind(configure, client, server, tmp_path)
    server.answer_traces = lambda request: (400, {}) if b"call 1" in request.body else (200, {})
    done = flush("--endpoint", server.url, "--spool-dir", str(tmp_path / "spool"), "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["delivered"], told["refused"], told["left"]) == (5, 1, 0)


def test_files_of_a_running_process_are_left_to_it(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda _: (503, {"Retry-After": "300"})
    configure()
    client.messages.create(**ask())
    assert not loopscope.flush(1)
    done = flush("--endpoint", server.url, "--spool-dir", str(tmp_path / "spool"), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["found"], told["held_files"]) == (0, 0, 1)
    assert server.traces == []


@pytest.mark.parametrize(
    "wrong", [["--endpoint", "localhost:1"], ["--spool-dir", "/nowhere/at/all"], ["--timeout", "-1"], ["extra"]]
)
def test_a_wrong_call_is_told(wrong: list[str], tmp_path: Path) -> None:
    done = flush(*wrong, LOOPSCOPE_SPOOL_DIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr

"""The collector as one process: what it prints, how it ends, what it leaves, what it refuses to start with."""

import signal
import socket
from pathlib import Path

import httpx
import pytest
from support.collector_process import CollectorProcess, collector_process, wait_gone
from support.otlp import JSON, PROTOBUF, request_with

BODY = request_with("span").SerializeToString()

APP = "import streamlit\nstreamlit.write('hello')\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


def test_three_addresses_are_printed_and_each_answers(tmp_path: Path, app: Path) -> None:
    with collector_process(tmp_path / "data", app=app) as running:
        running.wait_for("otlp-http", "clickhouse", "dashboard")
        assert list(running.addresses) == ["otlp-http", "clickhouse", "dashboard"]
        assert httpx.get(running.addresses["dashboard"] + "/_stcore/health").text == "ok"
        assert running.reader().command("SELECT count() FROM runs") == 0
        running.wait_until_stored()
        with running.http() as client:
            assert client.get("/healthz").json()["store"] == "ok"
            text = client.get("/metrics").text
        assert "loopscope_store_up 1\n" in text
        for name in ("collector_resident_bytes", "engine_resident_bytes"):
            assert f"\nloopscope_{name} " in text


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGINT, True)],
    ids=["SIGTERM", "SIGINT", "Ctrl-C"],
)
def test_a_signal_drains_and_ends_everything(tmp_path: Path, app: Path, number: int, group: bool) -> None:
    with collector_process(tmp_path / "data", app=app) as running:
        running.wait_for("otlp-http", "clickhouse", "dashboard")
        family = running.family()
        assert len(family) >= 3
        with running.http() as client:
            assert client.post("/v1/traces", content=BODY, headers=PROTOBUF).status_code == 200
        running.interrupt(number, group=group)
        assert running.child.wait(120) == 0, running.errors()
        assert wait_gone(family) == []
        assert "Traceback" not in running.errors()
        assert list((tmp_path / "data" / "queue" / "segments").iterdir()) == []


def test_a_signal_while_starting_ends_it_too(tmp_path: Path) -> None:
    with collector_process(tmp_path / "data") as running:
        running.wait_for("otlp-http")
        running.interrupt(signal.SIGTERM)
        assert running.child.wait(120) == 0, running.errors()
        assert "Traceback" not in running.errors()


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """A store that never answers makes the drain long; what is not stored stays in the queue."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environment = {
            "LOOPSCOPE_DSN": f"clickhouse://127.0.0.1:{silent.getsockname()[1]}/loopscope",
            "LOOPSCOPE_DRAIN_SECONDS": "3000",
        }
        with collector_process(tmp_path / "data", environment=environment) as running:
            running.wait_for("otlp-http")
            with running.http() as client:
                assert client.post("/v1/traces", content=BODY, headers=PROTOBUF).status_code == 200
                assert client.get("/healthz").status_code == 503
            running.interrupt()
            running.interrupt()
            while running.child.poll() is None:
                running.interrupt()
            assert running.child.returncode in (130, 0)
        assert len(list((tmp_path / "data" / "queue" / "segments").iterdir())) == 1


def test_when_the_collector_is_killed_its_children_end(tmp_path: Path, app: Path) -> None:
    with collector_process(tmp_path / "data", app=app) as running:
        running.wait_for("otlp-http", "clickhouse", "dashboard")
        family = running.family()
        assert len(family) >= 3
        running.child.kill()
        assert wait_gone(family) == []


def refusal(running: CollectorProcess) -> str:
    """The one line that a collector which cannot start leaves."""
    assert running.child.wait(120) == 2, running.errors()
    lines = [line for line in running.errors().splitlines() if " INFO " not in line]
    assert len(lines) == 1, running.errors()
    return lines[0]


ANYWHERE = {"LOOPSCOPE_BIND": "0.0.0.0"}
NOT_HERE = {"LOOPSCOPE_BIND": "192.0.2.1", "LOOPSCOPE_INGEST_KEYS": "a", "LOOPSCOPE_READ_KEYS": "b"}
REFUSALS = {
    "dsn": ({"LOOPSCOPE_DSN": "postgres://x"}, "the store's address begins with 'postgres://'"),
    "no keys": (
        ANYWHERE,
        "refusing to listen on 0.0.0.0 without keys: set LOOPSCOPE_INGEST_KEYS and LOOPSCOPE_READ_KEYS",
    ),
    "no read keys": (ANYWHERE | {"LOOPSCOPE_INGEST_KEYS": "key"}, "keys: set LOOPSCOPE_READ_KEYS, or bind"),
    "foreign address": (NOT_HERE, "cannot listen on 192.0.2.1:0"),
    "no number": ({"LOOPSCOPE_OTLP_HTTP_PORT": "many"}, "LOOPSCOPE_OTLP_HTTP_PORT"),
    "data dir": ({"LOOPSCOPE_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
}


@pytest.mark.parametrize(("environment", "line"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_start_says_why_in_one_line(tmp_path: Path, environment: dict[str, str], line: str) -> None:
    with collector_process(tmp_path / "data", environment=environment) as running:
        assert line in refusal(running)


@pytest.mark.parametrize(
    "setting", ["LOOPSCOPE_OTLP_HTTP_PORT", "LOOPSCOPE_CLICKHOUSE_PORT", "LOOPSCOPE_DASHBOARD_PORT"]
)
def test_a_taken_port_is_named(tmp_path: Path, app: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with collector_process(tmp_path / "data", app=app, environment={setting: str(port)}) as running:
            assert f"127.0.0.1:{port}: Address already in use" in refusal(running)


def test_one_collector_holds_the_data_directory(tmp_path: Path) -> None:
    with collector_process(tmp_path / "data") as first:
        first.wait_for("otlp-http")
        with collector_process(tmp_path / "data") as second:
            assert f"in use by another collector (process {first.child.pid})" in refusal(second)
        first.wait_for("clickhouse")
        first.wait_until_stored()


def test_with_keys_every_door_wants_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ingest-key\n")
    environment = {
        "LOOPSCOPE_BIND": "0.0.0.0",
        "LOOPSCOPE_INGEST_KEYS": f"@{keys}",
        "LOOPSCOPE_READ_KEYS": "read-key",
    }
    with collector_process(tmp_path / "data", environment=environment) as running:
        running.wait_for("otlp-http", "clickhouse")
        with running.http() as client:
            assert client.post("/v1/traces", content=b"{}", headers=JSON).status_code == 401
            answer = client.post("/v1/traces", content=b"{}", headers=JSON | {"x-api-key": "ingest-key"})
            assert answer.status_code == 200
            assert client.get("/metrics").status_code == 401
        assert httpx.get(running.addresses["clickhouse"], params={"query": "SELECT 1"}).status_code in (401, 403)
        running.wait_until_stored()
        assert running.reader("read-key").command("SELECT 1") == 1

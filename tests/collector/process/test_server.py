"""The same collector on a ClickHouse server instead of the embedded engine, in good and in bad times."""

import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.collector_process import collector_process
from support.otlp import PROTOBUF, request_with

from loopscope_schemas import attributes as names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with clickhouse_server(tmp_path_factory.mktemp("server"), database_exists=False) as stand_in:
        yield stand_in


def client_of(server: ClickHouseServer) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, username=server.user, password=server.password, database="default"
    )


def spans_now(*span_names: str) -> bytes:
    """A request with spans that began now, in a trace of their own."""
    request = request_with(*span_names)
    now = time.time_ns()
    for number, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        span.trace_id = now.to_bytes(16, "big")
        span.start_time_unix_nano = span.end_time_unix_nano = now + number
    return request.SerializeToString()


def test_a_server_stores_the_same_and_no_engine_is_started(tmp_path: Path, server: ClickHouseServer) -> None:
    with collector_process(tmp_path, environment={"LOOPSCOPE_DSN": server.dsn}) as running:
        running.wait_for("otlp-http")
        running.wait_until_stored()
        assert len(running.family()) == 1
        with running.http() as client:
            assert client.post("/v1/traces", content=spans_now("first", "second"), headers=PROTOBUF).status_code == 200
        running.wait_until_stored()
        query = f"SELECT name FROM {server.database}.spans WHERE name IN ('first', 'second') ORDER BY name"
        assert client_of(server).query(query).result_rows == [("first",), ("second",)]
        assert list(running.addresses) == ["otlp-http"]
        assert server.password not in running.errors()


def test_a_server_that_vanishes_costs_patience_and_no_data(tmp_path: Path, server: ClickHouseServer) -> None:
    with collector_process(tmp_path, environment={"LOOPSCOPE_DSN": server.dsn}) as running:
        running.wait_for("otlp-http")
        running.wait_until_stored()
        with running.http() as client:
            server.vanish()
            for number in range(20):
                answer = client.post("/v1/traces", content=spans_now(f"away-{number}"), headers=PROTOBUF)
                assert answer.status_code == 200
            while client.get("/healthz").status_code != 503:
                time.sleep(0.05)
            assert f"the store at 127.0.0.1:{server.port}" in client.get("/healthz").json()["store"]
            server.come_back()
        running.wait_until_stored()
        query = f"SELECT count(), uniqExact(name) FROM {server.database}.spans WHERE name LIKE 'away-%'"
        assert client_of(server).query(query).result_rows == [(20, 20)]


def test_a_server_that_fails_now_and_then_counts_nothing_twice(tmp_path: Path, server: ClickHouseServer) -> None:
    with collector_process(tmp_path, environment={"LOOPSCOPE_DSN": server.dsn}) as running:
        running.wait_for("otlp-http")
        running.wait_until_stored()
        with running.http() as client:
            for number in range(12):
                server.fail_next(number % 4)
                client.post("/v1/traces", content=spans_now(f"shaky-{number}"), headers=PROTOBUF)
        running.wait_until_stored()
        query = f"SELECT count(), uniqExact(name) FROM {server.database}.spans WHERE name LIKE 'shaky-%'"
        assert client_of(server).query(query).result_rows == [(12, 12)]


def test_a_server_that_is_not_up_yet_is_waited_for(tmp_path: Path, server: ClickHouseServer) -> None:
    server.vanish()
    try:
        with collector_process(tmp_path, environment={"LOOPSCOPE_DSN": server.dsn}) as running:
            running.wait_for("otlp-http")
            with running.http() as client:
                assert client.post("/v1/traces", content=spans_now("early"), headers=PROTOBUF).status_code == 200
                assert client.get("/healthz").status_code == 503
            server.come_back()
            running.wait_until_stored()
            query = f"SELECT count() FROM {server.database}.spans WHERE name = 'early'"
            assert client_of(server).command(query) == 1
    finally:
        server.come_back()


def test_a_wrong_password_is_said_at_the_start(tmp_path: Path, server: ClickHouseServer) -> None:
    dsn = f"clickhouse://{server.user}:wrong-secret@127.0.0.1:{server.port}/loopscope"
    with collector_process(tmp_path, environment={"LOOPSCOPE_DSN": dsn}) as running:
        assert running.child.wait(120) == 2
        assert "the store refuses this user and password" in running.errors()
        assert "wrong-secret" not in running.errors()


def marker(run: int, operation: str) -> bytes:
    """A start marker of a run that never ends."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key=names.PROCESS_ID).value.string_value = "the-process"
    scope = resource.scope_spans.add()
    scope.scope.name = "loopscope"
    trace_id = run.to_bytes(16, "big")
    span = scope.spans.add(
        name=operation, trace_id=trace_id, span_id=run.to_bytes(8, "big"), start_time_unix_nano=time.time_ns()
    )
    for key, value in ((names.OPERATION_NAME, operation), (names.RUN_ID, trace_id.hex()), (names.AGENT_NAME, "a")):
        span.attributes.add(key=key).value.string_value = value
    return request.SerializeToString()


def test_a_run_that_falls_silent_is_seen_running_and_then_crashed(tmp_path: Path) -> None:
    with collector_process(tmp_path, environment={"LOOPSCOPE_CRASH_AFTER_SECONDS": "6"}) as running:
        running.wait_for("otlp-http", "clickhouse")
        running.wait_until_stored()
        with running.http() as client:
            answer = client.post("/loopscope/v1/starts", content=marker(7, "invoke_agent"), headers=PROTOBUF)
            assert answer.status_code == 200
        reader = running.reader()
        seen: list[str] = []
        while not seen or seen[-1] != "crashed":
            for (outcome,) in reader.query("SELECT outcome FROM runs").result_rows:
                if not seen or seen[-1] != outcome:
                    seen.append(outcome)
            time.sleep(0.1)
        assert seen == ["running", "crashed"]

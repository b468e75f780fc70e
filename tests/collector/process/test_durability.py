"""Acknowledged means kept, and nothing counts twice: through the whole collector, into the store."""

import json
import threading
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.collector_process import CollectorProcess, collector_process, wait_gone
from support.otlp import PROTOBUF

from loopscope_schemas import attributes as names

START = 1_795_000_000 * 10**9
SENDERS = 4

TOTALS = """
SELECT (SELECT count() FROM runs), (SELECT count() FROM spans), (SELECT count() FROM calls),
       (SELECT sum(input_tokens) FROM calls), (SELECT sum(output_tokens) FROM calls), (SELECT sum(cost_usd) FROM calls),
       (SELECT uniqExact(hash) FROM messages)
"""


def call(number: int, start: int = START) -> bytes:
    """A request with one LLM call, a run of its own."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "loopscope"
    trace_id = number.to_bytes(16, "big")
    span = scope.spans.add(
        name="chat",
        trace_id=trace_id,
        span_id=number.to_bytes(8, "big"),
        start_time_unix_nano=start + number * 1000,
        end_time_unix_nano=start + number * 1000 + 500,
    )
    model = "claude-sonnet-4-5"
    texts = {
        names.OPERATION_NAME: "chat",
        names.PROVIDER_NAME: "anthropic",
        names.REQUEST_MODEL: model,
        names.RESPONSE_MODEL: model,
        names.RUN_ID: trace_id.hex(),
        names.AGENT_NAME: "durable",
    }
    bodies = {
        names.REQUEST_BODY: {
            "model": model,
            "max_tokens": 9,
            "messages": [{"role": "user", "content": f"say {number}"}],
        },
        names.RESPONSE_BODY: {"role": "assistant", "content": [{"type": "text", "text": f"I say {number}"}]},
    }
    for key, text in texts.items():
        span.attributes.add(key=key).value.string_value = text
    for key, body in bodies.items():
        span.attributes.add(key=key).value.bytes_value = json.dumps(body).encode()
    for key, count in ((names.USAGE_INPUT_TOKENS, 10 + number), (names.USAGE_OUTPUT_TOKENS, 3), (names.TURN, 1)):
        span.attributes.add(key=key).value.int_value = count
    return request.SerializeToString()


@pytest.fixture
def start() -> int:
    """A start time of today, so that retention keeps it."""
    import time

    return (time.time_ns() // 10**9 - 600) * 10**9


def send_until_gone(running: CollectorProcess, start: int, enough: int) -> set[int]:
    """Send calls from several threads, kill the collector when enough are acknowledged; the acknowledged ones."""
    acknowledged: set[int] = set()
    reached = threading.Event()

    def send(first: int) -> None:
        with running.http() as client:
            number = first
            while True:
                try:
                    answer = client.post("/v1/traces", content=call(number, start), headers=PROTOBUF)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    acknowledged.add(number)
                if len(acknowledged) >= enough:
                    reached.set()
                number += SENDERS

    threads = [threading.Thread(target=send, args=(1 + index,)) for index in range(SENDERS)]
    for thread in threads:
        thread.start()
    assert reached.wait(120)
    running.child.kill()
    for thread in threads:
        thread.join(120)
    return acknowledged


def test_kill_9_in_the_middle_of_a_load_loses_no_acknowledged_span(tmp_path: Path, start: int) -> None:
    with collector_process(tmp_path) as running:
        running.wait_for("otlp-http", "clickhouse")
        running.wait_until_stored()
        family = running.family()
        acknowledged = send_until_gone(running, start, enough=600)
        assert wait_gone(family) == []
    with collector_process(tmp_path) as running:
        running.wait_for("otlp-http", "clickhouse")
        running.wait_until_stored()
        reader = running.reader()
        rows = reader.query("SELECT span_id, count() FROM spans GROUP BY span_id").result_rows
        stored = {int(str(span_id), 16): count for span_id, count in rows}
        assert acknowledged - stored.keys() == set()
        assert {number for number, count in stored.items() if count != 1} == set()
        assert reader.command("SELECT sum(input_tokens) FROM calls") == sum(10 + number for number in stored)


def test_the_same_requests_again_and_a_restart_between_change_no_total(tmp_path: Path, start: int) -> None:
    requests = [call(number, start) for number in range(1, 40)]

    def send(running: CollectorProcess) -> tuple[object, ...]:
        running.wait_for("otlp-http", "clickhouse")
        with running.http() as client:
            for body in requests:
                assert client.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
        running.wait_until_stored()
        return tuple(running.reader().query(TOTALS).result_rows[0])

    with collector_process(tmp_path) as running:
        once = send(running)
        assert once[:5] == (39, 39, 39, sum(10 + number for number in range(1, 40)), 39 * 3)
        assert once[5] is not None
        assert send(running) == once
        running.interrupt()
        assert running.child.wait(120) == 0
    with collector_process(tmp_path) as running:
        assert send(running) == once


def test_the_engine_may_die_while_data_comes_in(tmp_path: Path, start: int) -> None:
    with collector_process(tmp_path) as running:
        running.wait_for("otlp-http", "clickhouse")
        running.wait_until_stored()
        engine = next(process for process in running.family() if "loopscope_collector.engine" in process.cmdline())
        with running.http() as client:
            for number in range(1, 61):
                if number == 30:
                    engine.kill()
                assert client.post("/v1/traces", content=call(number, start), headers=PROTOBUF).status_code == 200
        running.wait_until_stored()
        assert running.reader().command("SELECT count() FROM spans") == 60
        assert running.reader().command("SELECT uniqExact(span_id) FROM spans") == 60

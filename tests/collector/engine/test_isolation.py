"""Statements do not disturb one another: places, ends, deaths."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from loopscope_collector.engine import EngineProcess

from .conftest import WRITE_SECRET

ENDLESS = "SELECT count() FROM numbers(1000000000000)"
PATIENCE_SECONDS = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def running(writer: Client) -> list[str]:
    """Statements the engine runs now, our own look aside."""
    found = writer.query("SELECT query FROM system.processes WHERE query NOT LIKE '%system.processes%'")
    return [str(row[0]) for row in found.result_rows]


@contextmanager
def begun(engine: EngineProcess, sql: str = ENDLESS) -> Generator[socket.socket]:
    """A statement that was sent and not waited for."""
    with socket.create_connection(("127.0.0.1", engine.port)) as connection:
        line = f"GET /?{urlencode({'query': sql})} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(line.encode())
        yield connection


def test_a_slow_query_stops_nobody_and_ends_with_its_client(
    engine: EngineProcess, writer: Client, reader: Client
) -> None:
    """While it runs, reads are answered and rows inserted; its client gone, it is gone."""
    writer.command("CREATE TABLE IF NOT EXISTS loopscope.beside (x UInt64) ENGINE = MergeTree ORDER BY x")
    with begun(engine):
        wait_until(lambda: ENDLESS in running(writer), "the slow query's start")
        for number in range(5):
            assert reader.query("SELECT 1").result_rows == [(1,)]
            writer.insert("beside", [[number]], column_names=["x"])
        assert ENDLESS in running(writer)
    wait_until(lambda: ENDLESS not in running(writer), "the end of the query whose client left")


def test_a_client_that_leaves_in_the_middle_of_an_answer(engine: EngineProcess, writer: Client) -> None:
    sql = "SELECT number FROM numbers(1000000000000) FORMAT RowBinary"
    with begun(engine, sql) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        wait_until(lambda: any("RowBinary" in text for text in running(writer)), "the query's start")
    wait_until(lambda: not any("RowBinary" in text for text in running(writer)), "its end")


def test_cut_off_queries_leave_no_rows_behind(reader: Client) -> None:
    """By time, by rows, by an error: the next answer is the next query's own."""
    for _ in range(3):
        with pytest.raises(DatabaseError, match="159"):
            reader.query(
                "SELECT number FROM numbers(1000000000000) WHERE sipHash64(number) = 0",
                settings={"max_execution_time": 0.3},
            )
        assert reader.query("SELECT 'a'").result_rows == [("a",)]
        with pytest.raises(DatabaseError, match="396"):
            reader.query(
                "SELECT number FROM numbers(1000000)", settings={"max_result_rows": 1000, "max_block_size": 500}
            )
        assert reader.query("SELECT 'b'").result_rows == [("b",)]
        with pytest.raises(DatabaseError, match="395"):
            reader.query_df("SELECT throwIf(number = 70000) FROM numbers(100000)", settings={"max_block_size": 1000})
        assert reader.query("SELECT 'c'").result_rows == [("c",)]


def test_an_answer_that_must_be_made_whole_is_bounded(reader: Client) -> None:
    big = "SELECT repeat('x', 1000) AS x FROM numbers(200000)"
    with pytest.raises(DatabaseError, match="use a format that streams"):
        reader.raw_query(f"{big} FORMAT JSON")
    assert len(reader.raw_query(f"{big} FORMAT JSONEachRow")) == 200_000 * 1009


def test_streamed_answers_need_little_memory(engine: EngineProcess, reader: Client) -> None:
    """1 GB through an engine that holds a third of it."""
    before = engine.memory_bytes()
    peak = before
    with reader.raw_stream(
        "SELECT repeat('x', 1000) FROM numbers(1000000)", fmt="RowBinary", settings={"max_block_size": 8192}
    ) as answer:
        size = 0
        while piece := cast(Any, answer).read(1 << 20):
            size += len(piece)
            peak = max(peak, engine.memory_bytes())
    assert size == 1_002_000_000
    assert peak - before < 350 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[EngineProcess]:
    """An engine with one place for readers, that may be killed."""
    options = {"parallel_reads": 1, "read_queue_seconds": 0.3}
    with EngineProcess(tmp_path / "data", port=0, write_secret=WRITE_SECRET, options=options) as engine:
        yield engine


def test_reads_beyond_the_places_wait_and_are_told(small: EngineProcess) -> None:
    writer = clickhouse_connect.get_client(dsn=small.write_dsn)
    with begun(small):
        wait_until(lambda: ENDLESS in running(writer), "the slow query's start")
        connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
        connection.request("GET", "/?query=SELECT+1")
        answer = connection.getresponse()
        text = answer.read().decode()
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert "Code: 202. DB::Exception" in text
        assert answer.headers["Retry-After"] == "1"
        assert writer.query("SELECT 1").result_rows == [(1,)]  # the writer's places are its own
    wait_until(lambda: ENDLESS not in running(writer), "the slow query's end")
    connection.request("GET", "/?query=SELECT+1")
    assert connection.getresponse().read() == b"1\n"


def test_the_engine_goes_down_while_a_query_runs(small: EngineProcess) -> None:
    """It drains first: an exit during a query would be a crash."""
    writer = clickhouse_connect.get_client(dsn=small.write_dsn)
    writer.command("CREATE TABLE loopscope.kept (x UInt64) ENGINE = MergeTree ORDER BY x")
    writer.insert("kept", [[1]], column_names=["x"])
    with begun(small) as connection:
        wait_until(lambda: ENDLESS in running(writer), "the slow query's start")
        code = small.stop()
        assert code == 0
        assert connection.recv(65536).startswith(b"HTTP/1.1 5")
    small.start()
    assert clickhouse_connect.get_client(dsn=small.write_dsn).command("SELECT count() FROM loopscope.kept") == 1


def test_acknowledged_inserts_survive_kill_9(small: EngineProcess) -> None:
    """Killed in the middle of a load, twice: what was acknowledged is there, the port is the same, nothing is doubled.
    Killed in the middle of a load, twice: what was acknowledged is there, the port is the same, nothing is doubled."""
    writer = clickhouse_connect.get_client(dsn=small.write_dsn)
    writer.command(
        "CREATE TABLE loopscope.load (x UInt64, body String) ENGINE = MergeTree ORDER BY x "
        "SETTINGS fsync_after_insert = 1, non_replicated_deduplication_window = 1000"
    )
    small.watch()
    address = small.address
    acknowledged: set[int] = set()
    stopped = threading.Event()

    def load() -> None:
        number = 0
        while not stopped.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=10)
            try:
                args = {"query": "INSERT INTO loopscope.load FORMAT TSV", "insert_deduplication_token": str(number)}
                headers = {"X-ClickHouse-User": "loopscope_writer", "X-ClickHouse-Key": WRITE_SECRET}
                connection.request(
                    "POST", "/?" + urlencode(args), body=f"{number}\t{'text ' * 200}\n".encode() * 50, headers=headers
                )
                if connection.getresponse().status == 200:
                    acknowledged.add(number)
                    number += 1
            except OSError:
                time.sleep(0.01)  # killed; the same batch goes again, under the same token
            except http.client.HTTPException:
                time.sleep(0.01)
            finally:
                connection.close()

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for kills in (1, 2):
            enough = len(acknowledged) + 20
            wait_until(lambda enough=enough: len(acknowledged) >= enough, "some inserts")
            small.kill()
            wait_until(lambda kills=kills: small.restarts == kills, "the restart")
    finally:
        stopped.set()
        loader.join()
    assert small.address == address
    writer = clickhouse_connect.get_client(dsn=small.write_dsn)
    counts = {int(row[0]): int(row[1]) for row in writer.query("SELECT x, count() FROM load GROUP BY x").result_rows}
    assert acknowledged <= counts.keys()
    assert set(counts.values()) == {50}

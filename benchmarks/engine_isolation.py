"""What the engine process does to small work while big work runs, and how fast rows go in.

Prints one line a figure: a 10 ms read and a small insert, alone and beside heavy queries; the time from a client's
disconnect to the end of its query; MB/s of 3 KB texts by format. Run: `python benchmarks/engine_isolation.py`.
"""

import http.client
import io
import itertools
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import lz4.frame
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from loopscope_collector.engine import WRITER_USER, EngineProcess

SECRET = "bench"
HEAVY = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 0"
TEXTS = 16_000


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        EngineProcess(
            Path(directory) / "data", port=0, write_secret=SECRET, options={"memory_limit_bytes": 4 << 30}
        ) as engine,
    ):
        isolation(engine)
        disconnect(engine)
        inserts(engine)
        print(f"{'resident memory of the engine':58} {engine.memory_bytes() >> 20:8} MiB")


def isolation(engine: EngineProcess) -> None:
    """Latencies beside 0, 1 and 3 heavy reads."""
    reader = clickhouse_connect.get_client(host="127.0.0.1", port=engine.port)
    writer = clickhouse_connect.get_client(dsn=engine.write_dsn)
    writer.command(
        "CREATE TABLE small (x UInt64, body String) ENGINE = MergeTree ORDER BY x SETTINGS fsync_after_insert = 1"
    )
    read = "SELECT sum(sipHash64(number)) FROM numbers(200000)"
    names, types = ["x", "body"], ["UInt64", "String"]
    rows = [[number, "text " * 100] for number in range(100)]
    for heavy in (0, 1, 3):
        with ExitStack() as stack:
            for _ in range(heavy):
                stack.enter_context(sent(engine, HEAVY))
            time.sleep(0.5)
            show(f"read of about 10 ms beside {heavy} heavy", sample(lambda: reader.query(read), 40))
            insert = sample(lambda: writer.insert("small", rows, column_names=names, column_type_names=types), 40)
            show(f"insert of 100 rows beside {heavy} heavy", insert)
        quiet(writer)


def disconnect(engine: EngineProcess) -> None:
    """From the client's close to the moment when the engine runs the query no more."""
    writer = clickhouse_connect.get_client(dsn=engine.write_dsn)
    seconds: list[float] = []
    for _ in range(5):
        with sent(engine, HEAVY):
            time.sleep(0.4)
        began = time.perf_counter()
        quiet(writer)
        seconds.append(time.perf_counter() - began)
    show("a query's end after its client left", seconds)


def inserts(engine: EngineProcess) -> None:
    """MB/s of distinct 3 KB texts into ZSTD(1), with and without a text index, by format."""
    writer = clickhouse_connect.get_client(dsn=engine.write_dsn)
    rows = texts()
    size = sum(len(text) for text in rows.column("body").to_pylist())
    stream = arrow_stream(rows)
    columns = "(x UInt64, body String CODEC(ZSTD(1)){index}) ENGINE = MergeTree ORDER BY x"
    index = ", INDEX words lowerUTF8(body) TYPE text(tokenizer = 'splitByNonAlpha')"
    variants: list[tuple[str, str, bytes, dict[str, str], dict[str, str], str]] = [
        ("ArrowStream", "ArrowStream", stream, {}, {}, ""),
        ("ArrowStream, LZ4 over HTTP", "ArrowStream", lz4.frame.compress(stream), {"Content-Encoding": "lz4"}, {}, ""),
        ("Native", "Native", native(engine, stream), {}, {}, ""),
        ("ArrowStream, text index", "ArrowStream", stream, {}, {}, index),
        (
            "ArrowStream, text index left to merges",
            "ArrowStream",
            stream,
            {},
            {"materialize_skip_indexes_on_insert": "0"},
            index,
        ),
    ]
    for name, input_format, body, headers, settings, given_index in variants:
        rates: list[float] = []
        for _ in range(3):
            writer.command(f"CREATE TABLE texts {columns.format(index=given_index)} SETTINGS fsync_after_insert = 1")
            began = time.perf_counter()
            post(engine, f"INSERT INTO loopscope.texts (x, body) FORMAT {input_format}", body, headers, settings)
            rates.append(size / 1e6 / (time.perf_counter() - began))
            writer.command("DROP TABLE texts SYNC")
        print(f"{'insert, ' + name:58} {statistics.median(rates):8.0f} MB/s   best {max(rates):.0f}")


def native(engine: EngineProcess, stream: bytes) -> bytes:
    """The same rows in the Native format, as the engine writes them."""
    writer = clickhouse_connect.get_client(dsn=engine.write_dsn)
    writer.command("CREATE TABLE texts (x UInt64, body String) ENGINE = MergeTree ORDER BY x")
    post(engine, "INSERT INTO loopscope.texts (x, body) FORMAT ArrowStream", stream, {}, {})
    answer = writer.raw_query("SELECT * FROM texts", fmt="Native")
    writer.command("DROP TABLE texts SYNC")
    return bytes(answer)


def texts() -> Any:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(20_000)]
    # Words as frequent as in a language: the index costs by distinct words, so evenly drawn ones would mislead.
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
    bodies = [" ".join(chance.choices(words, cum_weights=weights, k=460)) for _ in range(TEXTS)]
    return pa.table({"x": pa.array(range(TEXTS), pa.uint64()), "body": bodies})


def arrow_stream(rows: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as out:
        out.write_table(rows, max_chunksize=4000)
    return sink.getvalue()


def post(engine: EngineProcess, sql: str, body: bytes, headers: dict[str, str], settings: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=120)
    who = {"X-ClickHouse-User": WRITER_USER, "X-ClickHouse-Key": SECRET}
    connection.request("POST", "/?" + urlencode({"query": sql, **settings}), body=body, headers={**who, **headers})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read().decode())
    connection.close()


def sent(engine: EngineProcess, sql: str) -> socket.socket:
    """A query that was asked and is not waited for."""
    connection = socket.create_connection(("127.0.0.1", engine.port))
    connection.sendall(f"GET /?{urlencode({'query': sql})} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def quiet(writer: Client) -> None:
    """Wait until no heavy query runs."""
    while writer.query("SELECT 1 FROM system.processes WHERE query LIKE '%sipHash64(number) = 0%'").result_rows[1:]:
        time.sleep(0.005)


def sample(work: Callable[[], object], count: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def show(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    print(f"{name:58} {statistics.median(ordered) * 1000:8.1f} ms p50 {p95 * 1000:8.1f} ms p95", flush=True)


if __name__ == "__main__":
    main()

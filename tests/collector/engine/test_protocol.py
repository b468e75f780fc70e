"""The HTTP protocol, as clickhouse-connect and plain HTTP clients meet it."""

import gzip
import http.client
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import urlencode

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from loopscope_collector.engine import WRITER_USER, EngineProcess

from .conftest import WRITE_SECRET

AS_WRITER = {"X-ClickHouse-User": WRITER_USER, "X-ClickHouse-Key": WRITE_SECRET}
HOSTILE = [
    "",
    "tab\tline\nreturn\rquote'\"`\\",
    "NUL\0in it",
    "ünïcode \U0001f600",
    "\\N",
    "NULL",
    "<script>",
    "x" * 100_000,
    "{a:String}",
]


def ask(
    engine: EngineProcess,
    method: str = "GET",
    path: str = "/",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    args: dict[str, str] | None = None,
    **more: str,
) -> tuple[int, dict[str, str], bytes]:
    """One plain request: status, headers (names in lower case), body."""
    args = {**(args or {}), **more}
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)
    try:
        connection.request(method, f"{path}?{urlencode(args)}" if args else path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.fixture
def table(writer: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table of this test's own."""
    name = "p_" + "".join(letter if letter.isalnum() else "_" for letter in str(request.node.name))[:60]
    writer.command(
        f"CREATE TABLE loopscope.{name} (id UInt64, body String, tags Map(String, String), at DateTime64(9), "
        "cost Nullable(Decimal(38, 12)), kinds Array(LowCardinality(String))) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    yield name
    writer.command(f"DROP TABLE loopscope.{name} SYNC")


def test_hostile_text_survives_every_way_in_and_out(writer: Client, reader: Client, table: str) -> None:
    """Native, Arrow and parameters carry the same text; each row comes back as it went in."""
    writer.insert(table, [[number, text] for number, text in enumerate(HOSTILE)], column_names=["id", "body"])
    writer.insert_arrow(table, pa.table({"id": pa.array(range(100, 100 + len(HOSTILE)), pa.uint64()), "body": HOSTILE}))
    rows = reader.query(f"SELECT body FROM {table} ORDER BY id").result_columns[0]
    assert list(rows) == HOSTILE + HOSTILE
    assert reader.query_arrow(f"SELECT body FROM {table} ORDER BY id").column(0).to_pylist() == HOSTILE + HOSTILE
    assert list(reader.query_df(f"SELECT body FROM {table} ORDER BY id")["body"]) == HOSTILE + HOSTILE
    for number, text in enumerate(HOSTILE):
        found = reader.query(
            f"SELECT id, {{t:String}} FROM {table} WHERE body = {{t:String}} AND id < 100", parameters={"t": text}
        )
        assert found.result_rows == [(number, text)]
    assert reader.query("SELECT {texts:Array(String)}", parameters={"texts": HOSTILE[:7]}).result_rows == [
        (HOSTILE[:7],)
    ]


def test_everything_clickhouse_connect_does(writer: Client, table: str) -> None:
    writer.insert(
        table,
        [[1, "a", {"k": "v"}, 1_700_000_000, None, ["x", "y"]]],
        column_names=["id", "body", "tags", "at", "cost", "kinds"],
        column_type_names=[
            "UInt64",
            "String",
            "Map(String, String)",
            "DateTime64(9)",
            "Nullable(Decimal(38, 12))",
            "Array(LowCardinality(String))",
        ],
    )
    assert writer.command(f"SELECT count() FROM {table}") == 1
    writer.command(f"INSERT INTO {table} (id, body) VALUES (2, 'b')")
    assert writer.raw_insert(table, ["id", "body"], b'{"id": 3, "body": "c"}\n', fmt="JSONEachRow").written_rows == 1
    assert (
        writer.raw_insert(
            table, ["id", "body"], gzip.compress(b"4\td\n"), fmt="TabSeparated", compression="gzip"
        ).written_rows
        == 1
    )
    assert (
        writer.raw_query(f"SELECT id FROM {table} ORDER BY id", fmt="JSONEachRow")
        == b'{"id":1}\n{"id":2}\n{"id":3}\n{"id":4}\n'
    )
    assert writer.query(f"SELECT id FROM {table} WHERE id > 100").result_rows == []
    assert writer.query(f"SELECT id, tags FROM {table} LIMIT 0").column_names == ("id", "tags")
    empty = writer.query_arrow(f"SELECT id, body FROM {table} WHERE id > 100")
    assert (empty.num_rows, empty.column_names) == (0, ["id", "body"])
    with writer.query_row_block_stream("SELECT number FROM numbers(200000) ORDER BY number") as stream:
        assert sum(len(block) for block in stream) == 200_000
    with writer.raw_stream("SELECT number FROM numbers(200000)", fmt="RowBinary") as raw:
        assert len(cast(Any, raw).read()) == 1_600_000
    assert writer.ping()


@pytest.mark.parametrize("codec", ["identity", "gzip", "deflate", "zstd", "lz4"])
def test_encodings_both_ways(engine: EngineProcess, writer: Client, table: str, codec: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "identity": lambda data: data,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstd.compress,
        "lz4": lz4.frame.compress,
    }
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "identity": lambda data: data,
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": zstd.decompress,
        "lz4": lz4.frame.decompress,
    }
    lines = b"".join(json.dumps({"id": number, "body": "text " * 50}).encode() + b"\n" for number in range(5000))
    statement = f"INSERT INTO loopscope.{table} (id, body) FORMAT JSONEachRow\n".encode()
    half = len(lines) // 2
    for body in (pack[codec](statement + lines), pack[codec](statement + lines[:half]) + pack[codec](lines[half:])):
        writer.command(f"TRUNCATE TABLE {table}")
        status, _, text = ask(engine, "POST", body=body, headers={**AS_WRITER, "Content-Encoding": codec})
        assert (status, text) == (200, b"")
        assert writer.command(f"SELECT count() FROM {table}") == 5000
    status, headers, answer = ask(
        engine,
        headers={"Accept-Encoding": codec},
        enable_http_compression="1",
        query=f"SELECT body FROM {table} FORMAT TSV",
    )
    assert status == 200
    assert headers.get("content-encoding", "identity") == codec
    assert unpack[codec](answer) == (b"text " * 50 + b"\n") * 5000


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_a_damaged_body_inserts_nothing(engine: EngineProcess, writer: Client, table: str, codec: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstd.compress, "lz4": lz4.frame.compress}[codec]
    whole = pack(f"INSERT INTO loopscope.{table} (id) FORMAT TSV\n".encode() + b"1\n" * 100_000)
    for body in (whole[:-9], whole[: len(whole) // 2], b"nonsense" * 10):
        status, headers, text = ask(engine, "POST", body=body, headers={**AS_WRITER, "Content-Encoding": codec})
        assert status == 400, text
        assert headers["x-clickhouse-exception-code"] == "271"
    assert writer.command(f"SELECT count() FROM {table}") == 0


FORMATS = """
    Native TabSeparated TSVWithNames TSVWithNamesAndTypes CSV CSVWithNames CSVWithNamesAndTypes JSONEachRow
    JSONCompactEachRow JSONCompactEachRowWithNames JSONCompactEachRowWithNamesAndTypes RowBinary RowBinaryWithNames
    RowBinaryWithNamesAndTypes LineAsString JSON JSONCompact JSONColumns Pretty Vertical Markdown XML Values Parquet
""".split()  # noqa: SIM905 - a list is longer than the page is wide


@pytest.mark.parametrize("output_format", FORMATS)
def test_streamed_answers_are_one_document(engine: EngineProcess, writer: Client, output_format: str) -> None:
    """An answer of several blocks reads like the engine's answer of one block: one head, one foot."""
    sql = 'SELECT toString(number) AS "a\n""b", number AS n FROM numbers(150000)'.replace('""', "")
    blocks = {"max_block_size": "40000", "max_threads": "1"}
    if output_format == "Native":
        rows = writer.query(sql, settings={"max_block_size": 40000, "max_threads": 1}).result_rows
        assert rows == [(str(number), number) for number in range(150_000)]
        return
    _, headers, streamed = ask(engine, query=f"{sql} FORMAT {output_format}", args=blocks)
    assert headers["x-clickhouse-format"] == output_format
    whole = {"max_block_size": "1000000", "preferred_block_size_bytes": "0", "max_threads": "1"}
    _, _, at_once = ask(engine, query=f"{sql} FORMAT {output_format}", args=whole)
    if output_format == "Parquet":
        assert pq.read_table(io.BytesIO(streamed)).equals(pq.read_table(io.BytesIO(at_once)))
    elif output_format in ("JSON", "JSONCompact"):
        assert json.loads(streamed)["data"] == json.loads(at_once)["data"]
    elif output_format == "XML":
        assert streamed.count(b"<row>") == at_once.count(b"<row>") == 150_000
    else:
        assert streamed == at_once


def test_arrow_streams_are_one_stream(reader: Client) -> None:
    settings = {"max_block_size": 10000, "max_threads": 1}
    found = reader.query_arrow(
        "SELECT number, toString(number) AS text, [number] AS list FROM numbers(100000)", settings=settings
    )
    assert found.column("number").to_pylist() == list(range(100_000))
    assert found.column("text").to_pylist()[-1] == "99999"


@pytest.mark.parametrize("input_format", ["ArrowStream", "Arrow", "Parquet", "JSONEachRow", "CSV", "TSV"])
@pytest.mark.parametrize("statement_in", ["body", "url"])
def test_insert_formats(
    engine: EngineProcess, writer: Client, table: str, input_format: str, statement_in: str
) -> None:
    rows = pa.table({"id": pa.array(range(1000), pa.uint64()), "body": [f"line {number}" for number in range(1000)]})
    sink = io.BytesIO()
    match input_format:
        case "ArrowStream":
            with pa.ipc.new_stream(sink, rows.schema) as out:
                out.write_table(rows, max_chunksize=100)
        case "Arrow":
            with pa.ipc.new_file(sink, rows.schema) as out:
                out.write_table(rows, max_chunksize=100)
        case "Parquet":
            pq.write_table(rows, sink)
        case "JSONEachRow":
            sink.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows.to_pylist()))
        case _:
            separator = "," if input_format == "CSV" else "\t"
            sink.write("".join(f"{row['id']}{separator}{row['body']}\n" for row in rows.to_pylist()).encode())
    statement = f"INSERT INTO {table} (id, body) FORMAT {input_format}"
    args = {"database": "loopscope"} | ({"query": statement} if statement_in == "url" else {})
    body = sink.getvalue() if statement_in == "url" else f"{statement}\n".encode() + sink.getvalue()
    status, headers, text = ask(engine, "POST", body=body, headers=AS_WRITER, args=args)
    assert (status, text) == (200, b"")
    assert json.loads(headers["x-clickhouse-summary"])["written_rows"] == "1000"
    assert writer.query(f"SELECT count(), sum(id), any(body) FROM {table} WHERE id = 7 OR 1").result_rows[0][:2] == (
        1000,
        499500,
    )


def test_deduplication_tokens_are_honoured(engine: EngineProcess, writer: Client, table: str) -> None:
    for token, expected in (("first", 1), ("first", 1), ("second", 2)):
        status, _, text = ask(
            engine,
            "POST",
            body=b"1\tsame\n",
            headers=AS_WRITER,
            query=f"INSERT INTO loopscope.{table} (id, body) FORMAT TSV",
            insert_deduplication_token=token,
        )
        assert status == 200, text
        assert writer.command(f"SELECT count() FROM {table}") == expected


def test_a_half_sent_insert_is_none(engine: EngineProcess, writer: Client, table: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)
    connection.putrequest("POST", "/?" + urlencode({"query": f"INSERT INTO loopscope.{table} (id) FORMAT TSV"}))
    for name, value in AS_WRITER.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(b"1\n" * 1000)
    connection.close()
    # The lane is free again and nothing is there, once the engine has noticed.
    for _ in range(3):
        assert (
            ask(engine, "POST", body=b"2\n", headers=AS_WRITER, query=f"INSERT INTO loopscope.{table} (id) FORMAT TSV")[
                0
            ]
            == 200
        )
    assert writer.query(f"SELECT DISTINCT id FROM {table}").result_rows == [(2,)]


def test_errors_have_code_text_and_status(engine: EngineProcess, reader: Client) -> None:
    cases = [
        ("SELECT nope", 47, 404),
        ("SELEC 1", 62, 400),
        ("SELECT * FROM nope", 60, 404),
        ("SELECT 1; SELECT 2", 62, 400),
        ("", 62, 400),
    ]
    for sql, code, expected in cases:
        status, headers, text = ask(engine, "POST", body=sql.encode())
        assert (status, headers["x-clickhouse-exception-code"]) == (expected, str(code)), text
        assert text.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert ask(engine, "POST", path="/nowhere", body=b"SELECT 1")[0] == 404
    assert ask(engine, "PUT", body=b"SELECT 1")[0] == 405
    assert ask(engine, "POST", body=b"\xff\xfe")[0] == 400
    assert ask(engine, "POST", body=b"SELECT 1", headers={"Content-Encoding": "snappy"})[0] == 501
    assert reader.query("SELECT 1").result_rows == [(1,)]


def test_a_failure_in_the_middle_is_not_taken_for_the_end(engine: EngineProcess, reader: Client) -> None:
    sql = "SELECT number, throwIf(number = 4000000) FROM numbers(5000000)"
    for run in (
        lambda: reader.query(sql, settings={"max_threads": 1}).result_rows,
        lambda: reader.query_df(sql, settings={"max_threads": 1}),
    ):
        with pytest.raises((StreamFailureError, DatabaseError), match="395"):
            run()
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)
    connection.request("GET", "/?" + urlencode({"query": f"{sql} FORMAT TSV", "max_threads": "1"}))
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert cut.value.partial == b"" or b"__exception__" in cut.value.partial
    assert reader.query("SELECT 1").result_rows == [(1,)]


def test_small_failures_are_plain_errors_even_late(engine: EngineProcess) -> None:
    """With `wait_end_of_query`, as clickhouse-connect asks, an answer is held back until it is known to be good."""
    sql = "SELECT number, throwIf(number = 100000) FROM numbers(200000) SETTINGS max_threads = 1, max_block_size = 1000"
    status, headers, text = ask(engine, query=sql, wait_end_of_query="1")
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "395"), text


def test_long_parameters_go_as_a_form(reader: Client) -> None:
    text = "ä line\r\nand another\n" * 2000
    assert reader.query("SELECT {t:String} AS t, length(t)", parameters={"t": text}).result_rows == [
        (text, len(text.encode()))
    ]


def test_headers_tell_about_the_query(engine: EngineProcess) -> None:
    status, headers, body = ask(engine, query="SELECT 1", query_id="my-own-id", default_format="JSONEachRow")
    assert (status, body) == (200, b'{"1":1}\n')
    assert headers["x-clickhouse-query-id"] == "my-own-id"
    assert headers["x-clickhouse-timezone"] == "UTC"
    assert headers["x-clickhouse-format"] == "JSONEachRow"
    assert "elapsed_ns" in json.loads(headers["x-clickhouse-summary"])
    assert ask(engine, path="/ping")[2] == b"Ok.\n"


def test_writes_need_the_secret(engine: EngineProcess, writer: Client, table: str) -> None:
    insert = f"INSERT INTO loopscope.{table} (id) VALUES (1)".encode()
    for headers in (
        {},
        {"X-ClickHouse-User": WRITER_USER},
        {"X-ClickHouse-User": WRITER_USER, "X-ClickHouse-Key": "guess"},
    ):
        status, _, text = ask(engine, "POST", body=insert, headers=headers)
        assert status == 403, text
    assert ask(engine, "GET", headers=AS_WRITER, query=insert.decode())[0] == 403  # a link must not write
    assert writer.command(f"SELECT count() FROM {table}") == 0


def test_without_keys_only_this_machine_by_its_own_name_reads(engine: EngineProcess) -> None:
    """A page in a browser that rebinds its name to loopback is not served."""
    for host, expected in (
        (f"localhost:{engine.port}", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example:8123", 403),
    ):
        assert ask(engine, headers={"Host": host}, query="SELECT 1")[0] == expected, host


def test_the_state_is_for_the_writer(engine: EngineProcess) -> None:
    assert ask(engine, path="/loopscope/engine")[0] == 403
    status, _, body = ask(engine, path="/loopscope/engine", headers=AS_WRITER)
    state: dict[str, Any] = json.loads(body)
    assert status == 200
    assert state["version"].startswith("2")
    assert state["memory_bytes"] > 0
    assert isinstance(state["running"], list)

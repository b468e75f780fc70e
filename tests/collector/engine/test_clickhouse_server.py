"""The stand-in for a server behaves as a server does."""

from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from support.clickhouse_server import ClickHouseServer, clickhouse_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    with clickhouse_server(tmp_path / "server", database_exists=False) as running:
        yield running


def connect(server: ClickHouseServer, *, patience_seconds: int = 60) -> Client:
    """A client that names no database and does not try again."""
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=server.port,
        username=server.user,
        password=server.password,
        send_receive_timeout=patience_seconds,
        query_retries=0,
    )


def test_a_server_from_an_empty_one_to_rows(server: ClickHouseServer) -> None:
    """No database at first; wrong passwords and several statements are refused; rows come back."""
    with pytest.raises(DatabaseError, match="516"):
        clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username=server.user, password="wrong")
    with pytest.raises(DatabaseError, match="516"):
        clickhouse_connect.get_client(host="127.0.0.1", port=server.port)
    client = connect(server)
    with pytest.raises(DatabaseError, match="81"):
        client.command("SELECT 1", settings={"database": "loopscope"})
    client.command("CREATE DATABASE loopscope")
    with pytest.raises(DatabaseError, match="Multi-statements are not allowed"):
        client.command(
            "CREATE TABLE loopscope.a (x Int8) ENGINE = Memory; CREATE TABLE loopscope.b (x Int8) ENGINE = Memory"
        )
    assert client.query("SHOW TABLES FROM loopscope").result_rows == []
    client = clickhouse_connect.get_client(dsn=server.dsn)
    client.command("CREATE TABLE t (x UInt64) ENGINE = MergeTree ORDER BY x")
    client.insert("t", [[number] for number in range(1000)], column_names=["x"])
    assert client.query("SELECT sum(x) FROM t").result_rows == [(499500,)]
    assert any("INSERT INTO" in seen.query and seen.status == 200 for seen in server.requests)


def test_it_fails_stalls_and_vanishes_when_told(server: ClickHouseServer) -> None:
    client = connect(server)
    server.fail_next(2)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="told to fail"):
            client.command("SELECT 1")
    assert client.command("SELECT 1") == 1

    impatient = clickhouse_connect.get_client(
        host="127.0.0.1",
        port=server.port,
        username=server.user,
        password=server.password,
        send_receive_timeout=1,
        query_retries=0,
    )
    server.stall(60)
    with pytest.raises(OperationalError):
        impatient.command("SELECT 1")
    server.stall(0)
    assert impatient.command("SELECT 1") == 1

    server.vanish()
    with pytest.raises(OperationalError):
        client.command("SELECT 1")
    server.come_back()
    assert client.command("SELECT 1") == 1

"""Addresses of the store."""

from pathlib import Path

import pytest

from loopscope_schemas.dsn import DsnError, EmbeddedDsn, ServerDsn, parse_dsn


def test_embedded() -> None:
    """Three slashes and a directory."""
    assert parse_dsn("chdb:///var/lib/loop%20scope") == EmbeddedDsn(Path("/var/lib/loop scope"))


def test_server() -> None:
    """User, password with escapes, port, database, cluster."""
    dsn = parse_dsn("clickhouse://me:p%40ss%2Fword@db.example:9123/agents?cluster=main")
    assert dsn == ServerDsn("db.example", 9123, "me", "p@ss/word", "agents", False, "main")
    assert "p@ss" not in repr(dsn)


def test_server_defaults() -> None:
    """Port and database have the usual values; the secure scheme has the secure port; IPv6 hosts are bracketed."""
    assert parse_dsn("clickhouse://h") == ServerDsn("h", 8123)
    assert parse_dsn("clickhouses://h") == ServerDsn("h", 8443, secure=True)
    dsn = parse_dsn("clickhouse://[::1]:8123/x")
    assert isinstance(dsn, ServerDsn)
    assert dsn.url() == "http://[::1]:8123"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "postgres://h/db",
        "chdb://relative/path",
        "chdb:///",
        "clickhouse://",
        "clickhouse://h:port/db",
        "clickhouse://h/db?x=1",
    ],
)
def test_what_cannot_be_read_says_what_is_expected(text: str) -> None:
    """Never a guess, never a stack trace without advice."""
    with pytest.raises(DsnError, match=r"chdb:///|clickhouse://|cluster=NAME"):
        parse_dsn(text)


def test_a_password_is_never_shown() -> None:
    """Errors are printed and logged."""
    with pytest.raises(DsnError) as caught:
        parse_dsn("clickhouse://me:secret@h:port/db")
    assert "secret" not in str(caught.value)

"""The one place a connection to the store is made, and the one function that asks it.

Speaks the ClickHouse HTTP protocol to whatever LOOPSCOPE_DSN names: the embedded engine or a server. Reads only.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import streamlit as st
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from loopscope_schemas.dsn import ENVIRONMENT_VARIABLE, DsnError, EmbeddedDsn, ServerDsn, parse_dsn

CONNECT_SECONDS: Final = 3
QUERY_SECONDS: Final = 30
"""A page's question; the engine cuts it off, so that an abandoned page costs at most this."""


class StoreError(Exception):
    """The store did not answer. `what` happened, with the `address` (no password) and what `to_do`."""

    def __init__(self, what: str, address: str, to_do: str) -> None:
        super().__init__(f"{what} ({address}); {to_do}")
        self.what = what
        self.address = address
        self.to_do = to_do


class QueryRefusedError(Exception):
    """The store answered that it will not, or cannot, run this query: too heavy, a column is missing, ..."""


def store_dsn() -> ServerDsn:
    """The store that LOOPSCOPE_DSN names. Raises StoreError when it names none that can be asked over HTTP."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "clickhouse://127.0.0.1:8123/loopscope")
    try:
        dsn = parse_dsn(text)
    except DsnError as error:
        raise StoreError(f"LOOPSCOPE_DSN cannot be read: {error}", "no address", "correct LOOPSCOPE_DSN") from error
    if isinstance(dsn, EmbeddedDsn):
        raise StoreError(
            "LOOPSCOPE_DSN names a directory, which only the collector opens",
            f"chdb://{dsn.path}",
            "start `loopscope up`, which serves it over HTTP and starts the dashboards itself, or set "
            "LOOPSCOPE_DSN=clickhouse://user:key@127.0.0.1:8123/loopscope",
        )
    return dsn


@st.cache_resource(show_spinner=False, max_entries=2)
def _client(dsn: ServerDsn) -> Client:
    # Without a session id one client may run several queries at once; its pool is thread-safe.
    return get_client(
        host=dsn.host,
        port=dsn.port,
        username=dsn.user,
        password=dsn.password,
        database=dsn.database,
        interface="https" if dsn.secure else "http",
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=QUERY_SECONDS + 5,
        query_retries=1,
        autogenerate_session_id=False,
        client_name="loopscope-dashboards",
    )


def ask(sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """Rows of one parameterised SELECT. Raises StoreError (try again later) or QueryRefusedError (do not)."""
    dsn = store_dsn()
    try:
        client = _client(dsn)
        return client.query(
            sql, parameters=dict(parameters), settings={"max_execution_time": QUERY_SECONDS}
        ).result_rows
    except (OperationalError, OSError) as error:
        raise StoreError(_first_line(error), dsn.url(), "is the collector (`loopscope up`) running?") from error
    except DatabaseError as error:
        message = _first_line(error)
        if _is_access(message):
            raise StoreError(
                message, dsn.url(), "set LOOPSCOPE_DSN=clickhouse://any:KEY@host:port/loopscope with a valid read key"
            ) from error
        raise QueryRefusedError(message) from error
    except ClickHouseError as error:
        raise StoreError(_first_line(error), dsn.url(), "is this address a ClickHouse HTTP port?") from error


def _is_access(message: str) -> bool:
    return any(word in message for word in ("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD", "code 516", "code: 516"))


def _first_line(error: BaseException) -> str:
    """What went wrong, without the library's wrapping: for a connection, the operating system's own words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.strerror} ({type(cause).__name__})"
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:400]

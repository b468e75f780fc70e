"""The store: a ClickHouse HTTP client with our errors. The only place of the collector that makes one.

Made from the DSN of a server or from the write address of the embedded engine; both speak the same protocol. An insert
carries a deduplication token: repeated with the same token and rows, it changes nothing.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from loopscope_collector.arrow import Table, to_stream
from loopscope_schemas.dsn import ServerDsn

if TYPE_CHECKING:
    from collections.abc import Generator

    from clickhouse_connect.driver.client import Client

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 120
"""Longest wait for an answer; a store that is silent for longer is unavailable, and the batch is sent again."""

_REFUSALS: Final = frozenset(
    {
        *(6, 26, 27, 32, 33, 38, 41, 43, 44, 53, 69, 70, 72, 117, 128, 131, 190, 252, 321, 349, 407, 457, 690),
    }
)
"""Error codes of ClickHouse that speak about the data or statement: sending it again gives the same answer."""


class StoreError(Exception):
    """Something went wrong between the collector and its store."""


class StoreUnavailable(StoreError):  # noqa: N818  (it names a state of the store)
    """The store does not answer, or cannot work now: the same request may succeed later."""


class StoreRefused(StoreError):  # noqa: N818  (it names a state of the store)
    """The store read the request and refuses it: the same request will be refused again."""


class Store:
    """Connection to the store. Thread-safe; connects when it is first used, and again after a failure."""

    def __init__(
        self, dsn: ServerDsn, *, connect_seconds: float = CONNECT_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._dsn = dsn
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._client: Client | None = None
        self._lock = threading.Lock()

    @property
    def database(self) -> str:
        """Database of Loopscope's tables."""
        return self._dsn.database

    @property
    def cluster(self) -> str | None:
        """Name of the cluster, None for a single server or the embedded engine."""
        return self._dsn.cluster

    def insert(self, table: str, rows: Table, token: str) -> None:
        """Insert rows; repeated with the same token it changes nothing.

        Raises StoreUnavailable (whether the rows are in is not known then: repeat) and StoreRefused.
        """
        settings = {
            "insert_deduplication_token": token,
            "insert_deduplicate": 1,
            "async_insert": 0,
            "distributed_foreground_insert": 1,
            "input_format_arrow_case_insensitive_column_matching": 0,
        }
        with self._errors():
            self._connected().raw_insert(
                f"{self._dsn.database}.{table}",
                column_names=rows.column_names,
                insert_block=to_stream(rows),
                settings=settings,
                fmt="ArrowStream",
            )

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a SELECT with ClickHouse parameters (`{name:Type}`). Raises StoreUnavailable, StoreRefused."""
        with self._errors():
            return self._connected().query(sql, parameters=dict(parameters or {})).result_rows

    def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Table:
        """Rows of a SELECT as an Arrow table, texts as strings. Raises StoreUnavailable, StoreRefused."""
        with self._errors():
            return self._connected().query_arrow(sql, parameters=dict(parameters or {}), use_strings=True)

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that returns nothing. Raises StoreUnavailable, StoreRefused."""
        with self._errors():
            self._connected().command(sql, parameters=dict(parameters or {}))

    def close(self) -> None:
        """Close the connection. The store can be used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> "Client":
        with self._lock:
            if self._client is None:
                dsn = self._dsn
                self._client = clickhouse_connect.get_client(
                    host=dsn.host,
                    port=dsn.port,
                    username=dsn.user,
                    password=dsn.password,
                    secure=dsn.secure,
                    # The database may not exist before the first migration: names are always qualified.
                    database="default",
                    autogenerate_session_id=False,
                    connect_timeout=self._connect_seconds,
                    send_receive_timeout=self._answer_seconds,
                    query_retries=0,
                    compress=False,
                )
            return self._client

    @contextmanager
    def _errors(self) -> "Generator[None]":
        where = f"the store at {self._dsn.host}:{self._dsn.port}"
        try:
            yield
        except DatabaseError as error:
            if error.code in _REFUSALS:
                raise StoreRefused(f"{where} refuses: {str(error)[:1000]}") from error
            raise StoreUnavailable(f"{where} cannot do this now: {str(error)[:1000]}") from error
        except (ClickHouseError, OSError) as error:
            self.close()
            raise StoreUnavailable(f"{where} does not answer: {str(error)[:500]}") from error

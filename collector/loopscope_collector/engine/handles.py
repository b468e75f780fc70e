"""chDB handles: the only module that imports chDB.

Called by `reads`, `inserts`, `guard` and `kills`, from worker threads of the engine child. A handle serves one
statement and is closed: after a statement that failed midway the next one on the same handle is answered with the old
one's rows.
Opening, setting up and closing one costs 2 ms.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from chdb import ChdbError
from chdb.state.sqlitelike import Connection

from loopscope_collector.engine.config import MIB
from loopscope_collector.engine.errors import BAD_ARGUMENTS, ClickHouseError

_SERVER_SETTINGS = {
    # The engine's own defaults are 1 to 5 GiB each, for machines that do nothing else.
    "mark_cache_size": 64 * MIB,
    "index_mark_cache_size": 64 * MIB,
    "primary_index_cache_size": 64 * MIB,
    "text_index_tokens_cache_size": 96 * MIB,
    "text_index_header_cache_size": 64 * MIB,
    "text_index_postings_cache_size": 128 * MIB,
    "query_condition_cache_size": 16 * MIB,
}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")


class EngineResult(Protocol):
    """What a chDB call returns; figures are of the whole statement."""

    def bytes(self) -> bytes: ...
    def rows_read(self) -> int: ...
    def bytes_read(self) -> int: ...
    def elapsed(self) -> float: ...


class EngineInsert(Protocol):
    """A streaming insert that is open on a handle."""

    def append(self, data: bytes) -> None: ...
    def finish(self) -> Any: ...
    def cancel(self) -> None: ...


def quote(text: str) -> str:
    """`text` as a string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(text: str) -> str:
    """`text` as an identifier."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


@contextmanager
def engine_errors() -> Generator[None]:
    """Turn whatever chDB raises into `ClickHouseError`."""
    try:
        yield
    except (ChdbError, RuntimeError) as error:
        raise ClickHouseError.from_engine(error) from error


class Handle:
    """One chDB connection to the engine of this process. Not for concurrent use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def configure(self, settings: Mapping[str, str], database: str | None = None) -> None:
        """Set what this handle's only statement runs under. Raises ClickHouseError for a name the engine does not
        know."""
        if database is not None:
            self.execute(f"USE {quote_name(database)}")
        if settings:
            for name in settings:
                if _NAME.match(name) is None:
                    raise ClickHouseError(BAD_ARGUMENTS, f"{name[:80]!r} is no name of a setting")
            self.execute("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()))

    def execute(
        self, sql: str, output_format: str = "TabSeparated", params: Mapping[str, str] | None = None
    ) -> EngineResult:
        """Run one statement and hold its whole answer."""
        with engine_errors():
            return cast(EngineResult, self._connection.query(sql, output_format, params=dict(params or {})))

    def stream(self, sql: str, output_format: str, params: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Run one SELECT; each chunk is a document of its own in the output format."""
        with engine_errors():
            result = self._connection.send_query(sql, output_format, params=dict(params or {}))
        try:
            while True:
                with engine_errors():
                    chunk = cast(EngineResult | None, result.fetch())
                if chunk is None:
                    return
                yield chunk.bytes()
        finally:
            with engine_errors():
                result.close()

    def insert(self, head: str, input_format: str) -> EngineInsert:
        """Open a streaming insert; `head` is the statement without its FORMAT clause."""
        with engine_errors():
            return cast(EngineInsert, self._connection.send_insert(head, input_format))

    def classify(self, sql: str) -> tuple[str, int]:
        """Class (READ_ONLY, MUTATING, CONTROL, UNKNOWN ...) and number of statements; parses the text, runs nothing."""
        with engine_errors():
            verdict = cast(Any, self._connection)._conn.classify_query(sql)
        return str(verdict["query_class"].name), int(verdict["statement_count"])

    def close(self) -> None:
        """Give the connection back to the engine."""
        with engine_errors():
            self._connection.close()


class Engine:
    """The engine of this process on one data directory; hands out handles. Thread-safe."""

    def __init__(self, data_dir: Path) -> None:
        """Open or create the directory. Raises ClickHouseError when another process holds it."""
        self._path = f"{data_dir}?" + "&".join(f"{name}={value}" for name, value in _SERVER_SETTINGS.items())
        # Keeps the engine open between statements: with no handle open chDB closes it, and opening takes 40 ms.
        self._anchor = self.open()
        self.version = self._anchor.execute("SELECT version()", "TSVRaw").bytes().decode().strip()

    def open(self) -> Handle:
        """A new handle."""
        with engine_errors():
            return Handle(Connection(self._path))

    @contextmanager
    def handle(self, settings: Mapping[str, str] | None = None, database: str | None = None) -> Generator[Handle]:
        """A new handle with these settings, closed at the end whatever happened."""
        handle = self.open()
        try:
            handle.configure(settings or {}, database)
            yield handle
        finally:
            handle.close()

    def close(self) -> None:
        """Close the engine; every other handle must be closed before."""
        self._anchor.close()

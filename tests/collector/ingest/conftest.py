"""One engine for the tests of this folder, and a store with a database of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from support.telemetry import MemorySegment

from loopscope_collector.engine import EngineProcess
from loopscope_collector.ingest import Ingest, WriteResult
from loopscope_collector.metrics import Metrics
from loopscope_collector.queue import Record
from loopscope_collector.store import Store
from loopscope_schemas import migrate
from loopscope_schemas.dsn import ServerDsn, parse_dsn

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine that nobody kills."""
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data", port=0, write_secret="a secret") as running:
        yield running


@pytest.fixture
def store(engine: EngineProcess) -> Iterator[Store]:
    """A store with a migrated database that is empty."""
    dsn = parse_dsn(engine.write_dsn)
    assert isinstance(dsn, ServerDsn)
    made = Store(replace(dsn, database=f"test_{next(_numbers)}"))
    migrate.apply(made.query, made.command, migrate.Target(database=made.database))
    yield made
    made.command(f"DROP DATABASE {made.database} SYNC")
    made.close()


@dataclass
class World:
    """An `Ingest` over a store, with what it set aside."""

    store: Store
    metrics: Metrics = field(default_factory=Metrics)
    aside: list[tuple[Record, str]] = field(default_factory=list[tuple[Record, str]])
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.ingest = Ingest(self.store, metrics=self.metrics, **self.options)

    def write(self, *records: Record, segment: str = "") -> WriteResult:
        """Write records as one segment."""
        name = segment or f"segment-{next(_numbers)}"
        return self.ingest.write(MemorySegment(name, records), self.set_aside)  # type: ignore[arg-type]

    def set_aside(self, item: Record, reason: str) -> None:
        """The queue's dead letters."""
        self.aside.append((item, reason))

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a SELECT; `db.` stands for the database."""
        return [tuple(row) for row in self.store.query(sql.replace("db.", f"{self.store.database}."), parameters)]

    def dicts(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The same with names."""
        table = self.store.query_arrow(sql.replace("db.", f"{self.store.database}."), parameters)
        return table.to_pylist()

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the view shows it."""
        (found,) = self.dicts(
            "SELECT * EXCEPT (started_at, ended_at, last_event_at, last_seen_at, models), "
            "toUnixTimestamp64Nano(started_at) AS started_at, toUnixTimestamp64Nano(ended_at) AS ended_at, models "
            "FROM db.runs WHERE run_id = {run_id:String}",
            run_id=run_id,
        )
        return found


@pytest.fixture
def world(store: Store) -> World:
    """An ingest on an empty store."""
    return World(store)


@pytest.fixture
def worlds(store: Store) -> Callable[..., World]:
    """Further ingests on the same store, as other processes would be."""

    def make(**options: Any) -> World:
        return World(store, options=options)

    return make

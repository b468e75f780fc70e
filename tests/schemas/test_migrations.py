"""The migrations, on the real engine: what they make is what the row types and the documentation say."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopscope_collector.engine import EngineProcess
from loopscope_collector.store import Store, StoreError
from loopscope_schemas import migrate, rows
from loopscope_schemas.dsn import ServerDsn, parse_dsn
from loopscope_schemas.migrate import Migration, MigrationError, Target

ROW_TYPES = [
    item
    for item in vars(rows).values()
    if dataclasses.is_dataclass(item) and isinstance(item, type) and hasattr(item, "TABLE")
]
SCHEMA = Path(__file__).parents[2] / "docs" / "schema.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store without any table of ours."""
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data", port=0, write_secret="s") as engine:
        dsn = parse_dsn(engine.write_dsn)
        assert isinstance(dsn, ServerDsn)
        made = Store(dsn)
        yield made
        made.close()


@pytest.fixture(scope="module")
def migrated(store: Store) -> str:
    """A database with all migrations."""
    assert migrate.apply(store.query, store.command, Target(database="migrated"))
    return "migrated"


def columns(store: Store, database: str, table: str) -> list[str]:
    """Names of a table's columns in order."""
    return [row[0] for row in store.query(f"DESCRIBE {database}.{table}")]


def test_numbers_have_no_gaps() -> None:
    """0001, 0002, ... each once."""
    numbers = [item.name[:4] for item in migrate.migrations()]
    assert numbers == [f"{number:04d}" for number in range(1, len(numbers) + 1)]
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", item.name) for item in migrate.migrations())


@pytest.mark.parametrize(
    ("item", "cluster"),
    [
        (item, cluster)
        for item in migrate.migrations()
        for cluster in (None, "main")
        if cluster or not item.cluster_only
    ],
    ids=lambda value: value.name if isinstance(value, Migration) else str(value),
)
def test_each_is_one_statement_that_parses(store: Store, item: Migration, cluster: str | None) -> None:
    """For an embedded engine and for a cluster. A server refuses several statements, and so does formatQuery."""
    sql = migrate.render(item, Target(database="some_name", cluster=cluster))
    assert "$" not in sql
    ((formatted,),) = store.query("SELECT formatQuery({sql:String})", {"sql": sql})
    assert ("ON CLUSTER" in formatted) == (cluster is not None)
    if cluster and "CREATE TABLE" in formatted:
        assert ("Distributed(" in formatted) == item.cluster_only
        assert item.cluster_only or "ENGINE = Replicated" in formatted


def test_two_statements_would_be_noticed(store: Store) -> None:
    """The check above can fail."""
    with pytest.raises(StoreError, match=r"(?i)multi-statements|syntax error"):
        store.query("SELECT formatQuery({sql:String})", {"sql": "SELECT 1; SELECT 2"})


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda item: item.TABLE)
def test_rows_are_the_tables(store: Store, migrated: str, row_type: Any) -> None:
    """A field for each column, in order."""
    assert [item.name for item in dataclasses.fields(row_type)] == columns(store, migrated, row_type.TABLE)


def test_applied_twice_is_applied_once(store: Store, migrated: str) -> None:
    """The second time there is nothing to do."""
    assert migrate.apply(store.query, store.command, Target(database=migrated)) == []
    assert migrate.pending(store.query, Target(database=migrated)) == []


def test_a_crash_half_way_is_mended(store: Store) -> None:
    """Between a statement and its record, and between two migrations."""
    target = Target(database="half")
    left = 12

    def command(sql: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise ConnectionError
        store.command(sql)

    with pytest.raises(ConnectionError):
        migrate.apply(store.query, command, target)
    assert migrate.apply(store.query, store.command, target)
    assert migrate.pending(store.query, target) == []


def test_an_edited_migration_is_refused(store: Store) -> None:
    """The message names the file and what to do."""
    target = Target(database="edited")
    migrate.apply(store.query, store.command, target)
    store.command("INSERT INTO edited.schema_migrations VALUES ('0001_spans.sql', 'other', now64(3) + 1)")
    with pytest.raises(MigrationError, match=r"0001_spans.sql was edited .* add a new migration"):
        migrate.apply(store.query, store.command, target)


def test_a_newer_database_is_refused(store: Store) -> None:
    """Written by a later version."""
    target = Target(database="newer")
    migrate.apply(store.query, store.command, target)
    store.command("INSERT INTO newer.schema_migrations VALUES ('9999_future.sql', 'x', now64(3))")
    with pytest.raises(MigrationError, match="upgrade Loopscope"):
        migrate.apply(store.query, store.command, target)


@pytest.mark.parametrize("name", ["a-b", "x; DROP DATABASE y", "", "`q`"])
def test_names_that_are_no_names(name: str) -> None:
    """They never reach a statement."""
    with pytest.raises(ValueError, match="not a plain name"):
        Target(database=name)
    with pytest.raises(ValueError, match="not a plain name"):
        Target(cluster=name)


def described() -> dict[str, list[str]]:
    """Views and columns of docs/schema.md."""
    found: dict[str, list[str]] = {}
    view = ""
    for line in SCHEMA.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(\w+)`", line):
            view = heading[1]
            found[view] = []
        elif view and (cell := re.match(r"\| `(\w+)` \| [^|]+ \| [^|]{3,} \|$", line)):
            found[view].append(cell[1])
    return found


def test_every_column_of_every_view_is_described(store: Store, migrated: str) -> None:
    """docs/schema.md and the database name the same views and columns, in the same order."""
    views = [
        row[0]
        for row in store.query(
            "SELECT name FROM system.tables WHERE database = {name:String} AND engine = 'View'", {"name": migrated}
        )
    ]
    assert set(described()) == set(views)
    for view in views:
        assert described()[view] == columns(store, migrated, view), view


def test_views_answer_when_they_are_empty(store: Store, migrated: str) -> None:
    """Each of them, every column."""
    assert described()
    for view in described():
        assert store.query(f"SELECT * FROM {migrated}.{view}") == []

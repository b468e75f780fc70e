"""Applies the numbered migrations, once each, to an embedded engine, a server or a cluster alike.

Migrations are append-only files with one statement each: a ClickHouse server refuses several statements in a request,
and DDL is not transactional, so a file either happened or did not. What was applied is recorded with its checksum.
Called by the collector at its start; this module does not know how a statement reaches the database.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any, Final

Query = Callable[[str], Sequence[Sequence[Any]]]
"""Runs one statement that returns rows."""
Command = Callable[[str], object]
"""Runs one statement that returns nothing."""

DEFAULT_RETENTION_DAYS: Final = 90
DEDUPLICATION_WINDOW: Final = 10_000
"""Inserts whose tokens a table remembers: more than the segments that can wait in a full queue."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_ONLY_CLUSTER: Final = "-- only: cluster"


class MigrationError(RuntimeError):
    """The schema in the database and the migrations here do not agree. The message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, its one statement as a template, and the checksum of its text."""

    name: str
    template: str
    checksum: str
    cluster_only: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where the migrations go."""

    database: str = "loopscope"
    cluster: str | None = None
    """Name of the cluster (of `remote_servers`); None for an embedded engine or a single server."""
    retention_days: int = DEFAULT_RETENTION_DAYS

    def __post_init__(self) -> None:
        for what, value in (("database", self.database), ("cluster", self.cluster)):
            if value is not None and not _IDENTIFIER.fullmatch(value):
                raise ValueError(
                    f"{what} {value!r} is not a plain name; use letters, digits and underscores, 63 at most"
                )
        if self.retention_days < 1:
            raise ValueError(f"retention of {self.retention_days} days keeps nothing; use at least 1")


def migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    folder = files("loopscope_schemas") / "migrations"
    found: list[Migration] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".sql"):
            text = item.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(item.name, text, checksum, text.startswith(_ONLY_CLUSTER)))
    return found


def render(migration: Migration, target: Target) -> str:
    """The statement for a target: `Replicated*` engines, `ON CLUSTER` and local table names on a cluster."""
    cluster = target.cluster
    return Template(migration.template).substitute(
        database=target.database,
        cluster=cluster or "",
        on_cluster=f" ON CLUSTER '{cluster}'" if cluster else "",
        local="_local" if cluster else "",
        replicated="Replicated" if cluster else "",
        retention_days=target.retention_days,
        dedup_window=(
            f"replicated_deduplication_window = {DEDUPLICATION_WINDOW}, fsync_after_insert = 1"
            if cluster
            else f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}, fsync_after_insert = 1"
        ),
    )


def pending(query: Query, target: Target) -> list[Migration]:
    """Migrations not yet applied. Read-only. Raises MigrationError when an applied one was edited or is missing."""
    rows = query(
        f"SELECT name, argMax(checksum, applied_at) FROM {target.database}.schema_migrations GROUP BY name"  # noqa: S608  (a checked identifier)
    )
    applied = {str(name): str(checksum) for name, checksum in rows}
    known = [item for item in migrations() if target.cluster or not item.cluster_only]
    newer = sorted(set(applied) - {item.name for item in migrations()})
    if newer:
        raise MigrationError(
            f"the database has migration {newer[0]}, which this version of Loopscope does not: "
            "it was written by a newer version; upgrade Loopscope or use another database"
        )
    for item in known:
        if item.name in applied and applied[item.name] != item.checksum:
            raise MigrationError(f"{item.name} was edited after it was applied; add a new migration instead")
    return [item for item in known if item.name not in applied]


def apply(query: Query, command: Command, target: Target) -> list[str]:
    """Bring the database up to date; returns the names applied. Safe to repeat, and after a crash half way."""
    on_cluster = f" ON CLUSTER '{target.cluster}'" if target.cluster else ""
    engine = "ReplicatedMergeTree" if target.cluster else "MergeTree"
    command(f"CREATE DATABASE IF NOT EXISTS {target.database}{on_cluster}")
    command(
        f"CREATE TABLE IF NOT EXISTS {target.database}.schema_migrations{on_cluster} "
        "(name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
        f"ENGINE = {engine} ORDER BY name"
    )
    done: list[str] = []
    for item in pending(query, target):
        command(render(item, target))
        command(
            f"INSERT INTO {target.database}.schema_migrations (name, checksum) "  # noqa: S608  (our own file names)
            f"VALUES ('{item.name}', '{item.checksum}')"
        )
        done.append(item.name)
    return done

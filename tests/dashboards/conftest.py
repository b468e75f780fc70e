"""A real engine with seeded runs, and real dashboards over it, for all tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import time

from support.dashboards import Dashboards, Store, engine_in, read_dsn, seed
from support.recorded_runs import connect, migrate


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The engine with one run of each special kind and sixty ordinary ones."""
    with engine_in(tmp_path_factory.mktemp("engine")) as engine:
        client = connect(engine.write_dsn)
        migrate(client)
        found = Store(client, read_dsn(engine), time.time_ns())
        seed(found)
        yield found


@pytest.fixture
def in_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The environment of the dashboards, in this process."""
    monkeypatch.setenv("LOOPSCOPE_DSN", store.dsn)
    monkeypatch.delenv("LOOPSCOPE_READ_KEYS", raising=False)
    return store


@pytest.fixture(scope="session")
def dashboards(store: Store) -> Iterator[Dashboards]:
    """Dashboards over the seeded store."""
    found = Dashboards(store.dsn)
    try:
        yield found.wait()
    finally:
        found.stop()

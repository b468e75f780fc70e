"""One engine for the tests of this folder, and clients to it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from loopscope_collector.engine import EngineProcess

sys.path.insert(0, str(Path(__file__).parents[2]))  # for `support`

WRITE_SECRET = "a secret/with:signs@"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine without read keys; nobody may kill it or fill its tables with the names of others."""
    options = {"reader_max_seconds": 20.0, "read_queue_seconds": 60.0, "memory_limit_bytes": 8 << 30}
    with EngineProcess(
        tmp_path_factory.mktemp("engine") / "data", port=0, write_secret=WRITE_SECRET, options=options
    ) as running:
        yield running


@pytest.fixture(scope="session")
def writer(engine: EngineProcess) -> Iterator[Client]:
    """A client with the write secret."""
    client = clickhouse_connect.get_client(dsn=engine.write_dsn)
    yield client
    client.close()


@pytest.fixture(scope="session")
def reader(engine: EngineProcess) -> Iterator[Client]:
    """A client as anybody gets it on this machine."""
    client = clickhouse_connect.get_client(host="127.0.0.1", port=engine.port)
    yield client
    client.close()

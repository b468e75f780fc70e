"""Receivers on real sockets for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.receiver import Running, StartReceiver, receivers


@pytest.fixture
def start_receiver(tmp_path: Path) -> Iterator[StartReceiver]:
    """Starts receivers that end with the test."""
    with receivers(tmp_path) as start:
        yield start


@pytest.fixture
def receiver(start_receiver: StartReceiver) -> Running:
    """A receiver without keys: bodies of 1 MiB, 4 MiB decompressed, 1000 spans."""
    return start_receiver()

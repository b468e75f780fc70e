"""A running stand-in and a real client of it."""

from collections.abc import Iterator

import anthropic
import pytest

from loopscope.stub import StubServer


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


@pytest.fixture
def client(stub: StubServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stub.url, api_key="sk-secret", max_retries=0) as made:
        yield made

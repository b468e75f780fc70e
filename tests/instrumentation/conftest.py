"""What every test of the instrumentation stands on: a server, a configured Loopscope, nothing swallowed unseen."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import guard, runtime, scope

from .provider_server import Server, running_server

Configure = Callable[..., None]


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration from the environment or an earlier test; what the guard swallows is raised, or counted here."""
    for name in ("LOOPSCOPE_ENDPOINT", "LOOPSCOPE_AGENT", "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(guard, "reraise", True)
    guard.reset()
    vars(scope)["_anchors"].clear()  # of tests that break what clears it
    yield
    loopscope.shutdown(0.0)
    loopscope.instrument_anthropic().undo()
    loopscope.instrument_claude_agent_sdk().undo()
    loopscope.instrument_mcp().undo()
    assert runtime.active() is None


@pytest.fixture
def configure(server: Server, tmp_path: Path) -> Configure:
    def configured(**more: Any) -> None:
        settings: dict[str, Any] = {"agent": "tester", "endpoint": server.url, "spool_dir": tmp_path / "spool"}
        loopscope.configure(**(settings | more))

    return configured


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="test-key", base_url=server.url, max_retries=0) as made:
        yield made


def delivered() -> None:
    """Wait until everything recorded is with the server."""
    assert loopscope.flush(60), loopscope.stats()
    assert loopscope.stats()["internal_errors"] == 0


def ask(text: str = "hello", **more: Any) -> Any:
    """Arguments of `messages.create`; untyped, as tests pass what types would refuse."""
    return {
        "model": "claude-sonnet-4-6",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": text}],
        **more,
    }

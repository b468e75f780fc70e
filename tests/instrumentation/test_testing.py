"""The test kit for users: it fails for agents that do not end gracefully, and for tests that prove nothing."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import runtime
from loopscope.stub import Ask, StubServer, ToolCall, Turn
from loopscope.testing import assert_graceful_limit

from .agent_loops import ASYNC, MODEL, SYNC


@pytest.fixture
def stub() -> Iterator[StubServer]:
    def endless(ask: Ask) -> Turn:
        return Turn(tool_calls=(ToolCall("lookup", {"key": f"k{ask.step}"}),))

    with StubServer() as running:
        running.add_script("endless", endless)
        running.add_script("short", lambda _: Turn(text="done"))
        yield running


def client_of(stub: StubServer, script: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="k", base_url=stub.url, max_retries=0, default_headers={"x-stub-script": f"{script}/1"}
    )


def test_a_graceful_agent(stub: StubServer) -> None:
    with client_of(stub, "endless") as client:
        answers = assert_graceful_limit(lambda: SYNC["create"](client, "go"), max_turns=2)
    assert len(answers) == 3
    assert answers[-1].stop_reason == "end_turn"
    assert runtime.active() is None, "left as it was found"


def test_an_agent_that_is_a_declared_run(stub: StubServer) -> None:
    @loopscope.agent(name="declared")
    def agent() -> Any:
        with client_of(stub, "endless") as client:
            return SYNC["create"](client, "go")

    assert len(assert_graceful_limit(agent, max_turns=3)) == 4


def test_async_agents_and_generators(stub: StubServer) -> None:
    async def agent() -> Any:
        async with anthropic.AsyncAnthropic(
            api_key="k", base_url=stub.url, default_headers={"x-stub-script": "endless/2"}
        ) as client:
            return await ASYNC["async stream"](client, "go")

    async def generating() -> AsyncIterator[Any]:
        for answer in await agent():
            yield answer

    assert len(assert_graceful_limit(agent)) == 2
    assert len(assert_graceful_limit(generating)) == 2


def test_an_agent_that_raises(stub: StubServer) -> None:
    def agent() -> None:
        with client_of(stub, "endless") as client:
            answers = SYNC["create"](client, "go")
            raise LookupError(answers[-1].content[0].input)

    with pytest.raises(AssertionError, match=r"max_turns: it raised AttributeError") as raised:
        assert_graceful_limit(agent)
    assert isinstance(raised.value.__cause__, AttributeError)


def test_an_agent_that_goes_on_and_on(stub: StubServer) -> None:
    def agent() -> None:
        with client_of(stub, "endless") as client:
            while True:
                try:
                    client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "go"}])
                except Exception:  # noqa: BLE001 - an agent that catches all
                    continue

    with pytest.raises(AssertionError, match="went on asking"):
        assert_graceful_limit(agent)


def test_a_limit_that_is_never_reached(stub: StubServer) -> None:
    with client_of(stub, "short") as client, pytest.raises(AssertionError, match="never reached"):
        assert_graceful_limit(lambda: SYNC["create"](client, "go"), limits=loopscope.Limits(max_turns=5))


def test_an_error_before_the_limit_is_the_agents_own() -> None:
    def agent() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        assert_graceful_limit(agent)

"""Runs and steps that a generator enters with `with`: they are where the generator is, and nowhere else."""

import asyncio
import contextvars
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import anthropic
import anyio
import anyio.to_thread
import pytest

import loopscope
from loopscope._internal import scope

from .conftest import Configure, ask, delivered
from .provider_server import Server


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not scope.amid_generators(scope.current.get())
    assert loopscope.current_run() is None


def steps(name: str) -> Iterator[Any]:
    with loopscope.run(name) as run:
        yield run
        for _ in range(3):
            yield loopscope.current_run()
        with loopscope.step("inner"):
            yield loopscope.current_run()


def test_the_consumer_is_not_in_the_generators_run(configure: Configure) -> None:
    configure()
    with loopscope.run("outer") as outer:
        for found in steps("a"):
            assert found is not outer
            assert loopscope.current_run() is outer
            with loopscope.run("between") as between:
                assert loopscope.current_run() is between
            assert loopscope.current_run() is outer


def test_interleaved_generators_are_no_sub_agents_of_each_other(server: Server, configure: Configure) -> None:
    configure()
    a, b = steps("a"), steps("b")
    first, second = next(a), next(b)
    assert first is not second
    for _ in range(4):
        assert next(a) is first
        assert next(b) is second
    assert loopscope.current_run() is None
    assert list(a) == list(b) == []
    delivered()
    runs = [span for span in server.spans() if span.operation == "invoke_agent"]
    assert [span.get("loopscope.run.parent_id") for span in runs] == [None, None]
    for span in server.spans():
        assert span["loopscope.run.id"] in (first.id, second.id)


def test_each_step_in_another_thread_or_context(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    """As web frameworks stream an answer: every step in a worker thread, in a new copy of the context."""
    configure()

    def answers() -> Iterator[str]:
        with loopscope.run("streaming"):
            for number in range(3):
                client.messages.create(**ask(str(number)))
                yield str(number)

    async def main() -> None:
        generator = answers()
        while await anyio.to_thread.run_sync(next, generator, None) is not None:
            assert loopscope.current_run() is None

    anyio.run(main)
    in_contexts = answers()
    for _ in range(4):
        contextvars.Context().run(next, in_contexts, None)
    delivered()
    runs = {span["loopscope.run.id"] for span in server.spans() if span.operation == "invoke_agent"}
    assert len(runs) == 2
    assert {call["loopscope.run.id"] for call in server.calls()} == runs
    assert [call["loopscope.turn"] for call in server.calls()] == [1, 2, 3, 1, 2, 3]


@contextmanager
def a_block(name: str) -> Generator[loopscope.Run]:
    with loopscope.run(name) as run:
        yield run


@asynccontextmanager
async def an_async_block(name: str) -> AsyncGenerator[loopscope.Run]:
    async with loopscope.run(name) as run:
        yield run


def test_context_managers_made_of_generators_hold_their_run_around_the_block(configure: Configure) -> None:
    configure()

    async def main() -> None:
        async with an_async_block("c") as run:
            assert loopscope.current_run() is run
            await asyncio.gather(*(asyncio.to_thread(lambda: loopscope.current_run() is run) for _ in range(2)))
        assert loopscope.current_run() is None

    with a_block("a") as outer, a_block("b") as inner:
        assert loopscope.current_run() is inner
        assert inner is not outer
    with ExitStack() as stack:
        run = stack.enter_context(loopscope.run("d"))
        assert loopscope.current_run() is run
    asyncio.run(main())


def test_an_abandoned_generator_ends_its_run_and_disturbs_no_other(server: Server, configure: Configure) -> None:
    configure()
    waiting = steps("abandoned")
    next(waiting)
    with loopscope.run("r") as run:
        del waiting
        gc.collect()
        assert loopscope.current_run() is run
    delivered()
    outcomes = {span["gen_ai.agent.name"]: span["loopscope.run.outcome"] for span in server.spans()}
    assert outcomes == {"abandoned": "partial", "r": "completed"}


def test_tasks_and_threads_made_inside_and_around(configure: Configure) -> None:
    configure()

    async def where() -> Any:
        await asyncio.sleep(0)
        return loopscope.current_run()

    async def agent(name: str) -> AsyncIterator[tuple[Any, Any, Any]]:
        async with loopscope.run(name) as run:
            for _ in range(3):
                found = await asyncio.create_task(where())
                in_thread = await asyncio.get_running_loop().run_in_executor(None, loopscope.current_run)
                yield run, found, in_thread

    async def main() -> None:
        a, b = agent("a"), agent("b")
        for _ in range(3):
            for generator in (a, b):
                run, in_task, in_thread = await anext(generator)
                assert in_task is run
                assert in_thread is run
                assert await asyncio.create_task(where()) is None
                assert await where() is None
        await a.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        await b.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    asyncio.run(main())


def test_an_agent_generator_inside_of_a_generators_run(configure: Configure) -> None:
    configure()

    @loopscope.agent(name="inner")
    def inner() -> Iterator[Any]:
        while True:
            yield loopscope.current_run()

    def outer(source: Iterator[Any]) -> Iterator[tuple[Any, Any, Any]]:
        with loopscope.run("outer") as run:
            while True:
                yield run, next(source), loopscope.current_run()

    shared = inner()
    before = next(shared)
    first, second = outer(shared), outer(shared)
    for _ in range(2):
        for generator in (first, second):
            run, in_source, after = next(generator)
            assert in_source is before
            assert after is run
    for generator in (first, second, shared):
        generator.close()  # pyright: ignore[reportAttributeAccessIssue]

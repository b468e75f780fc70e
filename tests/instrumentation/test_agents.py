"""Runs: `@agent` on every kind of function, `run(...)` blocks, outcomes, nesting."""

import asyncio
import contextvars
import inspect
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest

import loopscope

from .conftest import Configure, ask, delivered
from .provider_server import Recorded, Server


def runs(server: Server) -> dict[str, Recorded]:
    return {span["gen_ai.agent.name"]: span for span in server.spans() if span.operation == "invoke_agent"}


def test_a_function(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(environment="staging", user_id="u1", conversation_id="c1")
    inside: list[loopscope.Run | None] = []

    @loopscope.agent(name="helper", version="7", config={"depth": 3})
    def helper(question: str, *, depth: int = 3) -> dict[str, Any]:
        """Says so."""
        inside.append(loopscope.current_run())
        client.messages.create(**ask(question))
        client.messages.create(**ask(question))
        return {"said": question}

    assert helper.__doc__ == "Says so."
    assert list(inspect.signature(helper).parameters) == ["question", "depth"]
    assert helper("why?", depth=4) == {"said": "why?"}
    assert loopscope.current_run() is None
    delivered()
    run = runs(server)["helper"]
    assert inside[0] is not None
    assert run["loopscope.run.id"] == inside[0].id == inside[0].trace_id == run.span.trace_id.hex()
    assert inside[0].turn == 2
    assert json.loads(run["loopscope.run.input"]) == {"question": "why?", "depth": 4}
    assert json.loads(run["loopscope.run.final_answer"]) == {"said": "why?"}
    assert json.loads(run["loopscope.run.config"]) == {"depth": 3}
    assert run["loopscope.run.outcome"] == "completed"
    assert run["gen_ai.agent.version"] == "7"
    assert run["user.id"] == "u1"
    assert run["gen_ai.conversation.id"] == "c1"
    assert run.resource["deployment.environment.name"] == "staging"
    assert run.span.kind == 1
    calls = server.calls()
    assert [call["loopscope.turn"] for call in calls] == [1, 2]
    for call in calls:
        assert call["loopscope.run.id"] == inside[0].id
        assert call.span.parent_span_id == run.span.span_id
        assert call["gen_ai.agent.version"] == "7"
        assert call["user.id"] == "u1"


def test_an_exception_leaves_as_it_came(server: Server, configure: Configure) -> None:
    configure()
    raised = RuntimeError("broken \ud800")

    @loopscope.agent
    def fails() -> None:
        raise raised

    with pytest.raises(RuntimeError) as caught:
        fails()
    assert caught.value is raised
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    delivered()
    run = runs(server)["fails"]
    assert run.failed
    assert run["loopscope.run.outcome"] == "failed"
    assert run["error.type"] == "RuntimeError"
    (event,) = run.span.events
    assert event.name == "exception"
    values = {item.key: item.value.string_value for item in event.attributes}
    assert values["exception.type"] == "RuntimeError"
    assert values["exception.message"] == "broken \\ud800"
    assert "raise raised" in values["exception.stacktrace"]


def test_a_run_block(server: Server, configure: Configure) -> None:
    configure()
    with loopscope.run("block", input=["a"], task_id="t", version="2", config={"k": {1, 2}}) as run:
        run.event("routed", to="billing", confidence=0.5, why={"because": ["x"]})
        run.outcome("escalated")
        run.final_answer = "see a human"
    delivered()
    span = runs(server)["block"]
    assert span["loopscope.run.outcome"] == "escalated"
    assert json.loads(span["loopscope.run.final_answer"]) == "see a human"
    assert span["loopscope.task.id"] == "t"
    assert json.loads(span["loopscope.run.config"])["k"]["type"] == "builtins.set"
    (event,) = span.span.events
    assert event.name == "routed"
    assert {item.key for item in event.attributes} == {"to", "confidence", "why"}


def test_an_outcome_that_is_none_changes_nothing(server: Server, configure: Configure) -> None:
    configure()
    with loopscope.run("odd") as run:
        wrong: Any = "splendid"
        run.outcome(wrong)
    delivered()
    assert runs(server)["odd"]["loopscope.run.outcome"] == "completed"


def test_nested_runs_are_sub_agents(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()

    @loopscope.tool
    def delegate() -> str:
        with loopscope.run("inner", conversation_id=None) as inner:
            client.messages.create(**ask())
            return inner.id

    with loopscope.run("outer", conversation_id="conv", task_id="t") as outer:
        client.messages.create(**ask())
        inner_id = delegate()
        client.messages.create(**ask())
    delivered()
    inner = runs(server)["inner"]
    (tool,) = [span for span in server.spans() if span.operation == "execute_tool"]
    assert inner_id not in (outer.id, outer.trace_id)
    assert inner["loopscope.run.id"] == inner_id
    assert inner["loopscope.run.parent_id"] == outer.id == tool["loopscope.run.id"]
    assert inner.span.parent_span_id == tool.span.span_id
    assert inner.span.trace_id.hex() == outer.trace_id
    assert inner["gen_ai.conversation.id"] == "conv"
    assert inner["loopscope.task.id"] == "t"
    assert [(c["loopscope.run.id"], c["loopscope.turn"]) for c in server.calls()] == [
        (outer.id, 1),
        (inner_id, 1),
        (outer.id, 2),
    ]


def test_async_functions_and_blocks(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.agent
    async def worker(number: int) -> int:
        run = loopscope.current_run()
        await asyncio.sleep(0)
        assert loopscope.current_run() is run
        return number

    async def main() -> None:
        async with loopscope.run("group"):
            assert await asyncio.gather(*(worker(n) for n in range(5))) == [0, 1, 2, 3, 4]

    assert inspect.iscoroutinefunction(worker)
    asyncio.run(main())
    delivered()
    workers = [span for span in server.spans() if span["gen_ai.agent.name"] == "worker"]
    assert len({span["loopscope.run.id"] for span in workers}) == 5
    assert {span["loopscope.run.parent_id"] for span in workers} == {runs(server)["group"]["loopscope.run.id"]}


def test_a_cancelled_run_failed(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.agent
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    delivered()
    assert runs(server)["waits"]["error.type"] == "asyncio.exceptions.CancelledError"


def test_generators_keep_their_run_to_themselves(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    seen: list[Any] = []

    @loopscope.agent
    def talks(start: int) -> Iterator[int]:
        run = loopscope.current_run()
        seen.append(run)
        got = yield start
        seen.append(got)
        client.messages.create(**ask())
        try:
            yield start + 1
        except KeyError as error:
            seen.append(error)
            yield start + 2
        seen.append(loopscope.current_run() is run)
        return "done"

    generator: Any = talks(1)
    assert inspect.isgeneratorfunction(talks)
    assert next(generator) == 1
    assert loopscope.current_run() is None
    assert generator.send("sent") == 2
    thrown = KeyError("thrown")
    assert generator.throw(thrown) == 3
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "done"
    assert seen[1:] == ["sent", thrown, True]
    delivered()
    run = runs(server)["talks"]
    assert run["loopscope.run.outcome"] == "completed"
    assert json.loads(run["loopscope.run.final_answer"]) == "done"
    assert server.calls()[0]["loopscope.run.id"] == run["loopscope.run.id"]


def test_a_generator_closed_early_is_partial(server: Server, configure: Configure) -> None:
    configure()
    cleaned: list[bool] = []

    @loopscope.agent
    def stopped() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(loopscope.current_run() is not None)

    for _ in stopped():
        break
    delivered()
    assert cleaned == [True]
    assert runs(server)["stopped"]["loopscope.run.outcome"] == "partial"


def test_async_generators(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.agent
    async def streams(count: int) -> AsyncIterator[int]:
        for number in range(count):
            assert loopscope.current_run() is not None
            yield number
        if count == 2:
            raise ValueError(count)

    async def main() -> None:
        assert [n async for n in streams(3)] == [0, 1, 2]
        assert loopscope.current_run() is None
        with pytest.raises(ValueError, match="2"):
            async for _ in streams(2):
                pass

    asyncio.run(main())
    delivered()
    outcomes = [span["loopscope.run.outcome"] for span in server.spans()]
    assert outcomes == ["completed", "failed"]


def test_a_thread_with_a_copied_context_is_inside_the_run(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    with loopscope.run("threads") as run:

        def call() -> None:
            client.messages.create(**ask())

        thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
        thread.start()
        thread.join()
    delivered()
    assert server.calls()[0]["loopscope.run.id"] == run.id


def test_without_configure_everything_works_and_nothing_is_recorded() -> None:
    @loopscope.agent
    def plain(a: int) -> int:
        with loopscope.run("x") as run:
            run.event("nothing")
            run.outcome("partial")
            run.final_answer = a
            assert len(run.id) == 32
            assert run.trace_id is None
        return a

    @loopscope.tool
    def doubled(a: int) -> int:
        return 2 * a

    assert plain(3) == 3
    assert doubled(3) == 6
    assert loopscope.flush(1)
    assert loopscope.stats()["spans_recorded"] == 0

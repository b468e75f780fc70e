"""Steps, events, routing decisions and outcomes of a run."""

import asyncio
import inspect
import json
import threading
from typing import Any

import anthropic
import pytest

import loopscope

from .conftest import Configure, ask, delivered
from .provider_server import Recorded, Server, python_value


def by_label(server: Server) -> dict[str, Recorded]:
    found: dict[str, Recorded] = {}
    for span in server.spans():
        label = span.get("loopscope.step.name") or span.get("gen_ai.tool.name")
        found[label or f"{span.operation} {span['gen_ai.agent.name']}"] = span
    return found


def events(span: Recorded) -> list[tuple[str, dict[str, Any]]]:
    return [
        (event.name, {item.key: python_value(item.value) for item in event.attributes}) for event in span.span.events
    ]


def test_what_happens_in_a_step_is_below_it_and_in_the_run(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()

    @loopscope.tool
    def look() -> None: ...

    with loopscope.run("r", task_id="t") as run:
        with run.step("plan") as step:
            assert step.name == "plan"
            client.messages.create(**ask())
            with run.step("detail"):
                look()
            with loopscope.run("sub"):
                pass
        client.messages.create(**ask())
    delivered()
    found = by_label(server)
    plan, detail = found["plan"], found["detail"]
    assert plan.operation == "step"
    assert plan.span.name == "step plan"
    assert plan.span.kind == 1
    assert plan["loopscope.task.id"] == "t"
    assert plan.span.parent_span_id == found["invoke_agent r"].span.span_id
    assert detail.span.parent_span_id == plan.span.span_id
    assert found["look"].span.parent_span_id == detail.span.span_id
    assert found["invoke_agent sub"].span.parent_span_id == plan.span.span_id
    assert found["invoke_agent sub"]["loopscope.run.parent_id"] == run.id
    first, second = server.calls()
    assert first.span.parent_span_id == plan.span.span_id
    assert second.span.parent_span_id == found["invoke_agent r"].span.span_id
    for span in (plan, detail, found["look"], first, second):
        assert span["loopscope.run.id"] == run.id
    assert [first["loopscope.turn"], second["loopscope.turn"]] == [1, 2]
    assert {span.get("loopscope.step.name") for span in server.markers()} <= {None, "plan", "detail"}


def test_an_exception_marks_the_step_and_goes_on(server: Server, configure: Configure) -> None:
    configure()
    raised = ConnectionError("gone")
    with loopscope.run("r") as run:
        with pytest.raises(ConnectionError) as caught, run.step("fetch"):
            raise raised
        assert caught.value is raised
        assert loopscope.current_run() is run
    delivered()
    found = by_label(server)
    assert found["fetch"].failed
    assert found["fetch"]["error.type"] == "ConnectionError"
    assert found["fetch"]["loopscope.error.class"] == "transient"
    assert not found["invoke_agent r"].failed


def test_steps_of_coroutines_and_as_decorators(server: Server, configure: Configure) -> None:
    configure()

    @loopscope.step("sum")
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    @loopscope.step("wait")
    async def wait(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        async with loopscope.run("r") as run:
            assert await asyncio.gather(*(wait(n) for n in range(5))) == [0, 1, 2, 3, 4]
            async with run.step("block"):
                assert add(1, b=2) == 3

            @run.step("of this run")
            def inside() -> loopscope.Run | None:
                return loopscope.current_run()

            assert inside() is run

    assert str(inspect.signature(add)) == "(a: int, b: int = 1) -> int"
    assert add.__doc__ == "Adds."
    assert inspect.iscoroutinefunction(wait)
    assert add(1) == 2, "outside of a run"
    asyncio.run(main())
    delivered()
    found = by_label(server)
    assert len([span for span in server.spans() if span.get("loopscope.step.name") == "wait"]) == 5
    assert found["sum"].span.parent_span_id == found["block"].span.span_id
    assert found["of this run"]["loopscope.run.id"] == found["invoke_agent r"]["loopscope.run.id"]
    assert len([span for span in server.spans() if span.get("loopscope.step.name") == "sum"]) == 1


def test_one_step_object_entered_again_and_by_several_threads(server: Server, configure: Configure) -> None:
    configure()
    barrier = threading.Barrier(4)
    with loopscope.run("r") as run:
        step = run.step("shared")

        def enter() -> None:
            with step:
                barrier.wait(60)
                inner = loopscope.run("inner")
                with inner:
                    barrier.wait(60)

        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with step, step:
            pass
    delivered()
    steps = [span for span in server.spans() if span.operation == "step"]
    parents = [span.span.parent_span_id for span in server.spans() if span["gen_ai.agent.name"] == "inner"]
    assert len(steps) == len({span.span.span_id for span in steps}) == 6
    assert len(set(parents)) == 4
    assert set(parents) < {span.span.span_id for span in steps}


def test_a_step_of_an_outer_run_inside_of_a_sub_agent(server: Server, configure: Configure) -> None:
    configure()
    with loopscope.run("outer") as outer, loopscope.run("inner") as inner:
        with outer.step("outer's"):
            assert loopscope.current_run() is outer
        assert loopscope.current_run() is inner
    delivered()
    found = by_label(server)
    assert found["outer's"]["loopscope.run.id"] == outer.id
    assert found["outer's"].span.parent_span_id == found["invoke_agent outer"].span.span_id


def test_routes_and_events_are_on_the_run(server: Server, configure: Configure) -> None:
    configure()
    with loopscope.run("r") as run:
        run.route(
            "claude-haiku-4-5",
            name="model",
            alternatives=["claude-haiku-4-5", {"model": "claude-opus-4-8", "score": 0.2}],
            reason="short question",
            confidence=0.9,
        )
        with loopscope.step("s"):
            loopscope.route("billing")
            loopscope.event("noted", why={"because": 1})
        run.outcome("escalated")
    delivered()
    span = by_label(server)["invoke_agent r"]
    assert span["loopscope.run.outcome"] == "escalated"
    (first, full), (second, short), (third, noted) = events(span)
    assert first == second == "loopscope.route"
    assert json.loads(full.pop("loopscope.route.alternatives")) == [
        "claude-haiku-4-5",
        {"model": "claude-opus-4-8", "score": 0.2},
    ]
    assert full == {
        "loopscope.route.chosen": "claude-haiku-4-5",
        "loopscope.route.name": "model",
        "loopscope.route.reason": "short question",
        "confidence": 0.9,
    }
    assert short == {"loopscope.route.chosen": "billing"}
    assert third == "noted"
    assert json.loads(noted["why"]) == {"because": 1}


@pytest.mark.parametrize("outcome", ["completed", "partial", "limit", "failed", "escalated"])
def test_every_outcome(server: Server, configure: Configure, outcome: Any) -> None:
    configure()

    def leaves() -> None:
        with loopscope.run("r") as run:
            run.outcome(outcome)
            raise KeyError

    with pytest.raises(KeyError):
        leaves()
    delivered()
    assert server.spans()[0]["loopscope.run.outcome"] == outcome


def test_without_a_run_or_a_configuration_nothing_happens(server: Server, configure: Configure) -> None:
    for _ in range(2):
        with loopscope.step("none"):
            loopscope.event("e")
            loopscope.route("x", alternatives=["y"])
        assert loopscope.step("none")(len)([1]) == 1
        configure()
    delivered()
    assert server.spans() == []
    loopscope.shutdown()
    with loopscope.run("unrecorded") as run, run.step("s"):
        run.route("x", reason="r")
    assert loopscope.stats()["spans_recorded"] == 0

"""No span in the wrong run: many runs at once over asyncio tasks, threads, pools and generators, in any interleaving.

Every prompt says which run it was asked in and below which span, so what was recorded is compared with what was meant.
"""

import asyncio
import functools
import itertools
import json
import random
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loopscope

from .conftest import ask, delivered
from .provider_server import Recorded, Server, running_server

AT_ONCE = 200
LEAVES = ("call", "tool", "step")
NESTED = ("call", "tool", "step", "sub", "generators", "agent_generators")
SYNC = (*NESTED, "thread", "timer", "pool", "pool_map")
ASYNC = (*NESTED, "gather", "to_thread", "run_in_executor")
WAITS_FOR_THE_POOL = ("pool", "pool_map", "to_thread", "run_in_executor")


@dataclass
class Node:
    """Something that an agent does, and what it does inside of that."""

    kind: str
    inner: list["Node"] = field(default_factory=list["Node"])


@dataclass
class Place:
    """Where a call is meant to be: the run's marker, and the label of the span right around it."""

    run: str
    parent: str


Plan = list[Node]


def a_plan(choose: random.Random, kinds: tuple[str, ...], depth: int) -> Plan:
    plan: Plan = []
    for _ in range(choose.randint(1, 3)):
        kind = choose.choice(kinds) if depth else "call"
        # Work in the pool never waits for the pool: that would be a deadlock of the test's own.
        within = LEAVES if kind in WAITS_FOR_THE_POOL else kinds
        plan.append(Node(kind, [] if kind == "call" else a_plan(choose, within, depth - 1)))
    return plan


class World:
    """The real SDK's clients and a pool that all runs share, and labels for everything that is recorded."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.pool = ThreadPoolExecutor(6)
        self.client = anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=4)
        self._numbers = itertools.count()

    def label(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def async_client(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(api_key="k", base_url=self.url, max_retries=4)

    def close(self) -> None:
        self.pool.shutdown()
        self.client.close()


def prompt(place: Place) -> str:
    return json.dumps([place.run, place.parent])


class Threads:
    """Carries plans out in threads."""

    def __init__(self, world: World) -> None:
        self.world = world

    def agent(self, plan: Plan) -> None:
        self.sub(Node("sub", plan), Place("", ""))

    def do(self, plan: Plan, place: Place) -> None:
        for node in plan:
            getattr(self, node.kind)(node, place)

    def call(self, node: Node, place: Place) -> None:
        self.world.client.messages.create(**ask(prompt(place)))

    def tool(self, node: Node, place: Place) -> None:
        label = self.world.label("tool")
        loopscope.tool(name=label)(self.do)(node.inner, Place(place.run, label))

    def step(self, node: Node, place: Place) -> None:
        label = self.world.label("step")
        with loopscope.step(label):
            self.do(node.inner, Place(place.run, label))

    def sub(self, node: Node, place: Place) -> None:
        marker = self.world.label("run")
        with loopscope.run(marker):
            self.do(node.inner, Place(marker, marker))

    def thread(self, node: Node, place: Place) -> None:
        self._beside(threading.Thread(target=self.do, args=(node.inner, place)), node, place)

    def timer(self, node: Node, place: Place) -> None:
        self._beside(threading.Timer(0.0, self.do, (node.inner, place)), node, place)

    def _beside(self, thread: threading.Thread, node: Node, place: Place) -> None:
        thread.start()
        self.call(node, place)
        thread.join()

    def pool(self, node: Node, place: Place) -> None:
        futures = [self.world.pool.submit(self.do, [inner], place) for inner in node.inner]
        self.call(node, place)
        for future in futures:
            future.result()

    def pool_map(self, node: Node, place: Place) -> None:
        list(self.world.pool.map(self.do, [[inner] for inner in node.inner], itertools.repeat(place)))

    def generators(self, node: Node, place: Place) -> None:
        self._interleave(self._generator, node, place)

    def agent_generators(self, node: Node, place: Place) -> None:
        self._interleave(self._agent_generator, node, place)

    def _interleave(self, make: Callable[[Plan], Iterator[None]], node: Node, place: Place) -> None:
        waiting = [make(node.inner), make(node.inner[:1])]
        while waiting:
            generator = waiting.pop(0)
            for _ in generator:
                waiting.append(generator)
                break
            self.call(node, place)

    def _generator(self, plan: Plan) -> Iterator[None]:
        marker = self.world.label("run")
        with loopscope.run(marker):
            yield
            for inner in plan:
                self.do([inner], Place(marker, marker))
                yield
            label = self.world.label("step")
            with loopscope.step(label):
                yield
                self.do(plan[:1], Place(marker, label))

    def _agent_generator(self, plan: Plan) -> Iterator[None]:
        marker = self.world.label("run")

        @loopscope.agent(name=marker)
        def steps() -> Iterator[None]:
            for inner in plan:
                self.do([inner], Place(marker, marker))
                yield

        return steps()


class Tasks:
    """Carries plans out in asyncio tasks."""

    def __init__(self, world: World, client: anthropic.AsyncAnthropic) -> None:
        self.world = world
        self.client = client
        self.threads = Threads(world)

    async def agent(self, plan: Plan) -> None:
        await self.sub(Node("sub", plan), Place("", ""))

    async def do(self, plan: Plan, place: Place) -> None:
        for node in plan:
            await getattr(self, node.kind)(node, place)

    async def call(self, node: Node, place: Place) -> None:
        await self.client.messages.create(**ask(prompt(place)))

    async def tool(self, node: Node, place: Place) -> None:
        label = self.world.label("tool")

        @loopscope.tool(name=label)
        async def act() -> None:
            await self.do(node.inner, Place(place.run, label))

        await act()

    async def step(self, node: Node, place: Place) -> None:
        label = self.world.label("step")
        async with loopscope.step(label):
            await self.do(node.inner, Place(place.run, label))

    async def sub(self, node: Node, place: Place) -> None:
        marker = self.world.label("run")
        async with loopscope.run(marker):
            await self.do(node.inner, Place(marker, marker))

    async def gather(self, node: Node, place: Place) -> None:
        await asyncio.gather(*(self.do([inner], place) for inner in node.inner), self.call(node, place))

    async def to_thread(self, node: Node, place: Place) -> None:
        await asyncio.gather(*(asyncio.to_thread(self.threads.do, [inner], place) for inner in node.inner))

    async def run_in_executor(self, node: Node, place: Place) -> None:
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self.world.pool, self.threads.do, [inner], place) for inner in node.inner]
        await self.call(node, place)
        await asyncio.gather(*waiting)

    async def generators(self, node: Node, place: Place) -> None:
        await self._interleave(self._generator, node, place)

    async def agent_generators(self, node: Node, place: Place) -> None:
        await self._interleave(self._agent_generator, node, place)

    async def _interleave(self, make: Callable[[Plan], AsyncIterator[None]], node: Node, place: Place) -> None:
        waiting = [make(node.inner), make(node.inner[:1])]
        while waiting:
            generator = waiting.pop(0)
            # A task made while a generator is suspended belongs to the code that makes it.
            async for _ in generator:
                waiting.append(generator)
                break
            await self.call(node, place)

    async def _generator(self, plan: Plan) -> AsyncIterator[None]:
        marker = self.world.label("run")
        async with loopscope.run(marker):
            yield
            for inner in plan:
                await self.do([inner], Place(marker, marker))
                yield
            label = self.world.label("step")
            with loopscope.step(label):
                yield
                await self.do(plan[:1], Place(marker, label))

    def _agent_generator(self, plan: Plan) -> AsyncIterator[None]:
        marker = self.world.label("run")

        @loopscope.agent(name=marker)
        async def steps() -> AsyncIterator[None]:
            for inner in plan:
                await self.do([inner], Place(marker, marker))
                yield

        return steps()


def at_once(server: Server, in_threads: list[Plan], in_tasks: list[Plan]) -> None:
    """Carry out all plans together: each of the first in a thread of its own, the others as tasks of one loop."""
    world = World(server)
    failures: list[BaseException] = []

    def guarded(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - it is raised where the test sees it
            failures.append(error)

    async def tasks() -> None:
        async with world.async_client() as client:
            actor = Tasks(world, client)
            running: list[Awaitable[None]] = [asyncio.ensure_future(actor.agent(plan)) for plan in in_tasks]
            await asyncio.gather(*running)

    actor = Threads(world)
    threads = [threading.Thread(target=guarded, args=(functools.partial(actor.agent, plan),)) for plan in in_threads]
    threads.append(threading.Thread(target=guarded, args=(lambda: asyncio.run(tasks()),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.close()
    if failures:
        raise failures[0]


def check(server: Server, top_level: int) -> int:
    """Every call where its prompt says that it is; the number of calls."""
    spans = server.spans()
    assert len({span.span.span_id for span in spans}) == len(spans)
    labelled: dict[str, Recorded] = {}
    for span in spans:
        match span.operation:
            case "invoke_agent":
                labelled[span["gen_ai.agent.name"]] = span
            case "execute_tool":
                labelled[span["gen_ai.tool.name"]] = span
            case "step":
                labelled[span["loopscope.step.name"]] = span
            case _:
                pass
    by_id = {span.span.span_id: span for span in spans}
    turns: dict[str, list[int]] = defaultdict(list)
    calls = server.calls()
    for call in calls:
        text = json.loads(call["loopscope.request.body"])["messages"][0]["content"]
        run, parent = json.loads(text)
        assert call["loopscope.run.id"] == labelled[run]["loopscope.run.id"], text
        assert call["gen_ai.agent.name"] == run
        assert call.span.parent_span_id == labelled[parent].span.span_id, text
        assert call.span.trace_id == labelled[run].span.trace_id
        turns[call["loopscope.run.id"]].append(call["loopscope.turn"])
    assert len(calls) == len(server.messages)
    for numbers in turns.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    runs = [span for span in spans if span.operation == "invoke_agent"]
    assert len([span for span in runs if not span.span.parent_span_id]) == top_level
    for span in spans:
        # What is no run belongs to its parent's run, and a run inside a run says so.
        around = by_id.get(span.span.parent_span_id)
        assert (around is None) == (not span.span.parent_span_id)
        if around is not None:
            inherits = "loopscope.run.parent_id" if span.operation == "invoke_agent" else "loopscope.run.id"
            assert span[inherits] == around["loopscope.run.id"]
    return len(calls)


@pytest.fixture
def recording(server: Server, tmp_path: Path) -> Server:
    loopscope.configure(agent="tester", endpoint=server.url, spool_dir=tmp_path)
    return server


@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_runs_at_once(recording: Server, seed: int) -> None:
    choose = random.Random(seed)
    in_threads = [a_plan(choose, SYNC, 2) for _ in range(AT_ONCE // 2)]
    in_tasks = [a_plan(choose, ASYNC, 2) for _ in range(AT_ONCE // 2)]
    at_once(recording, in_threads, in_tasks)
    delivered()
    assert check(recording, AT_ONCE) > AT_ONCE


def plans(kinds: tuple[str, ...]) -> st.SearchStrategy[Plan]:
    leaves = st.lists(st.builds(Node, st.sampled_from(LEAVES), st.just([Node("call")])), min_size=1, max_size=2)

    def nest(inner: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
        safe = [kind for kind in kinds if kind not in WAITS_FOR_THE_POOL]
        pooled = [kind for kind in kinds if kind in WAITS_FOR_THE_POOL]
        node = st.builds(Node, st.sampled_from(safe), inner) | st.builds(Node, st.sampled_from(pooled), leaves)
        return st.lists(node, min_size=1, max_size=2)

    return st.recursive(leaves, nest, max_leaves=6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(plans(SYNC), min_size=1, max_size=4),
    st.lists(plans(ASYNC), min_size=1, max_size=4),
)
def test_any_plans_at_once(tmp_path: Path, in_threads: list[Plan], in_tasks: list[Plan]) -> None:
    with running_server() as server:
        loopscope.configure(agent="tester", endpoint=server.url, spool_dir=tmp_path)
        at_once(server, in_threads, in_tasks)
        delivered()
        check(server, len(in_threads) + len(in_tasks))

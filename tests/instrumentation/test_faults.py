"""A fault anywhere inside Loopscope never reaches the host: every internal function is made to raise, one after the
other, while an agent does everything an agent does; it must see what it sees without Loopscope."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest
from support.sdk_features import has

import loopscope
from loopscope._internal import guard, scope
from loopscope.stub import Fault, Pacing, StubServer, ToolCall, Turn

from .agent_loops import LOOKUP, MODEL, SYNC
from .faults import Place, broken, places, settle, watching
from .provider_server import Server

BOUNDARY = {
    # What the host calls itself, by its own will: there is no guard between the host and these, only inside of them.
    "loopscope._internal.agents.agent",
    "loopscope._internal.anthropic.patching.instrument_anthropic",
    "loopscope._internal.limits.Limits.__init__",
    "loopscope._internal.limits.Limits.__post_init__",
    "loopscope._internal.limits.limits_of",
    "loopscope._internal.runs.Run.__init__",
    "loopscope._internal.runs.Run.__enter__",
    "loopscope._internal.runs.Run.__exit__",
    "loopscope._internal.runs.Run.__aenter__",
    "loopscope._internal.runs.Run.__aexit__",
    "loopscope._internal.runs.Run.step",
    "loopscope._internal.runs._mode",
    "loopscope._internal.runs.run",
    "loopscope._internal.allowance.Allowance.__init__",
    "loopscope._internal.ledger.Ledger.__init__",
    "loopscope._internal.tooluse.ToolUses.__init__",
    "loopscope._internal.steps.Step.__init__",
    "loopscope._internal.steps.Step.__enter__",
    "loopscope._internal.steps.Step.__exit__",
    "loopscope._internal.steps.step",
    "loopscope._internal.tools.tool",
    # The body of a streamed response as the SDK reads it: these pass it through, and guard what they note of it.
    "loopscope._internal.anthropic.streams._AsyncBody.__aiter__",
    "loopscope._internal.anthropic.streams._AsyncBody.aclose",
    "loopscope._internal.anthropic.streams._Body.__getattr__",
    "loopscope._internal.anthropic.streams._Body.__del__",
    "loopscope._internal.anthropic.streams._SyncBody.__iter__",
    "loopscope._internal.anthropic.streams._SyncBody.close",
}
"""Functions that no guard can stand before, since the host (or its SDK) calls them directly; each does next to nothing
but call guarded ones."""


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        running.add_script(
            "loop", [Turn(text="Look.", tool_calls=(ToolCall("lookup", {"key": "a"}),)), Turn(text="found A")]
        )
        running.add_script("say", lambda ask: Turn(text=f"said {ask.step}", pacing=Pacing(chunk_chars=4)))
        running.add_script("flaky", [Turn(text="at last", faults=(Fault(529, retry_after=0.01),))])
        running.add_script("no", [Turn(text="never", faults=(Fault(400, times=-1, message="no"),))])
        yield running


class Agent:
    """Everything an agent does, in parts; each gives what the agent saw."""

    def __init__(self, stub: StubServer, sessions: Iterator[int]) -> None:
        self._stub = stub
        self._sessions = sessions

    def client(self, script: str, kind: Callable[..., Any] = anthropic.Anthropic) -> Any:
        # Without certificates, whose loading would be most of this test's time.
        transport = anthropic.DefaultHttpxClient if kind is anthropic.Anthropic else anthropic.DefaultAsyncHttpxClient
        return kind(
            http_client=transport(verify=False),
            api_key="k",
            base_url=self._stub.url,
            max_retries=0,
            default_headers={"x-stub-script": f"{script}/{next(self._sessions)}"},
        )

    def bare(self) -> list[Any]:
        @loopscope.tool
        def lookup(key: str) -> str:
            return key.upper()

        with self.client("loop") as own:
            seen: list[Any] = [[answer.content[-1].type for answer in SYNC["create"](own, "bare", lookup)]]
        with self.client("loop") as own:
            seen.append([answer.content[-1].type for answer in SYNC["stream"](own, "bare")])
        with self.client("say") as own:
            if has("messages.count_tokens"):
                seen.append(own.messages.count_tokens(model=MODEL, messages=ASK["messages"]).input_tokens)
            seen.append(own.messages.with_raw_response.create(**ASK).parse().content[0].text)
        return seen

    def streams(self) -> list[Any]:
        seen: list[Any] = []
        with self.client("say") as own:
            with own.messages.create(stream=True, **ASK) as stream:
                seen.append(next(iter(stream)).type)
            own.messages.create(stream=True, **ASK)
            settle()
        return seen

    def errors(self) -> list[Any]:
        seen: list[Any] = []

        @loopscope.tool
        def failing() -> None:
            raise LookupError("mine")

        def refused() -> None:
            with self.client("no") as own:
                own.messages.create(**ASK)

        def retried() -> None:
            with self.client("flaky") as own:
                seen.append(own.with_options(max_retries=2).messages.create(**ASK).content[0].text)

        @loopscope.agent(name="failing agent")
        def agent() -> None:
            failing()

        for call in (failing, refused, retried, agent):
            try:
                call()
            except (LookupError, anthropic.BadRequestError) as error:
                seen.append((type(error).__name__, str(error).partition("'request_id'")[0]))
        return seen

    def declared(self, question: str = "what?") -> list[Any]:
        @loopscope.tool(side_effects=True)
        def lookup(key: str) -> str:
            return key.upper()

        @loopscope.agent(name="declared", limits={"max_turns": 1000, "max_cost_usd": 1000.0})
        def agent(asked: str) -> str:
            with self.client("loop") as own:
                return SYNC["stream"](own, asked, lookup)[-1].content[0].text

        with loopscope.run("limited", limits={"max_tokens": 10**9}, input="x", config={"a": 1}) as run:
            run.event("noted", at=1, what={"b": 2})
            loopscope.route("that", alternatives=["this"], reason="so")
            run.final_answer = "said"
            run.outcome("partial")
            with run.step("part"), self.client("say") as own:
                return [agent(question), [own.messages.create(**ASK).content[0].text for _ in range(2)]]

    def generators(self) -> list[Any]:
        @loopscope.agent
        def generating() -> Generator[str]:
            with self.client("say") as own, own.messages.stream(**ASK) as stream:
                yield from stream.text_stream

        @loopscope.agent
        async def generating_async() -> AsyncIterator[str]:
            async with self.client("say", anthropic.AsyncAnthropic) as own:
                stream = await own.messages.create(stream=True, **ASK)
                async for event in stream:
                    yield event.type

        def with_run() -> Iterator[int]:
            with loopscope.run("inside"), loopscope.step("s"):
                yield 1

        async def all_of_it() -> list[str]:
            return [kind async for kind in generating_async()]

        half = generating()
        return [list(generating()), list(with_run()), next(half), half.close(), asyncio.run(all_of_it())]

    def asynchronous(self) -> list[Any]:
        @loopscope.tool
        async def lookup(key: str) -> str:
            await asyncio.sleep(0)
            return key.upper()

        @loopscope.agent
        async def agent() -> list[Any]:
            async with loopscope.run("async"), self.client("loop", anthropic.AsyncAnthropic) as own:
                answer = await own.messages.create(tools=[LOOKUP], **ASK)
                return [answer.stop_reason, await asyncio.gather(lookup("q"), lookup("r"))]

        return asyncio.run(agent())

    def threads(self) -> list[Any]:
        seen: list[Any] = []

        @loopscope.tool
        def lookup(key: str) -> str:
            return key.upper()

        with loopscope.run("outer"), ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(self.declared, "in a pool").result())
            seen.append(list(pool.map(lookup, "ab")))
            thread = threading.Thread(target=lambda: seen.append(lookup("t")))
            thread.start()
            thread.join()
        return seen


ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
PARTS = ("bare", "streams", "errors", "declared", "generators", "asynchronous", "threads")


def recorded(part: str, agent: Agent, server: Server, spool: Path) -> list[Any]:
    """What the agent sees with Loopscope, from configure to shutdown."""
    loopscope.configure(
        agent="faulty", endpoint=server.url, spool_dir=spool, exit_flush_seconds=0, price_overrides={"m": {"input": 1}}
    )
    try:
        seen = getattr(agent, part)()
        loopscope.flush(0.15)
        return seen
    finally:
        loopscope.shutdown(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_fault_of_ours_reaches_the_host(
    stub: StubServer,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(guard, "reraise", False)
    crashed: list[str] = []

    def note(about: Any) -> None:
        crashed.append(repr(about.exc_value))

    monkeypatch.setattr(threading, "excepthook", note)
    monkeypatch.setattr("sys.unraisablehook", note)
    agent = Agent(stub, iter(range(10_000_000)))
    known = places()
    expected: dict[str, list[Any]] = {}
    used: dict[Place, list[str]] = {}
    for part in PARTS:
        expected[part] = getattr(agent, part)()
        with watching() as called:
            assert recorded(part, agent, server, tmp_path / "first") == expected[part]
        loopscope.instrument_anthropic().undo()
        for place in (known[code] for code in called if code in known):
            used.setdefault(place, []).append(part)
    assert len(used) > 250, "the agent goes through most of Loopscope"
    wrong: list[str] = []
    for place, parts in sorted(used.items(), key=lambda item: item[0].name):
        if place.name in BOUNDARY or place.name.startswith("loopscope._internal.guard."):
            continue
        for part in parts[:1]:
            if problem := _with_fault(place, part, expected[part], agent, server, tmp_path, caplog, crashed):
                wrong.append(f"{place.name}: {problem}")
                break
    assert not wrong, f"{len(wrong)} of {len(used)}:\n" + "\n".join(wrong)


def _with_fault(
    place: Place,
    part: str,
    expected: list[Any],
    agent: Agent,
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    crashed: list[str],
) -> str | None:
    caplog.clear()
    crashed.clear()
    guard.reset()
    try:
        with broken(place) as raised, caplog.at_level(logging.WARNING, logger="loopscope"):
            seen = recorded(part, agent, server, tmp_path / "spool")
    except BaseException as error:  # noqa: BLE001 - whatever came through is the finding
        return f"the host got {type(error).__name__}: {error}"
    finally:
        loopscope.instrument_anthropic().undo()
        vars(scope)["_anchors"].clear()
    if seen != expected:
        return f"the host saw {next(f'{a!r} for {b!r}' for a, b in zip(seen, expected, strict=True) if a != b)}"
    if crashed:
        return f"a thread ended: {crashed[0]}"
    if raised and not loopscope.stats()["internal_errors"]:
        return f"raised {len(raised)} times, counted never"
    lines = Counter(record.getMessage() for record in caplog.records if record.exc_info)
    if any(count > 1 for count in lines.values()):
        return f"logged more than once: {lines.most_common(1)}"
    return None

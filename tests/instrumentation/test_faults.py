"""A fault anywhere inside Loopscope never reaches the host: every internal function is made to raise, one after the
other, while an agent does everything an agent does; it must see what it sees without Loopscope."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import guard
from loopscope.stub import Fault, Pacing, StubServer, ToolCall, Turn

from .agent_loops import LOOKUP, MODEL, SYNC
from .faults import Place, broken, places, settle, watching
from .provider_server import Server

BOUNDARY = {
    # The host calls these itself, and they refuse bad arguments by raising.
    "loopscope._internal.agents.agent",
    "loopscope._internal.anthropic.patching.instrument_anthropic",
    "loopscope._internal.limits.Limits.__post_init__",
    "loopscope._internal.limits.limits_of",
    "loopscope._internal.runs.Run.__init__",
    "loopscope._internal.runs.run",
    "loopscope._internal.runtime.configure",
    "loopscope._internal.runtime.flush",
    "loopscope._internal.runtime.shutdown",
    "loopscope._internal.tools.tool",
}
"""Functions that are the public interface: a fault in the very call that the host makes is not behind any guard."""


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        running.add_script(
            "loop", [Turn(text="Look.", tool_calls=(ToolCall("lookup", {"key": "a"}),)), Turn(text="found A")]
        )
        running.add_script("say", lambda ask: Turn(text=f"said {ask.step}", pacing=Pacing(chunk_chars=4)))
        running.add_script("no", [Turn(text="never", faults=(Fault(400, times=-1, message="no"),))])
        yield running


def work(stub: StubServer, sessions: Iterator[int]) -> list[Any]:
    """Everything an agent does, and what it saw."""
    seen: list[Any] = []
    names = iter(range(1_000))

    def client(script: str, kind: Callable[..., Any] = anthropic.Anthropic) -> Any:
        return kind(
            api_key="k",
            base_url=stub.url,
            max_retries=0,
            default_headers={"x-stub-script": f"{script}/{next(sessions)}-{next(names)}"},
        )

    @loopscope.tool
    def lookup(key: str) -> str:
        return key.upper()

    @loopscope.tool
    async def async_lookup(key: str) -> str:
        await asyncio.sleep(0)
        return key.upper()

    @loopscope.tool
    def failing() -> None:
        raise LookupError("mine")

    @loopscope.agent(name="declared")
    def declared(question: str) -> str:
        with client("loop") as own:
            return SYNC["stream"](own, question, lookup)[-1].content[0].text

    @loopscope.agent
    def generating() -> Iterator[str]:
        with client("say") as own, own.messages.stream(**ask) as stream:
            yield from stream.text_stream

    @loopscope.agent
    async def generating_async() -> AsyncIterator[str]:
        async with client("say", anthropic.AsyncAnthropic) as own:
            stream = await own.messages.create(stream=True, **ask)
            async for event in stream:
                yield event.type

    ask: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    with client("loop") as own:
        seen.append([answer.content[-1].type for answer in SYNC["create"](own, "bare", lookup)])
    with client("say") as own:
        seen.append(own.messages.count_tokens(model=MODEL, messages=ask["messages"]).input_tokens)
        seen.append(own.messages.with_raw_response.create(**ask).parse().content[0].text)
        with own.messages.create(stream=True, **ask) as stream:
            seen.append(next(iter(stream)).type)
        own.messages.create(stream=True, **ask)
        settle()
    for call in (failing, lambda: client("no").messages.create(**ask)):
        try:
            call()
        except (LookupError, anthropic.BadRequestError) as error:
            seen.append((type(error).__name__, str(error).partition("'request_id'")[0]))
    seen.append(declared("what?"))
    seen.append(list(generating()))

    async def main() -> None:
        seen.append([kind async for kind in generating_async()])
        async with loopscope.run("async", input="x", config={"a": 1}) as run:
            run.event("noted", at=1, what={"b": 2})
            async with client("loop", anthropic.AsyncAnthropic) as own:
                answer = await own.messages.create(tools=[LOOKUP], **ask)
                seen.append(answer.stop_reason)
                seen.append(await async_lookup("q"))

    asyncio.run(main())
    with loopscope.run("outer") as run, ThreadPoolExecutor(1) as pool:
        run.final_answer = "said"
        run.outcome("partial")
        seen.append(pool.submit(declared, "in a pool").result())
        thread = threading.Thread(target=lambda: seen.append(lookup("t")))
        thread.start()
        thread.join()
        seen.append(run.stats.turns)
    with loopscope.run("limited", limits={"max_turns": 1000, "max_cost_usd": 1000.0}), client("say") as own:
        seen.append([own.messages.create(**ask).content[0].text for _ in range(2)])
    return seen


def recorded(stub: StubServer, server: Server, spool: Path, sessions: Iterator[int]) -> list[Any]:
    """The same with Loopscope, from configure to shutdown."""
    loopscope.configure(
        agent="faulty", endpoint=server.url, spool_dir=spool, exit_flush_seconds=0, price_overrides={"m": {"input": 1}}
    )
    try:
        seen = work(stub, sessions)
        loopscope.flush(0.3)
        return seen
    finally:
        loopscope.shutdown(0.2)


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
    sessions = iter(range(10_000_000))
    expected = work(stub, sessions)
    known = places()
    with watching() as called:
        assert recorded(stub, server, tmp_path / "first", sessions) == expected
    used = sorted((known[code] for code in called if code in known), key=lambda place: place.name)
    assert len(used) > 200, "the agent goes through most of Loopscope"
    wrong: list[str] = []
    for place in used:
        if place.name in BOUNDARY or place.name.startswith("loopscope._internal.guard."):
            continue
        if problem := _with_fault(place, expected, stub, server, tmp_path, sessions, caplog, crashed):
            wrong.append(f"{place.name}: {problem}")
    assert not wrong, f"{len(wrong)} of {len(used)}:\n" + "\n".join(wrong)


def _with_fault(
    place: Place,
    expected: list[Any],
    stub: StubServer,
    server: Server,
    tmp_path: Path,
    sessions: Iterator[int],
    caplog: pytest.LogCaptureFixture,
    crashed: list[str],
) -> str | None:
    caplog.clear()
    crashed.clear()
    guard.reset()
    try:
        with broken(place) as raised, caplog.at_level(logging.WARNING, logger="loopscope"):
            seen = recorded(stub, server, tmp_path / "spool", sessions)
    except BaseException as error:  # noqa: BLE001 - whatever came through is the finding
        return f"the host got {type(error).__name__}: {error}"
    finally:
        loopscope.instrument_anthropic().undo()
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

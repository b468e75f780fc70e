"""What recording costs on the caller's own thread, alone: CPU of single calls with and without it, turn by turn.

    python benchmarks/sdk_caller.py [--calls 100] [--sizes 4,100,600] [--ways declared,bare] [--streams] [--hooks]

Real anthropic calls over real HTTP to the server of `sdk_overhead`. A call that is recorded and one that is not take
turns, with a pause in which Loopscope's threads finish; the figure is the median of the differences of neighbours, in
`time.thread_time`, so that it means something on a busy machine. `declared` calls stand inside `loopscope.run`; of
`bare` ones the run is found from their history. `--hooks` shows where the time goes: the median CPU of each hook.
"""

import argparse
import asyncio
import collections
import contextlib
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sdk_server import serving
from sdk_worker import history

import loopscope
from loopscope._internal import runtime
from loopscope._internal.anthropic import calls, patching, placing

PAUSE_SECONDS = 0.02
ANSWER = "All right. " * 40
"""What the server answers: as the history of the next call it continues the run."""
spent: dict[str, list[float]] = collections.defaultdict(list)


def timed(owner: Any, name: str, label: str) -> None:
    """Note the thread CPU of each call of `owner.name`, in microseconds."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = time.thread_time()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[label].append((time.thread_time() - begun) * 1e6)

    setattr(owner, name, wrapper)


def time_hooks() -> None:
    for owner, name, label in (
        (patching, "begin_call", "begin_call"),
        (placing.Place, "of", "  place of the call"),
        (calls, "LLMCall", "  LLMCall"),
        (runtime, "start", "    start of a span"),
        (placing.Place, "begun", "    tool results"),
        (runtime, "announce", "    announce"),
        (calls.LLMCall, "attempt", "attempt"),
        (calls.LLMCall, "answered", "answered"),
        (calls.LLMCall, "returned", "returned"),
        (placing.Place, "ended", "  end in the run"),
        (runtime, "end", "    end of the span"),
    ):
        timed(owner, name, label)


def pairs(messages: list[Any], number_of: int) -> Iterator[tuple[int, bool]]:
    """Turns of (pair, whether it is recorded); the history grows by an exchange after each pair. The first warm up."""
    for number in range(-4, number_of):
        for on in (True, False) if number % 2 else (False, True):
            instrumentation = loopscope.instrument_anthropic()
            if not on:
                instrumentation.undo()
            yield number, on
        messages += [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": f"and then? {number}"}]


def added(took: list[tuple[int, bool, float]]) -> float:
    """The median of what recording added to a pair, in microseconds."""
    by_pair: dict[int, dict[bool, float]] = collections.defaultdict(dict)
    for number, on, seconds in took:
        by_pair[number][on] = seconds
    return statistics.median((both[True] - both[False]) * 1e6 for number, both in by_pair.items() if number >= 0)


def sync_calls(client: Any, messages: list[Any], number_of: int, request: dict[str, Any]) -> float:
    took: list[tuple[int, bool, float]] = []
    for number, on in pairs(messages, number_of):
        begun = time.thread_time()
        answer = client.messages.create(messages=messages, **request)
        if request.get("stream"):
            for _ in answer:
                pass
        took.append((number, on, time.thread_time() - begun))
        time.sleep(PAUSE_SECONDS)
    return added(took)


async def async_calls(client: Any, messages: list[Any], number_of: int, request: dict[str, Any]) -> float:
    took: list[tuple[int, bool, float]] = []
    async with client:
        for number, on in pairs(messages, number_of):
            begun = time.thread_time()
            answer = await client.messages.create(messages=messages, **request)
            if request.get("stream"):
                async for _ in answer:
                    pass
            took.append((number, on, time.thread_time() - begun))
            await asyncio.sleep(PAUSE_SECONDS)
    return added(took)


def measure(url: str, number_of: int, kilobytes: int, *, is_async: bool, stream: bool, bare: bool) -> float:
    import anthropic

    request: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 100}
    if stream:
        request["stream"] = True
    messages: list[Any] = list(history(kilobytes))
    if len(messages) % 2 == 0:  # the user has the last word
        messages.append({"role": "user", "content": "and then?"})
    with contextlib.nullcontext() if bare else loopscope.run("bench"):
        if is_async:
            client: Any = anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0)
            return asyncio.run(async_calls(client, messages, number_of, request))
        return sync_calls(anthropic.Anthropic(api_key="k", base_url=url, max_retries=0), messages, number_of, request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="pairs of calls for each figure")
    parser.add_argument("--sizes", default="4,100,600", help="KB of history")
    parser.add_argument("--ways", default="declared,bare")
    parser.add_argument("--streams", action="store_true", help="streamed calls as well")
    parser.add_argument("--hooks", action="store_true", help="where the time goes (the sums are a little higher then)")
    options = parser.parse_args()
    if options.hooks:
        time_hooks()
    sizes = [int(size) for size in options.sizes.split(",")]
    print("added CPU of the caller's thread, us a call, median")
    print(f"{'':<28}" + "".join(f"{f'{size} KB':>9}" for size in sizes), flush=True)
    with serving() as url, tempfile.TemporaryDirectory() as folder:
        loopscope.configure(agent="bench", endpoint=url, spool_dir=folder)
        for way in options.ways.split(","):
            for is_async in (False, True):
                for stream in (False, True) if options.streams else (False,):
                    spent.clear()
                    title = f"{way}, {'async' if is_async else 'sync'}{', streamed' if stream else ''}"
                    figures = [
                        measure(url, options.calls, size, is_async=is_async, stream=stream, bare=way == "bare")
                        for size in sizes
                    ]
                    print(f"{title:<28}" + "".join(f"{figure:>9.0f}" for figure in figures), flush=True)
                    for label, values in spent.items():
                        print(f"    {label:<30}{statistics.median(values):>7.0f} us")
        loopscope.shutdown(5)


if __name__ == "__main__":
    main()

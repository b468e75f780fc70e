"""Whatever of ours fails while a run is carried along, the host's threads, pools, tasks and generators work on."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from types import ModuleType
from typing import Any

import pytest

import loopscope
from loopscope._internal import (
    agents,
    guard,
    handover,
    processes,
    propagation,
    runs,
    scope,
    steps,
    tasks,
    threads,
    tools,
)

from .conftest import Configure

HERE = [agents, handover, processes, propagation, runs, scope, steps, tasks, threads, tools]
OF_THE_CALLER = {"agent", "tool", "run", "step", "event", "route", "_wrap", "_generator", "_async_generator", "_mode"}
"""Doors that the host calls by name; they hand out what is tested here."""


def internal_functions() -> Iterator[tuple[Any, str]]:
    """Every function and method of ours that is looked up when it is called: owner and name."""
    for module in HERE:
        owners: list[Any] = [module, *(c for _, c in inspect.getmembers(module, inspect.isclass))]
        for owner in owners:
            if not isinstance(owner, ModuleType) and owner.__module__ != module.__name__:
                continue
            for name, function in list(vars(owner).items()):
                if not inspect.isfunction(function) or function.__module__ != module.__name__:
                    continue
                # What is called through the guard fails inside of it, as an error in its body would.
                if not name.startswith("__") and name not in OF_THE_CALLER and is_hook(owner, function):
                    yield owner, name


def is_hook(owner: Any, function: Any) -> bool:
    """Public methods of what the host holds are its own calls; all that is guarded and all plain functions are ours."""
    return hasattr(function, "__wrapped__") or isinstance(owner, ModuleType)


def breaking(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    return guard.guarded(broken) if hasattr(function, "__wrapped__") else broken


def numbers() -> Iterator[int]:
    with loopscope.run("in a generator"), loopscope.step("s"):
        yield 1
        yield 2


@loopscope.agent
def letters() -> Iterator[str]:
    yield "a"
    yield "b"


@loopscope.tool
def doubled(value: int) -> int:
    return 2 * value


@loopscope.step("decorated")
async def waited(value: int) -> int:
    await asyncio.sleep(0)
    return value


def scenario() -> list[Any]:
    """What a host does, and what comes out of it."""
    found: list[Any] = []

    async def main() -> None:
        async with loopscope.run("async"), loopscope.step("block"):
            waiting = numbers()
            found.append(next(waiting))
            found.extend(await asyncio.gather(waited(1), waited(2), asyncio.to_thread(doubled, 3)))
            found.extend(waiting)

    with loopscope.run("outer") as run, ThreadPoolExecutor(2) as pool, ThreadPool(1) as other:
        run.event("e")
        run.route("x", alternatives=["y"])
        thread = threading.Thread(target=lambda: found.append(doubled(1)))
        thread.start()
        thread.join()
        found.append(pool.submit(doubled, 2).result())
        found.extend(other.map(doubled, [3, 4]))
        found.extend(zip(numbers(), letters(), strict=True))
        with pytest.raises(ZeroDivisionError), run.step("fails"):
            divmod(1, 0)
        asyncio.run(main())
    loopscope.current_run()
    return found


FUNCTIONS = {f"{getattr(owner, '__name__', owner)}.{name}": (owner, name) for owner, name in internal_functions()}


def test_there_is_something_to_break() -> None:
    assert len(FUNCTIONS) > 40
    assert {"loopscope._internal.scope.here", "loopscope._internal.threads._stash", "Step._begin"} <= FUNCTIONS.keys()


@pytest.mark.parametrize("which", FUNCTIONS)
def test_nothing_reaches_the_host(configure: Configure, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    expected = scenario()
    monkeypatch.setattr(guard, "reraise", False)
    owner, name = FUNCTIONS[which]
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, breaking(vars(owner)[name]))
        configure()
        assert scenario() == expected
    scope.current.set(None)
    loopscope.shutdown(0)


@pytest.mark.parametrize("which", ["pack", "unpack"])
def test_nothing_reaches_a_child_process(configure: Configure, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    monkeypatch.setattr(guard, "reraise", False)
    monkeypatch.setattr(handover, which, breaking(vars(handover)[which]))
    monkeypatch.setattr(processes, "_unpack", guard.guarded(vars(handover)["unpack"]))
    configure()
    with loopscope.run("r"), ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit(abs, -3).result() == 3

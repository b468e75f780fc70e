"""Threads and pools: the run goes along, and to the host they are what they were. Undo puts everything back."""

import asyncio
import concurrent.futures.process
import concurrent.futures.thread
import contextvars
import gc
import inspect
import multiprocessing.pool
import multiprocessing.process
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import propagation, scope

from .conftest import Configure, ask, delivered
from .provider_server import Server

ITEM: type = vars(concurrent.futures.thread)["_WorkItem"]
WRAPPED: list[tuple[type, str]] = [
    (threading.Thread, "start"),
    (threading.Thread, "_bootstrap_inner"),
    (ITEM, "__init__"),
    (ITEM, "run"),
    (concurrent.futures.process.ProcessPoolExecutor, "submit"),
    (multiprocessing.process.BaseProcess, "start"),
    (multiprocessing.process.BaseProcess, "_bootstrap"),
    (multiprocessing.pool.Pool, "apply_async"),
    (multiprocessing.pool.Pool, "_map_async"),
    (multiprocessing.pool.Pool, "imap"),
    (multiprocessing.pool.Pool, "imap_unordered"),
    (asyncio.BaseEventLoop, "create_task"),
]


def methods() -> list[Any]:
    return [owner.__dict__[name] for owner, name in WRAPPED]


def test_installed_once_and_put_back(configure: Configure) -> None:
    before = methods()
    configure()
    wrapped = methods()
    assert all(new is not old for new, old in zip(wrapped, before, strict=True))
    assert [inspect.signature(new) for new in wrapped] == [inspect.signature(old) for old in before]
    assert [(new.__name__, new.__doc__) for new in wrapped] == [(old.__name__, old.__doc__) for old in before]
    configure(agent="again")
    assert methods() == wrapped
    loopscope.shutdown(0)
    assert methods() == before
    propagation.undo()
    assert methods() == before


def test_under_somebody_elses_wrapper_it_passes_through(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    ours: Any = threading.Thread.start
    started: list[str] = []

    def theirs(self: threading.Thread) -> None:
        started.append(self.name)
        ours(self)

    monkeypatch.setattr(threading.Thread, "start", theirs)
    loopscope.shutdown(0)
    assert threading.Thread.start is theirs
    with loopscope.run("unrecorded"):
        thread = threading.Thread(target=int, name="t")
        thread.start()
        thread.join()
    assert started == ["t"]
    monkeypatch.setattr(threading.Thread, "start", inspect.unwrap(ours))


def test_a_thread_that_outlives_its_run_stays_in_it(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    go = threading.Event()

    def late() -> None:
        go.wait(60)
        client.messages.create(**ask("late"))

    with loopscope.run("first") as first:
        thread = threading.Thread(target=late)
        thread.start()
    with loopscope.run("second") as second:
        client.messages.create(**ask("now"))
        go.set()
        thread.join()
    delivered()
    found = {call["loopscope.request.body"].count(b"late"): call for call in server.calls()}
    assert found[1]["loopscope.run.id"] == first.id
    assert found[0]["loopscope.run.id"] == second.id
    assert {call["loopscope.turn"] for call in found.values()} == {1}


def test_a_thread_started_in_an_empty_context_is_in_no_run(configure: Configure) -> None:
    configure()
    seen: list[Any] = []
    with loopscope.run("r"):
        thread = threading.Thread(target=lambda: seen.append(loopscope.current_run()))
        contextvars.Context().run(thread.start)
        thread.join()
    assert seen == [None]


def test_subclasses_and_threads_of_threads(configure: Configure) -> None:
    configure()
    seen: list[Any] = []

    class Own(threading.Thread):
        def run(self) -> None:
            seen.append(loopscope.current_run())
            inner = threading.Thread(target=lambda: seen.append(loopscope.current_run()))
            inner.start()
            inner.join()

    with loopscope.run("r") as run:
        thread = Own(name="mine", daemon=True)
        shown = repr(thread)
        assert "initial" in shown
        thread.start()
        thread.join()
    assert thread.name == "mine"
    assert thread.daemon
    assert not [name for name in vars(thread) if "loopscope" in name]
    assert seen == [run, run]


def test_a_thread_that_cannot_start_says_what_it_said(configure: Configure) -> None:
    configure()
    with loopscope.run("r"):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
    assert not [name for name in vars(thread) if "loopscope" in name]


def test_a_traceback_of_the_host_does_not_show_us(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    caught: list[str] = []

    def hook(args: threading.ExceptHookArgs) -> None:
        caught.append("".join(traceback.format_tb(args.exc_traceback)))

    monkeypatch.setattr(threading, "excepthook", hook)

    def fails() -> None:
        raise KeyError(1)

    with loopscope.run("r"), ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        error = pool.submit(fails).exception()
    assert error is not None
    caught.append("".join(traceback.format_tb(error.__traceback__)))
    for text in caught:
        assert "in fails" in text
        assert "loopscope/_internal" not in text


def test_work_in_a_shared_pool_is_in_the_run_that_submitted_it(configure: Configure) -> None:
    configure()
    with ThreadPoolExecutor(1) as pool, ThreadPool(1) as other:
        for submit in (lambda: pool.submit(loopscope.current_run).result(), lambda: other.apply(loopscope.current_run)):
            with loopscope.run("a") as a:
                assert submit() is a
            assert submit() is None
            with loopscope.run("b") as b:
                assert submit() is b
        with loopscope.run("c") as c:
            assert other.map(lambda _: loopscope.current_run(), [1, 2]) == [c, c]
            assert list(other.imap(lambda _: loopscope.current_run(), [1])) == [c]


def test_idle_workers_hold_nothing_of_a_run(configure: Configure) -> None:
    configure()

    class Big:
        pass

    with ThreadPoolExecutor(1) as pool:
        big = Big()
        with loopscope.run("r") as run:
            run.final_answer = big
            failed = pool.submit(lambda: 1 / 0).exception()
        assert isinstance(failed, ZeroDivisionError)
        held = weakref.ref(run)
        del run, big, failed
        delivered()
        gc.collect()
        assert held() is None


def test_the_hosts_own_context_is_not_copied(configure: Configure) -> None:
    configure()
    theirs: contextvars.ContextVar[str] = contextvars.ContextVar("theirs", default="unset")
    seen: list[str] = []
    with loopscope.run("r"), ThreadPoolExecutor(1) as pool:
        theirs.set("set")
        thread = threading.Thread(target=lambda: seen.append(theirs.get()))
        thread.start()
        thread.join()
        seen.append(pool.submit(theirs.get).result())
    assert seen == ["unset", "unset"]


def test_an_error_of_ours_stops_no_thread(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from loopscope._internal import guard

    configure()
    monkeypatch.setattr(guard, "reraise", False)

    def broken() -> Any:
        raise RuntimeError("ours")

    done: list[int] = []
    with loopscope.run("r"), ThreadPoolExecutor(1) as pool, ThreadPool(1) as other:
        monkeypatch.setattr(scope, "here", broken)
        thread = threading.Thread(target=done.append, args=(1,))
        thread.start()
        thread.join()
        pool.submit(done.append, 2).result()
        other.apply(done.append, (3,))
        monkeypatch.undo()
    assert done == [1, 2, 3]


def test_run_coroutine_threadsafe_and_callbacks(configure: Configure) -> None:
    configure()
    seen: list[Any] = []

    async def note() -> None:
        seen.append(loopscope.current_run())

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def elsewhere() -> None:
            with loopscope.run("elsewhere") as run:
                asyncio.run_coroutine_threadsafe(note(), loop).result(60)
                assert seen.pop() is run

        await asyncio.to_thread(elsewhere)
        with loopscope.run("r") as run:
            done = asyncio.Event()
            loop.call_soon(lambda: (seen.append(loopscope.current_run()), done.set()))
            await done.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(note())
            assert seen == [run, run]

    asyncio.run(main())

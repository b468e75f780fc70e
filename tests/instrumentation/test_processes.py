"""The run in other processes: multiprocessing and process pools by every start method, and what stays as it was."""

import json
import os
import pickle
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import loopscope

from .conftest import Configure
from .provider_server import Recorded, Server

METHODS = ["fork", "spawn", "forkserver"]

WORK = """
import json, multiprocessing, os, sys
import anthropic
import loopscope

def ask(text):
    with anthropic.Anthropic(api_key="k") as client:
        client.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": text}])
    run = loopscope.current_run()
    return (os.getpid(), run.id if run else None)

@loopscope.tool
def looked_up(text):
    return ask(text)

def work(text):
    found = looked_up(text)
    ask(text)
    return found

def configure():
    loopscope.configure(
        agent="parent", endpoint=os.environ["COLLECTOR"], spool_dir=os.environ["SPOOL"], user_id="u",
        exit_flush_seconds=30,
    )
"""


def run_script(folder: Path, server: Server, code: str) -> str:
    """A program with the functions above in its own `__main__`; what it printed."""
    script = folder / "program.py"
    script.write_text(WORK + code, encoding="utf-8")
    environment = {
        **os.environ,
        "COLLECTOR": server.url,
        "SPOOL": str(folder / "spool"),
        "ANTHROPIC_BASE_URL": server.url,
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def check(server: Server, texts: set[str], processes: int) -> None:
    """Every call is in the run of the parent process that its text names; spans ended once, by whom they belong to."""
    spans = server.spans()
    assert len({span.span.span_id for span in spans}) == len(spans)
    runs = {span["gen_ai.agent.name"]: span for span in spans if span.operation == "invoke_agent"}
    by_id = {span.span.span_id: span for span in spans}
    asked: dict[str, list[Recorded]] = defaultdict(list)
    for call in server.calls():
        text = json.loads(call["loopscope.request.body"])["messages"][0]["content"]
        asked[text].append(call)
        run = runs[text.partition(" ")[0]]
        assert call["loopscope.run.id"] == run["loopscope.run.id"]
        assert call["gen_ai.agent.name"] == run["gen_ai.agent.name"]
        assert call["user.id"] == "u"
        parent = by_id[call.span.parent_span_id]
        if parent.operation == "execute_tool":
            assert parent["loopscope.run.id"] == run["loopscope.run.id"]
            parent = by_id[parent.span.parent_span_id]
        assert parent is run
    assert set(asked) == texts
    for calls in asked.values():
        # Inside a tool and after it, one turn after the other.
        first, second = sorted(calls, key=lambda call: call.span.start_time_unix_nano)
        assert second["loopscope.turn"] == first["loopscope.turn"] + 1
    assert len({span.resource["loopscope.process.id"] for span in spans}) == processes


@pytest.mark.parametrize("method", METHODS)
def test_a_process_works_for_the_run_that_started_it(server: Server, tmp_path: Path, method: str) -> None:
    run_script(
        tmp_path,
        server,
        f"""
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    configure()
    processes = []
    for name in ("A", "B"):
        with loopscope.run(name):
            process = multiprocessing.Process(target=work, args=(name + " x",), name="worker " + name, daemon=True)
            process.start()
            assert not [key for key in vars(process) if "loopscope" in key]
            processes.append(process)
    for process in processes:
        process.join()
        assert process.exitcode == 0 and process.daemon and process.name.startswith("worker")
""",
    )
    check(server, {"A x", "B x"}, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", ["executor", "pool"])
def test_a_pool_works_for_the_run_that_submitted(server: Server, tmp_path: Path, method: str, pool: str) -> None:
    printed = run_script(
        tmp_path,
        server,
        f"""
if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    configure()
    context = multiprocessing.get_context({method!r})
    seen = []
    # The pool is made inside a run that has nothing to do with the work.
    with loopscope.run("maker"):
        workers = ProcessPoolExecutor(2, mp_context=context) if {pool!r} == "executor" else context.Pool(2)
        if {pool!r} == "executor":
            workers.submit(os.getpid).result()
    with workers:
        submit = workers.submit if {pool!r} == "executor" else lambda f, *args: workers.apply_async(f, args)
        for name in ("A", "B"):
            with loopscope.run(name) as run:
                waiting = [submit(work, name + " " + str(i)) for i in range(2)]
                seen += [(run.id, *(w.result() if {pool!r} == "executor" else w.get())) for w in waiting]
                seen += [(run.id, *found) for found in workers.map(work, [name + " 2", name + " 3"])]
                if {pool!r} == "pool":
                    seen += [(run.id, *found) for found in workers.imap(work, [name + " 4"])]
                    seen += [(run.id, *found) for found in workers.imap_unordered(work, [name + " 5"])]
                    seen += [(run.id, *found) for found in workers.starmap(work, [(name + " 6",)])]
        outside = submit(ask, "outside")
        print(json.dumps([seen, outside.result() if {pool!r} == "executor" else outside.get()]))
        if {pool!r} == "pool":
            workers.close()
            workers.join()
""",
    )
    seen, outside = json.loads(printed)
    assert all(meant == found for meant, _, found in seen)
    assert outside[1] is None, "work that was submitted outside of a run belongs to none"
    # The one call outside is a run of its own in the child.
    calls = [call for call in server.calls() if b"outside" in call["loopscope.request.body"]]
    assert len(calls) == 1
    run_ids = {run for run, _, _ in seen}
    assert calls[0]["loopscope.run.id"] not in run_ids
    inside = [call for call in server.calls() if b"outside" not in call["loopscope.request.body"]]
    assert len(inside) == 2 * len(seen)
    assert {call["loopscope.run.id"] for call in inside} == run_ids
    spans = server.spans()
    assert len({span.span.span_id for span in spans}) == len(spans)
    runs = [span for span in spans if span.operation == "invoke_agent"]
    found = {span["loopscope.run.id"] for span in runs if span.get("loopscope.run.inferred")}
    assert found == {calls[0]["loopscope.run.id"]}, "the one call outside, which is a run by itself"
    declared = [span["gen_ai.agent.name"] for span in runs if not span.get("loopscope.run.inferred")]
    assert sorted(declared) == ["A", "B", "maker"]


def test_a_sub_agent_in_a_child_process(server: Server, tmp_path: Path) -> None:
    run_script(
        tmp_path,
        server,
        """
def sub(text):
    with loopscope.run("child-agent"):
        ask(text)

if __name__ == "__main__":
    configure()
    with loopscope.run("A", task_id="t"):
        process = multiprocessing.get_context("spawn").Process(target=sub, args=("x",))
        process.start()
        process.join()
""",
    )
    runs = {span["gen_ai.agent.name"]: span for span in server.spans() if span.operation == "invoke_agent"}
    assert runs["child-agent"]["loopscope.run.parent_id"] == runs["A"]["loopscope.run.id"]
    assert runs["child-agent"].span.parent_span_id == runs["A"].span.span_id
    assert runs["child-agent"]["loopscope.task.id"] == "t"
    assert server.calls()[0]["loopscope.run.id"] == runs["child-agent"]["loopscope.run.id"]


def test_a_child_that_configures_itself_keeps_its_own_settings(server: Server, tmp_path: Path) -> None:
    run_script(
        tmp_path,
        server,
        """
def own(text):
    loopscope.configure(agent="own", endpoint=os.environ["COLLECTOR"], spool_dir=os.environ["SPOOL"])
    ask(text)
    loopscope.flush(60)

if __name__ == "__main__":
    configure()
    process = multiprocessing.get_context("spawn").Process(target=own, args=("x",))
    process.start()
    process.join()
""",
    )
    assert [call["gen_ai.agent.name"] for call in server.calls()] == ["own"]


def test_an_event_in_a_child_is_counted_not_kept(server: Server, tmp_path: Path) -> None:
    printed = run_script(
        tmp_path,
        server,
        """
def note(queue):
    loopscope.current_run().event("in the child")
    queue.put(loopscope.stats()["events_dropped"])

if __name__ == "__main__":
    configure()
    with loopscope.run("A"):
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            queue = context.Queue()
            process = context.Process(target=note, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
""",
    )
    assert printed.split() == ["1", "1"]
    (run,) = server.spans()
    assert not run.span.events


def failing_work() -> None:
    raise KeyError("from the worker")


@pytest.mark.parametrize("kind", ["executor", "pool", "process"])
def test_pickling_errors_are_what_they_were(server: Server, configure: Configure, kind: str) -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")

    def attempt() -> tuple[str, str]:
        def local() -> None: ...

        with pytest.raises(Exception, match="pickle") as caught:  # noqa: PT012 - three ways to the same error
            if kind == "executor":
                with ProcessPoolExecutor(1, mp_context=context) as executor:
                    executor.submit(local).result()
            elif kind == "pool":
                with context.Pool(1) as pool:
                    pool.apply_async(local).get()
            else:
                context.Process(target=local).start()
        return type(caught.value).__qualname__, str(caught.value).replace(hex(id(local)), "ID")

    without = attempt()
    configure()
    with loopscope.run("r"):
        assert attempt() == without


def test_an_error_in_a_worker_arrives_as_it_was(configure: Configure) -> None:
    from concurrent.futures import ProcessPoolExecutor

    configure()
    with loopscope.run("r"), ProcessPoolExecutor(1) as pool:
        error = pool.submit(failing_work).exception()
        with pytest.raises(TypeError, match="submit"):
            pool.submit()  # pyright: ignore[reportCallIssue]
    assert isinstance(error, KeyError)
    assert error.args == ("from the worker",)
    assert "failing_work" in str(error.__cause__)


def test_a_function_on_its_way_shows_itself(configure: Configure) -> None:
    from loopscope._internal import handover
    from loopscope._internal.processes import Carried

    carried = Carried(failing_work, None, handover.pack(None, None))
    assert repr(carried) == repr(failing_work)
    arrived = pickle.loads(pickle.dumps(carried))
    with pytest.raises(KeyError, match="from the worker"):
        arrived()


def test_settings_that_cannot_be_pickled_do_not_stop_a_process(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing
    from types import MappingProxyType

    from loopscope._internal import guard

    configure(price_overrides=MappingProxyType({}))
    monkeypatch.setattr(guard, "reraise", False)
    with loopscope.run("r"):
        process = multiprocessing.get_context("spawn").Process(target=os.getpid)
        process.start()
        process.join()
    assert process.exitcode == 0
    assert loopscope.stats()["internal_errors"] == 1
    loopscope.flush(60)


def test_a_bare_fork_inside_a_run(server: Server, tmp_path: Path) -> None:
    run_script(
        tmp_path,
        server,
        """
if __name__ == "__main__":
    configure()
    with loopscope.run("A"):
        ask("A x")
        if (child := os.fork()) == 0:
            ask("A x")
            loopscope.flush(60)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
""",
    )
    spans = server.spans()
    assert [s.operation for s in spans].count("invoke_agent") == 1
    assert len({s["loopscope.run.id"] for s in spans}) == 1
    assert sorted(call["loopscope.turn"] for call in server.calls()) == [1, 2]

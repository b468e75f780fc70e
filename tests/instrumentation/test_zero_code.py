"""Recording without a line changed: `loopscope run` behaves as `python`, and `opentelemetry-instrument` finds us."""

import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from loopscope.instrumentor import LoopscopeInstrumentor

from .provider_server import Server

BIN = Path(sys.executable).parent
LOOPSCOPE = [sys.executable, "-m", "loopscope.cli", "run"]

AGENT = """
import anthropic
client = anthropic.Anthropic(api_key="k")
answer = client.messages.create(
    model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
print(answer.content[0].text)
"""

LOOK = """
import json, os, sys
main = sys.modules["__main__"]
spec = __spec__.name if __spec__ else None
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": globals().get("__file__"), "package": __package__,
    "spec": spec, "doc": __doc__, "main": vars(main) is globals(), "names": sorted(globals()), "cwd": os.getcwd(),
    "loader": type(__loader__).__name__, "annotations": __annotations__, "builtins": type(__builtins__).__name__,
}))
print("to stderr", file=sys.stderr)
"""


def environment(folder: Path, server: Server | None = None, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPSCOPE_", "OTEL_"))}
    url = server.url if server is not None else "http://127.0.0.1:9"
    clean |= {"LOOPSCOPE_ENDPOINT": url, "ANTHROPIC_BASE_URL": url, "LOOPSCOPE_SPOOL_DIR": str(folder / "spool")}
    return clean | {"LOOPSCOPE_EXIT_FLUSH_SECONDS": "30"} | more


def heed_ctrl_c() -> None:
    """In the program's process: a shell that runs the tests in the background has it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(command: list[str], folder: Path, **more: object) -> "subprocess.CompletedProcess[str]":
    arguments: dict[str, object] = {"env": environment(folder), **more}
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=heed_ctrl_c,
        **arguments,  # pyright: ignore
    )


def write(folder: Path, name: str, code: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "look.py", LOOK)
    write(tmp_path, "sub/look.py", '"""A docstring."""\n' + LOOK)
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/module.py", LOOK)
    write(tmp_path, "package/__main__.py", LOOK)
    write(tmp_path, "folder/__main__.py", LOOK)
    (tmp_path / "link.py").symlink_to("sub/look.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    write(
        tmp_path,
        "ends.py",
        """
        import signal, sys, os, threading, atexit
        class Odd(Exception):
            def __str__(self): return "odd"
        def deeper():
            try:
                {}["missing"]
            except KeyError as error:
                raise Odd from error
        def main(how):
            atexit.register(print, "at exit")
            if how == "raise": deeper()
            if how == "context":
                try: deeper()
                except Odd: raise ValueError("while handling")
            if how == "exit": sys.exit()
            if how == "code": sys.exit(7)
            if how == "words": sys.exit("in words")
            if how == "interrupt": raise KeyboardInterrupt
            if how == "sigint": os.kill(os.getpid(), signal.SIGINT); signal.pause()
            if how == "sigterm": os.kill(os.getpid(), signal.SIGTERM); signal.pause()
            if how == "hook":
                sys.excepthook = lambda kind, error, trace: print("hooked", kind, trace.tb_frame.f_code.co_filename)
                deeper()
            if how == "group": raise ExceptionGroup("several", [ValueError(1), Odd()])
            if how == "thread": threading.Timer(0.05, print, ["late"]).start()
            if how == "generator": raise GeneratorExit
            if how == "import": import no_such_module
            print("read", repr(sys.stdin.read()))
        main(sys.argv[1])
        """,
    )
    write(tmp_path, "broken.py", "def f(:\n    pass\n")
    write(tmp_path, "latin.py", "# -*- coding: latin-1 -*-\nprint(ascii('\\xe9'))\n")
    return tmp_path


def same(folder: Path, *arguments: str, options: tuple[str, ...] = (), **more: object) -> None:
    plain = run([sys.executable, *arguments], folder, **more)
    ours = run([*LOOPSCOPE, *options, *arguments], folder, **more)
    assert ours.stdout == plain.stdout
    assert ours.stderr == plain.stderr
    assert ours.returncode == plain.returncode


@pytest.mark.parametrize(
    "command",
    [
        "look.py",
        "look.py --agent x -m y -- z -v --help",
        "./look.py a",
        "sub/look.py -x",
        "sub/../look.py",
        "link.py",
        "folder --flag",
        "archive.zip --flag",
        "-m package.module --agent x -m y -- z",
        "-m package --help",
        "-mpackage.module -v",
        "-m look",
        "latin.py",
        "-m no.such.module",
        "-m no_such_module",
    ],
)
def test_the_program_sees_what_python_would_show_it(folder: Path, command: str) -> None:
    same(folder, *command.split(), options=("--agent", "named", "--environment=test"))


@pytest.mark.parametrize("name", ["look.py", "-m package.module"])
def test_a_safe_path_stays_safe(folder: Path, name: str) -> None:
    env = environment(folder, PYTHONSAFEPATH="1")
    plain = run([sys.executable, *name.split()], folder, env=env)
    ours = run([*LOOPSCOPE, *name.split()], folder, env=env)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode)


@pytest.mark.parametrize(
    "how",
    ["raise", "context", "exit", "code", "words", "interrupt", "sigint", "sigterm", "hook", "group", "thread",
     "generator", "import", "nothing"],
)  # fmt: skip
def test_it_ends_as_python_would_end_it(folder: Path, how: str) -> None:
    same(folder, "ends.py", how, input="some\ninput")


def test_a_syntax_error_shows_the_programs_line_alone(folder: Path) -> None:
    same(folder, "broken.py")


def test_a_module_that_raises(folder: Path) -> None:
    write(folder, "package/raises.py", "def f():\n    raise KeyError(1)\nf()\n")
    same(folder, "-m", "package.raises")


def test_a_script_on_standard_input_and_compiled(folder: Path) -> None:
    same(folder, "-", "a", "-b", input=LOOK)
    assert run([sys.executable, "-m", "compileall", "-b", "-q", "look.py"], folder).returncode == 0
    ours, plain = run([*LOOPSCOPE, "look.pyc", "a"], folder), run([sys.executable, "look.pyc", "a"], folder)
    assert ours.returncode == plain.returncode == 0
    assert ours.stdout.replace("SourceFileLoader", "SourcelessFileLoader") == plain.stdout


def test_called_wrongly_it_says_what_to_do(folder: Path) -> None:
    for arguments, words in (
        ([], "Give a script, or -m and a module"),
        (["no_such.py"], "there is no such file"),
        (["--endpoint", "ftp://x", "look.py"], "expected http://host:port"),
        (["--unknown", "look.py"], "--unknown"),
    ):
        done = run([*LOOPSCOPE, *arguments], folder)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize("how", [["agent.py"], ["-m", "pack.agent"], ["-m", "pack"]])
def test_an_agent_is_recorded(server: Server, tmp_path: Path, how: list[str]) -> None:
    write(tmp_path, "agent.py", AGENT)
    write(tmp_path, "pack/agent.py", AGENT)
    write(tmp_path, "pack/__main__.py", AGENT)
    done = run([str(BIN / "loopscope"), "run", *how], tmp_path, env=environment(tmp_path, server))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Hello, ünïcode\n"
    (call,) = server.calls()
    assert call["gen_ai.agent.name"] == ("pack" if how[-1] == "pack" else "agent")
    assert call["loopscope.request.body"] == server.messages[0].body


def test_options_hold_also_where_the_program_configures_itself(server: Server, tmp_path: Path) -> None:
    write(tmp_path, "agent.py", "import loopscope\nloopscope.configure(user_id='from the program')\n" + AGENT)
    options = ["--agent", "by option", "--endpoint", server.url, "--agent-version", "7", "--user-id", "by option"]
    env = environment(tmp_path, server, LOOPSCOPE_ENDPOINT="http://127.0.0.1:9")
    done = run([*LOOPSCOPE, *options, "--no-content", "agent.py"], tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    (call,) = server.calls()
    assert call["gen_ai.agent.name"] == "by option"
    assert call["gen_ai.agent.version"] == "7"
    assert call["user.id"] == "from the program"
    assert call.get("loopscope.request.body") is None


def test_without_a_collector_the_agent_runs_as_always(server: Server, tmp_path: Path) -> None:
    write(tmp_path, "agent.py", AGENT)
    env = environment(tmp_path, server, LOOPSCOPE_ENDPOINT="http://127.0.0.1:9")
    done = run([*LOOPSCOPE, "agent.py"], tmp_path, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, ünïcode\n", "")
    assert server.calls() == []
    assert list((tmp_path / "spool").rglob("*.spool")), "kept for the next process"


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("how", [["agent.py"], ["-m", "pack.agent"]])
def test_children_of_the_program_are_recorded(server: Server, tmp_path: Path, method: str, how: list[str]) -> None:
    code = f"""
import multiprocessing, anthropic
class Task:
    def __init__(self, text): self.text = text
def work(task):
    anthropic.Anthropic(api_key="k").messages.create(
        model="claude-sonnet-4-6", max_tokens=9, messages=[{{"role": "user", "content": task.text}}])
    return task
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(pool.map(work, [Task("a")])[0].text)
        pool.close()
        pool.join()
"""
    write(tmp_path, "agent.py", code)
    write(tmp_path, "pack/agent.py", code)
    done = run([*LOOPSCOPE, "--agent", "parent", *how], tmp_path, env=environment(tmp_path, server))
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
    assert [call["gen_ai.agent.name"] for call in server.calls()] == ["parent"]


def test_ctrl_c_reaches_the_program(tmp_path: Path) -> None:
    write(
        tmp_path,
        "waits.py",
        """
        import time
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("cleaned up")
            raise SystemExit(3)
        """,
    )
    with subprocess.Popen(
        [*LOOPSCOPE, "waits.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - it does nothing but this
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "cleaned up\n"
        assert process.wait(60) == 3


@pytest.mark.parametrize("how", [["agent.py"], ["-m", "pack.agent"]])
def test_opentelemetry_instrument_finds_us(server: Server, tmp_path: Path, how: list[str]) -> None:
    write(tmp_path, "agent.py", AGENT)
    write(tmp_path, "pack/agent.py", AGENT)
    command = [str(BIN / "opentelemetry-instrument"), sys.executable, *how]
    exporters = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
    done = run(command, tmp_path, env=environment(tmp_path, server, **exporters))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello, ünïcode\n"
    assert [call["gen_ai.agent.name"] for call in server.calls()] == ["agent"]
    left_out = environment(tmp_path, server, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="loopscope", **exporters)
    assert run(command, tmp_path, env=left_out).returncode == 0
    assert len(server.calls()) == 1


def test_the_instrumentor_begins_and_ends(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import anthropic

    import loopscope

    from .conftest import ask, delivered

    monkeypatch.setenv("LOOPSCOPE_SPOOL_DIR", str(tmp_path))
    instrumentor = LoopscopeInstrumentor()
    assert list(instrumentor.instrumentation_dependencies()) == []
    instrumentor.instrument(agent="given", endpoint=server.url, tracer_provider=None)
    with anthropic.Anthropic(api_key="k", base_url=server.url) as client:
        client.messages.create(**ask())
        delivered()
        instrumentor.uninstrument()
        client.messages.create(**ask())
    assert loopscope.flush(1)
    assert [call["gen_ai.agent.name"] for call in server.calls()] == ["given"]


def test_without_opentelemetry_instrumentation_the_instrumentor_works() -> None:
    code = """
    import sys
    sys.modules["opentelemetry.instrumentation.instrumentor"] = None
    from loopscope.instrumentor import LoopscopeInstrumentor
    from loopscope._internal import runtime
    made = LoopscopeInstrumentor()
    made.instrument(skip_dep_check=True, endpoint="http://127.0.0.1:9")
    assert runtime.active() is not None
    made.uninstrument()
    assert runtime.active() is None
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr

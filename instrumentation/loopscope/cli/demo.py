"""`loopscope demo`: collector, engine, dashboards, and agents that get into trouble, all on this machine."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from loopscope.cli._rooms import fail, room

STOP_SECONDS: Final = 30.0
"""How long the collector may drain before it is killed."""
_PORTS: Final = (("--otlp-http-port", 4318), ("--clickhouse-port", 8123), ("--dashboard-port", 8501))


def demo(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where to keep what is recorded (default: a temporary directory, removed at the end)."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Play only this scene; may be given several times.")] = None,
    data: Annotated[Path | None, typer.Option(help="Recorded airline conversations to replay (.jsonl.gz).")] = None,
    stay: Annotated[bool, typer.Option("--stay/--exit", help="Stay up when the scenes have been played.")] = True,
) -> None:
    """Start collector, engine and dashboards, run small real agents against a stand-in for the model, and stay up."""
    room("loopscope.demo.run", extra="all")
    room("loopscope_collector.process", extra="all")
    # Both are a wish to end in order, also where a shell started this in the background with SIGINT ignored.
    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, signal.default_int_handler)
    temporary = None if data_dir else Path(tempfile.mkdtemp(prefix="loopscope-demo-"))
    try:
        code = _play(data_dir or temporary or Path(), only or [], data, stay)
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    raise typer.Exit(code)


def _play(data_dir: Path, only: list[str], data: Path | None, stay: bool) -> int:
    command = [sys.executable, "-m", "loopscope.cli", "up", "--data-dir", str(data_dir)]
    for option, port in _PORTS:
        command += [option, str(port if _is_free(port) else 0)]
    # A session of its own: Ctrl-C reaches this process alone, which then ends the collector in order.
    collector = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        addresses = _addresses(collector)
        if "dashboard" not in addresses:
            raise fail("the collector did not start; what it said is above", 1)
        arguments = [sys.executable, "-m", "loopscope.demo", "--endpoint", addresses["otlp-http"]]
        if only:
            arguments += ["--only", *only]
        if data:
            arguments += ["--data", str(data)]
        typer.echo(f"\nwatch the runs arrive: {addresses['dashboard']}\n")
        code = subprocess.run(arguments, check=False).returncode
        typer.echo(f"\nthe dashboard: {addresses['dashboard']}   (Ctrl-C ends it)")
        if stay:
            collector.wait()
            typer.echo("the collector has ended", err=True)
            code = code or 1
    except KeyboardInterrupt:
        code = 0
    finally:
        _end(collector)
    return code


def _addresses(collector: "subprocess.Popen[str]") -> dict[str, str]:
    """What the collector prints, one address a line, until the dashboard is ready or it has ended."""
    found: dict[str, str] = {}
    assert collector.stdout is not None  # noqa: S101  (opened as a pipe above)
    for line in collector.stdout:
        typer.echo(line.rstrip())
        name, _, address = line.strip().partition(" ")
        found[name] = address
        if name == "dashboard":
            break
    return found


def _end(collector: "subprocess.Popen[str]") -> None:
    if collector.poll() is None:
        collector.send_signal(signal.SIGTERM)
        try:
            collector.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            collector.kill()
            collector.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

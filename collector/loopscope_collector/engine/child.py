"""The life of the engine child: start, serve, end.

Reads its configuration from standard input and takes the end of that pipe for the end of its parent, so that no orphan
holds the data directory. Reports once on standard output: `{"port": N}` or `{"error": "..."}`. Never leaves while a
statement runs: the engine would crash in its threads.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import uvicorn

from loopscope_collector.engine.config import DATABASE, EngineConfig
from loopscope_collector.engine.errors import ClickHouseError
from loopscope_collector.engine.handles import Engine
from loopscope_collector.engine.server import EngineServer
from loopscope_schemas.keys import is_loopback

DRAIN_SECONDS = 8.0
"""After SIGTERM running statements get this long, then they are killed."""
LAST_RESORT_SECONDS = 30.0
"""If even killed statements do not end, the process is ended: a crash then is better than holding the directory."""

log = logging.getLogger("loopscope.engine")


class StartError(Exception):
    """The engine cannot start; the text is for the person who started it."""


def main() -> int:
    """Run the child. Returns the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="loopscope engine: %(levelname)s %(message)s")
    # chDB and its libraries may print; the report's pipe is for the report alone.
    report_fd = os.dup(1)
    os.dup2(2, 1)
    config = EngineConfig.from_json(sys.stdin.readline())
    try:
        listener = _listen(config)
        engine = _open_engine(config.data_dir)
    except StartError as error:
        _report(report_fd, {"error": str(error)})
        return 1
    try:
        server = EngineServer(config, engine)
        port = int(listener.getsockname()[1])
        asyncio.run(_serve(server, listener, lambda: _report(report_fd, {"port": port})))
    finally:
        engine.close()
    return 0


def _report(fd: int, line: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, json.dumps(line).encode() + b"\n")
    os.close(fd)


def _listen(config: EngineConfig) -> socket.socket:
    if not is_loopback(config.host) and not config.read_keys:
        message = f"the engine does not listen on {config.host} without read keys"
        message += "; set LOOPSCOPE_READ_KEYS or listen on 127.0.0.1"
        raise StartError(message)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's delay off (40 ms an answer) only where it reads TCP there.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. An answer is two writes, head and rows; on a connection that is kept open the second one
    # would wait 40 ms for the reader's delayed acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        where = f"{config.host}:{config.port}"
        message = f"the engine cannot listen on {where}: {error.strerror}; choose another port (0 takes a free one)"
        raise StartError(message) from error
    return listener


def _open_engine(data_dir: Path) -> Engine:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        data_dir.chmod(0o700)
    except OSError as error:
        raise StartError(f"the data directory {data_dir} cannot be made or opened: {error.strerror}") from error
    try:
        engine = Engine(data_dir)
        with engine.handle() as handle:
            handle.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    except ClickHouseError as error:
        if holder := _holder(data_dir):
            message = f"the data directory {data_dir} is held by {holder}; stop it, or choose another --data-dir"
            raise StartError(message) from error
        message = (
            f"the engine cannot open the data directory {data_dir}; its log on standard error has the reason: {error}"
        )
        raise StartError(message) from error
    return engine


def _holder(data_dir: Path) -> str:
    """Who holds the lock that an open engine keeps on its status file; "" when nobody does."""
    try:
        with (data_dir / "status").open("r+b") as status:
            try:
                fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                match = re.search(rb"PID:\s*(\d+)", status.read(4096))
                return f"another process (pid {int(match.group(1))})" if match else "another process"
    except OSError:
        return ""
    return ""


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: an engine must be drained before the process ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _serve(app: EngineServer, listener: socket.socket, ready: Callable[[], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    threading.Thread(target=_watch_parent, args=(loop, stopping), name="parent-watch", daemon=True).start()
    settings = uvicorn.Config(
        app,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",  # every failure is answered and logged by the application itself
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
        backlog=512,
    )
    server = _Server(settings)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    # The socket listens already: who connects from now on is answered as soon as the server has begun.
    ready()
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
    last_resort = threading.Timer(LAST_RESORT_SECONDS, os._exit, args=(70,))
    last_resort.daemon = True
    last_resort.start()
    await app.drain(grace_seconds=DRAIN_SECONDS)
    server.should_exit = True
    await serving


def _watch_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Standard input ends when the parent closes it, or is gone in whatever way."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stopping.set)

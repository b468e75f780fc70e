"""The stand-in as a server: in a thread of a test (`StubServer`) or as the program itself (`serve`).

Called by tests, by the demo and by the `loopscope stub` command.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn

from loopscope.stub.app import make_app
from loopscope.stub.log import RequestLog
from loopscope.stub.script import Script
from loopscope.stub.service import Service
from loopscope_schemas.keys import is_loopback

START_SECONDS: Final = 30.0
"""A server that is not ready by then will not be."""
STOP_SECONDS: Final = 2
"""How long open answers may take when the server ends; what is still silent then is cut off."""


class StubServer:
    """A Messages API stand-in in a thread of this process.

        with StubServer() as stub:
            client = anthropic.Anthropic(base_url=stub.url, api_key="any")

    `port` 0 takes a free one. `log_file` gets a JSON line for each request. `seed` changes the ids (and nothing
    else), `latency_seconds` is the mean time before an answer, half more or less by call. `scripts` maps names to
    scripts. `clock` gives seconds for the prompt cache's expiry. `key`: requests need this API key; required when
    `host` is no loopback address. Raises ValueError then, OSError when the port is taken.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        log_file: Path | None = None,
        seed: int = 0,
        latency_seconds: float = 0.0,
        scripts: Mapping[str, Script] | None = None,
        clock: Callable[[], float] = time.monotonic,
        key: str | None = None,
    ) -> None:
        _check_host(host, key)
        self._host = host
        self.log = RequestLog(log_file)
        self._service = Service(seed=seed, latency_seconds=latency_seconds, clock=clock)
        self._service.scripts.update(scripts or {})
        self._socket = _listen(host, port)
        app = make_app(self._service, self.log, key)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                # Cutting answers off is what this server is asked to do; uvicorn reports each as an error.
                log_level="critical",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address for a client's `base_url`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    def add_script(self, name: str, script: Script) -> None:
        """Register a script; requests reach it by the header `x-stub-script: name/session`, by a model of this name,
        by `metadata.user_id` or by a marker in the system prompt. Its sessions begin again when it is registered
        again. Raises ValueError for a name that is empty or has a slash."""
        if not name or "/" in name:
            raise ValueError(f"a script's name is not empty and has no slash, unlike {name!r}")
        self._service.add_script(name, script)

    def start(self) -> Self:
        """Serve from a thread; returns when requests are answered. Raises RuntimeError when it does not start."""
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="loopscope-stub", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the Messages API stand-in did not start on {self.url}")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """End the server and close the log's file; the log stays readable. Twice is fine."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
            self._thread = None
        self._socket.close()
        self.log.close()

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve on this, the main, thread until SIGTERM or Ctrl-C; calls `on_ready(url)` once it listens."""

        def announce() -> None:
            while not self._server.started and not self._server.should_exit:
                time.sleep(0.005)
            if self._server.started:
                on_ready(self.url)

        # The server hands a signal it has obeyed on to whoever was there before: here, to nobody.
        before = {one: signal.signal(one, _ignore) for one in (signal.SIGINT, signal.SIGTERM)}
        threading.Thread(target=announce, name="loopscope-stub-ready", daemon=True).start()
        try:
            self._server.run([self._socket])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    host: str = "127.0.0.1",
    port: int = 8089,
    *,
    log_file: Path | None = None,
    seed: int = 0,
    latency_seconds: float = 0.0,
    scripts: Mapping[str, Script] | None = None,
    key: str | None = None,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Run a stand-in on the main thread until SIGTERM or Ctrl-C, then return. `on_ready` gets its address.

    Parameters and errors as for `StubServer`.
    """
    server = StubServer(
        host, port, log_file=log_file, seed=seed, latency_seconds=latency_seconds, scripts=scripts, key=key
    )
    server.run(on_ready)


def _check_host(host: str, key: str | None) -> None:
    if not key and not is_loopback(host):
        raise ValueError(f"the stand-in keeps every prompt; to listen on {host!r}, beyond this machine, give it a key")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    return listener


def _ignore(_signal: int, _frame: object) -> None:
    """Nothing: the server has already seen the signal."""

"""Runs the receiver: a listening socket, uvicorn, an event loop in a thread of its own.

The thread keeps requests going while the main thread waits for signals and the writer works.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Generator
from typing import Any, Self

import uvicorn

from loopscope_collector.receiver.app import Receiver

BACKLOG = 1024
MAX_CONCURRENT_REQUESTS = 1000
"""Requests and idle connections beyond this get 503 at once, before anything is read."""
GRACE_SECONDS = 5
"""When stopping, requests on their way get so long to finish."""

log = logging.getLogger("loopscope.receiver")


class PortTakenError(OSError):
    """The address cannot be listened on. The message says which and what to do."""


def bind_listener(host: str, port: int, *, flag: str) -> socket.socket:
    """A bound socket; `port` 0 takes a free one. `flag` is what the user can change. Raises PortTakenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with {flag} (0 takes a free one)"
        ) from error
    return listener


def url_of(host: str, port: int) -> str:
    """The address to print for a listener: one that can be opened, also when it listens everywhere."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to the process."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class ReceiverServer:
    """The receiver on a socket, in a thread."""

    def __init__(self, app: Receiver, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._ready = threading.Event()
        self._server = _Server(
            uvicorn.Config(
                _as_asgi(app),
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONCURRENT_REQUESTS,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_SECONDS,
                backlog=BACKLOG,
            ),
            self._ready,
        )
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def start(self) -> Self:
        """Start serving; returns when requests are answered. Raises RuntimeError when the server did not come up."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise RuntimeError(f"the receiver did not start: {self._failure}") from self._failure
        return self

    @property
    def is_alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take no more connections, finish what is on its way, end the thread."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(GRACE_SECONDS + 5)
        self._app.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                runner.run(self._server.serve(sockets=[self._listener]))
        except BaseException as error:  # the starting thread must hear of it, whatever it is
            self._failure = error
            log.exception("the receiver ended")
        finally:
            self._ready.set()


def _as_asgi(app: Receiver) -> Any:
    """uvicorn's types want its own TypedDicts; the application is typed by the ASGI protocol."""
    return app

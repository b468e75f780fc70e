"""The dashboards' process: start it, wait until it answers, start it again, end it.

Called by `process`. The child is not imported from here (rooms do not import each other): it is `python -m` a module,
run under the small guard at the end of this file, which ends it when the collector is gone in whatever way.
"""

import contextlib
import ctypes
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Final

from loopscope_collector.receiver.serving import bind_listener, url_of

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1

_NOT_FOR_CHILDREN: Final = ("LOOPSCOPE_INGEST_KEYS", "LOOPSCOPE_ADMIN_KEYS", "ANTHROPIC_API_KEY")

log = logging.getLogger("loopscope.dashboard")


class DashboardError(Exception):
    """The dashboards cannot start. The message says why and what to do."""


def default_command(bind: str, port: int) -> Sequence[str]:
    """Arguments for `python` that serve the dashboards."""
    return ("-m", "loopscope_dashboards", "--bind", bind, "--port", str(port))


def check_installed() -> None:
    """Raises DashboardError when the dashboards' libraries are absent."""
    if find_spec("streamlit") is None or find_spec("loopscope_dashboards") is None:
        raise DashboardError(
            "the dashboards need Streamlit, which is not installed: "
            "pip install 'loopscope[dashboards]', or start with --no-dashboard"
        )


def reserve_port(bind: str, port: int) -> int:
    """A port that is free now; `port` itself unless it is 0. Raises PortTakenError."""
    with contextlib.closing(bind_listener(bind, port, flag="--dashboard-port")) as listener:
        return int(listener.getsockname()[1])


class DashboardProcess:
    """The child that serves the dashboards."""

    def __init__(
        self,
        bind: str,
        port: int,
        *,
        environment: Mapping[str, str],
        command: Callable[[str, int], Sequence[str]] = default_command,
    ) -> None:
        """`environment` is added to ours: LOOPSCOPE_DSN of the readers and LOOPSCOPE_READ_KEYS."""
        self._bind = bind
        self._port = port
        self._arguments = list(command(bind, port))
        self._environment = dict(environment)
        self._child: subprocess.Popen[bytes] | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._again_at = 0.0

    @property
    def url(self) -> str:
        """Address to open in a browser."""
        return url_of(self._bind, self._port)

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs now."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self) -> None:
        """Start the child. Call from the main thread: it is ended when the thread that started it ends."""
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "loopscope_collector.dashboard_process", str(os.getpid()), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # Streamlit greets there; addresses are ours to print
            start_new_session=True,  # a Ctrl-C at the terminal is for us, who end the child in its turn
            env={**kept, **self._environment},
        )

    def wait_ready(self, stopping: threading.Event) -> bool:
        """Wait until it answers; False when `stopping` was set first. Raises DashboardError."""
        deadline = time.monotonic() + START_SECONDS
        host = "127.0.0.1" if self._bind in ("0.0.0.0", "") else "::1" if self._bind == "::" else self._bind  # noqa: S104
        url = f"{url_of(host, self._port)}/_stcore/health"
        while not stopping.is_set():
            if self.pid is None:
                code = self._child.returncode if self._child is not None else None
                raise DashboardError(f"the dashboards ended with code {code} while starting; see the lines above")
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
                if answer.status == 200:
                    return True
            if time.monotonic() > deadline:
                raise DashboardError(f"the dashboards did not answer at {url} within {START_SECONDS:g} s")
            stopping.wait(_POLL_SECONDS)
        return False

    def keep_alive(self) -> None:
        """Start the child again when it ended by itself, waiting longer each time. Call every second or so."""
        if self._child is None or self._child.poll() is None:
            return
        now = time.monotonic()
        if not self._again_at:
            log.warning("the dashboards ended with code %d; again in %g s", self._child.returncode, self._pause)
            self._again_at = now + self._pause
            self._pause = min(MAX_PAUSE_SECONDS, self._pause * 2)
        elif now >= self._again_at:
            self._again_at = 0.0
            self.start()

    def stop(self) -> None:
        """End the child. Idempotent."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()


def _guarded(arguments: Sequence[str]) -> None:
    """In the child: run `-m module ...` here, and end when the parent is gone."""
    parent, dash_m, module, *rest = arguments
    if dash_m != "-m":
        raise SystemExit(f"expected -m MODULE, got {dash_m!r}")
    if sys.platform == "linux":
        # Kept by exec as well, should the module replace this process.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    if os.getppid() != int(parent):
        raise SystemExit(0)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """Standard input is a pipe from the parent; it ends when the parent does."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    _guarded(sys.argv[1:])

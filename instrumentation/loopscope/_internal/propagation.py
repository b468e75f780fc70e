"""Carries the run over to threads, pools and processes while Loopscope records. `configure` installs it, `shutdown` and
`undo` take it out again. asyncio needs little: its tasks inherit our context variable."""

from __future__ import annotations

import os
import threading

from . import guard, processes, scope, tasks, threads
from .patches import Patches

_lock = threading.Lock()
_installed: Patches | None = None
_hooked = False


@guard.guarded
def install() -> None:
    """Wrap what starts threads and processes, in this process. A second time does nothing."""
    global _installed, _hooked
    with _lock:
        if not _hooked and hasattr(os, "register_at_fork"):
            _hooked = True
            os.register_at_fork(after_in_child=_after_fork_in_child)
        if _installed is None:
            _installed = patches = Patches()
            threads.install(patches)
            tasks.install(patches)
            processes.install(patches)


@guard.guarded
def undo() -> None:
    """Put back what `install` wrapped; what somebody else wrapped since stays and passes through."""
    global _installed
    with _lock:
        patches, _installed = _installed, None
        if patches is not None:
            patches.undo()


@guard.guarded
def _after_fork_in_child() -> None:
    """The run goes along into a forked child by itself; a lock that another thread held at that moment must not."""
    global _lock
    _lock = threading.Lock()
    inside = scope.current.get()
    if inside is not None and inside.run is not None:
        inside.run.after_fork_in_child()

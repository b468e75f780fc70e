"""The run goes along into threads and thread pools. Installed by `propagation`; wraps `threading` and the pool's items.

Only our own variable is carried, never the host's context. A thread begins where it was started; work given to a pool
runs where it was submitted. Threads that serve everybody (a pool's own) belong to no run. Threads, futures, their
names, arguments, results and tracebacks stay as they are: the scope travels as an attribute of the thread or the item.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from types import ModuleType
from typing import Any

from . import guard, scope
from .patches import Patches

_SCOPE = "_loopscope_scope"
_SHARED = (
    "anyio.",
    "concurrent.futures.",
    "loopscope._internal.",
    "multiprocessing.",
)
"""Modules whose threads serve whoever comes; what they do is not the work of the run that happened to start them."""
_FOR_USERS = ("multiprocessing.context", "multiprocessing.dummy")
"""Modules among them whose classes the host instantiates with work of its own."""


def install(patches: Patches) -> None:
    """Wrap the start and the first frame of threads, and the work items of thread pools."""
    patches.replace(threading.Thread, "start", functools.partial(_start, patches))
    patches.replace(threading.Thread, "_bootstrap_inner", _bootstrap_inner)

    def pools(module: ModuleType) -> None:
        patches.replace(module._WorkItem, "__init__", functools.partial(_submitted, patches))
        patches.replace(module._WorkItem, "run", _run_item)

    patches.when_imported("concurrent.futures.thread", pools)


def serves_all(worker: object) -> bool:
    """Whether a thread or process is a pool's own."""
    target = getattr(worker, "_target", None)
    modules = (type(worker).__module__, str(getattr(target, "__module__", "")))
    return any(f"{module}.".startswith(_SHARED) for module in modules if module not in _FOR_USERS)


def _start(patches: Patches, original: Any) -> Any:
    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.active or not _stash(self):
            return original(self, *args, **kwargs)
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            self.__dict__.pop(_SCOPE, None)
            raise

    return start


@guard.guarded
def _stash(thread: Any) -> bool:
    inside = scope.here()
    if inside is None or serves_all(thread):
        return False
    thread.__dict__[_SCOPE] = inside.detached()
    return True


def _bootstrap_inner(original: Any) -> Any:
    # Around this method and not around `run`: a subclass may override that, and its traceback would show us.
    @functools.wraps(original)
    def bootstrap_inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        _arrive(self)
        return original(self, *args, **kwargs)

    return bootstrap_inner


@guard.guarded
def _arrive(thread: Any) -> None:
    inside = thread.__dict__.pop(_SCOPE, None)
    if inside is None:
        return
    context = thread.__dict__.get("_context")
    if isinstance(context, contextvars.Context):  # Python 3.14: what runs in the thread runs in this context
        if context.get(scope.current) is None:
            context.run(scope.current.set, inside)
    else:
        scope.current.set(inside)


def _submitted(patches: Patches, original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if patches.active:
            _stash_item(self)

    return init


@guard.guarded
def _stash_item(item: Any) -> None:
    inside = scope.here()
    if inside is not None:
        item.__dict__[_SCOPE] = inside.detached()


def _run_item(original: Any) -> Any:
    # Around the item's own `run`, which keeps every exception: a traceback in a future does not show us.
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        around = scope.current.get()
        scope.current.set(self.__dict__.pop(_SCOPE, None))
        try:
            return original(self, *args, **kwargs)
        finally:
            scope.current.set(around)
            # An exception in the future leads here by way of its frames; the item must not live as long as that.
            del self, args, kwargs

    return run

"""The run goes along into processes and process pools. Installed by `propagation`; wraps multiprocessing and the pools.

A process begins where it was started; work given to a pool runs where it was submitted, whatever the start method. A
process that has no configuration of its own (spawn, forkserver) records with its parent's. Nothing of ours can make the
host's pickling fail: what travels is bytes, packed beforehand. At its end a process of multiprocessing delivers what it
recorded, since it leaves without running `atexit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import guard, handover, runtime, scope
from .patches import Patches
from .threads import serves_all

_PARCEL = "_loopscope_parcel"
_POOL_METHODS = ("apply_async", "_map_async", "imap", "imap_unordered")


def install(patches: Patches) -> None:
    """Wrap starting a process and giving work to a pool."""

    def processes(module: ModuleType) -> None:
        patches.replace(module.BaseProcess, "start", functools.partial(_start, patches))
        patches.replace(module.BaseProcess, "_bootstrap", _bootstrap)

    def pools(module: ModuleType) -> None:
        for name in _POOL_METHODS:
            patches.replace(module.Pool, name, functools.partial(_with_carried, patches, module.ThreadPool))

    def executors(module: ModuleType) -> None:
        patches.replace(module.ProcessPoolExecutor, "submit", functools.partial(_with_carried, patches, ()))

    patches.when_imported("multiprocessing.process", processes)
    patches.when_imported("multiprocessing.pool", pools)
    patches.when_imported("concurrent.futures.process", executors)


class _Parcel:
    """Bytes on a process object. Unpickling it, in the child, is arriving there."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __reduce__(self) -> tuple[Callable[[bytes], None], tuple[bytes]]:
        return _arrive, (self._packed,)


@guard.guarded
def _arrive(packed: bytes) -> None:
    import loopscope

    inside, config = handover.unpack(packed)
    if runtime.active() is None and config is not None:
        runtime.adopt(config)
        loopscope._instrument()  # pyright: ignore[reportPrivateUsage]
    scope.current.set(inside)


def _start(patches: Patches, original: Any) -> Any:
    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.active or runtime.active() is None:
            return original(self, *args, **kwargs)
        around = scope.current.get()
        _stash(self)
        try:
            return original(self, *args, **kwargs)
        finally:
            scope.current.set(around)
            self.__dict__.pop(_PARCEL, None)

    return start


@guard.guarded
def _stash(process: Any) -> None:
    active, inside = runtime.active(), scope.here()
    if serves_all(process):
        inside = None
        scope.current.set(None)  # a forked child begins with what is current
    process.__dict__[_PARCEL] = _Parcel(handover.pack(inside, active.config if active is not None else None))


def _bootstrap(original: Any) -> Any:
    @functools.wraps(original)
    def bootstrap(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__.pop(_PARCEL, None)
        code = original(self, *args, **kwargs)
        _flush()
        return code

    return bootstrap


@guard.guarded
def _flush() -> None:
    runtime.at_exit()


def _with_carried(patches: Patches, in_threads: Any, original: Any) -> Any:
    @functools.wraps(original)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if patches.active:
            pickled = not isinstance(self, in_threads)
            # What was passed wrongly is for the original to refuse.
            if args:
                args = (_carry(args[0], pickled) or args[0], *args[1:])
            elif "func" in kwargs:
                kwargs["func"] = _carry(kwargs["func"], pickled) or kwargs["func"]
        return original(self, *args, **kwargs)

    return method


@guard.guarded
def _carry(function: Any, pickled: bool) -> Carried | None:
    inside = scope.here()
    if inside is None or runtime.active() is None or not callable(function):
        return None
    return Carried(function, inside.detached(), handover.pack(inside, None) if pickled else b"")


class Carried:
    """The host's function, to be called in a pool's worker inside the scope that it was submitted in."""

    __slots__ = ("_function", "_packed", "_scope")

    def __init__(self, function: Callable[..., Any], inside: scope.Scope | None, packed: bytes) -> None:
        self._function = function
        self._scope = inside
        self._packed = packed

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        around = scope.current.get()
        scope.current.set(self._scope)
        try:
            return self._function(*args, **kwargs)
        finally:
            scope.current.set(around)

    def __reduce__(self) -> tuple[Any, tuple[Any, bytes]]:
        return _unpacked, (self._function, self._packed)

    def __repr__(self) -> str:
        return repr(self._function)


def _unpacked(function: Callable[..., Any], packed: bytes) -> Callable[..., Any]:
    found = _unpack(packed)
    return Carried(function, found[0], packed) if found is not None else function


_unpack = guard.guarded(handover.unpack)

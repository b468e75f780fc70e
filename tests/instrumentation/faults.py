"""Making any function of Loopscope raise, wherever it is bound: for the test that no fault of ours reaches the host."""

import functools
import gc
import importlib
import inspect
import pkgutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import loopscope._internal
from loopscope._internal import guard


class InjectedError(Exception):
    """What a broken function raises."""


@dataclass(frozen=True)
class Place:
    """A function of Loopscope: its name, and everything that holds it."""

    name: str
    function: FunctionType
    guarded: bool
    asynchronous: bool


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        yield importlib.import_module(found.name)


def places() -> dict[CodeType, Place]:
    """Every function and method of the internal modules, by its code."""
    found: dict[CodeType, Place] = {}
    for module in modules(loopscope._internal):
        for holder in (module, *(value for value in vars(module).values() if _is_ours(value, module))):
            for value in vars(holder).values():
                for bound in _functions(value):
                    inner = inspect.unwrap(bound)
                    if isinstance(inner, FunctionType) and inner.__module__ == module.__name__:
                        found[inner.__code__] = Place(
                            f"{inner.__module__}.{inner.__qualname__}",
                            bound,
                            bound is not inner,
                            inspect.iscoroutinefunction(inner),
                        )
    return found


def _is_ours(value: object, module: ModuleType) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__


def _functions(value: Any) -> Iterator[Any]:
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, classmethod | staticmethod):
        yield value.__func__
    elif isinstance(value, property) and value.fget is not None:
        yield value.fget
    elif isinstance(value, functools.cached_property):
        yield value.func


@contextmanager
def watching() -> Generator[set[CodeType]]:
    """The code of all functions that are called meanwhile, on any thread that starts meanwhile."""
    seen: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


@contextmanager
def broken(place: Place) -> Generator[list[int]]:
    """Have this function raise, whoever calls it by whatever name; gives how often it did."""
    raised: list[int] = []

    def raising(*_: Any, **__: Any) -> Any:
        raised.append(1)
        raise InjectedError(place.name)

    inner = inspect.unwrap(place.function)
    replacement: Any = raising
    raising.__module__, raising.__qualname__ = inner.__module__, inner.__qualname__
    if place.guarded:
        replacement = guard.guarded(raising)
    undo: list[Callable[[], None]] = []
    for holder, key, value in _holders(place.function):
        new = value
        if value is place.function:
            new = replacement
        elif isinstance(value, classmethod | staticmethod) and value.__func__ is place.function:
            new = type(value)(replacement)
        elif isinstance(value, property) and value.fget is place.function:
            new = property(replacement, value.fset)
        else:
            continue
        undo.append(_set(holder, key, new, value))
    assert undo, f"{place.name} is bound nowhere"
    try:
        yield raised
    finally:
        for restore in undo:
            restore()


def _holders(function: Callable[..., Any]) -> Iterator[tuple[Any, str, Any]]:
    """Modules and classes of Loopscope that hold this function: (holder, name, value)."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("loopscope", "anthropic"):
            continue
        for key, value in list(vars(module).items()):
            if value is function:
                yield module, key, value
            elif inspect.isclass(value) and value.__module__ == name:
                for inner_key, inner in list(vars(value).items()):
                    if function in _functions(inner):
                        yield value, inner_key, inner


def _set(holder: Any, key: str, new: Any, old: Any) -> Callable[[], None]:
    setattr(holder, key, new)
    return lambda: setattr(holder, key, old)


def settle() -> None:
    """Let what was abandoned be noticed now."""
    gc.collect()

"""A library whose methods are wrapped while an instrumentation is in force, and put back by its `undo()`.

Base of the instrumentations of claude-agent-sdk and of MCP. Wrappers look at `active` first, since one that somebody
else wrapped in turn must stay in place after `undo()` and then passes everything through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from . import guard
from .imports import AfterImport, Apply


class LibraryInstrumentation:
    """A library as instrumented by Loopscope. `undo()` restores it; also a context manager."""

    library = ""

    def __init__(self) -> None:
        self._active = True
        self._lock = threading.Lock()
        self._originals: list[tuple[type, str, Any, Any]] = []
        self._imports: AfterImport | None = None

    @property
    def active(self) -> bool:
        """False after `undo()`."""
        return self._active

    def targets(self) -> Mapping[str, Apply]:
        """Module name -> what wraps the classes of it."""
        raise NotImplementedError

    def install(self) -> None:
        """Wrap now what is imported, the rest as soon as the host imports it."""
        self._imports = AfterImport({name: guard.guarded(apply) for name, apply in self.targets().items()})
        self._imports.install()

    def undo(self) -> None:
        """Put the library's own methods back. Twice is harmless."""
        with self._lock:
            self._active = False
            if self._imports is not None:
                self._imports.remove()
            for owner, name, original, wrapper in reversed(self._originals):
                # Where somebody wrapped our wrapper, it must stay; it passes everything through from now on.
                if owner.__dict__.get(name) is wrapper:
                    setattr(owner, name, original)
            self._originals.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def replace(self, owner: type | None, name: str, make: Callable[[Any], Any]) -> None:
        """Wrap one method. A class or method that is not there is logged once; what depends on it is not recorded."""
        original = owner.__dict__.get(name) if owner is not None else None
        if owner is None or original is None:
            guard.warn_once(
                f"{self.library}.{name}",
                "loopscope: %s has no %s where it was expected, so it is not recorded; is it newer than Loopscope?",
                self.library,
                name,
            )
            return
        wrapper = make(original)
        with self._lock:
            if not self._active:
                return
            setattr(owner, name, wrapper)
            self._originals.append((owner, name, original, wrapper))

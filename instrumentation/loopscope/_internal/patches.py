"""Wrapping methods of modules that may not be imported yet, and undoing it. Used by `threads` and `processes`.

A wrapper calls the original with what it was given. Where somebody else has wrapped ours in the meantime, it must stay
when we leave: it asks `active` each time and passes everything through once that is False.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import guard

MakeWrapper = Callable[[Any], Any]


class Patches:
    """A set of wrapped methods that come and go together."""

    def __init__(self) -> None:
        self.active = True
        """False after `undo()`."""
        self._replaced: list[tuple[type, str, Any, Any]] = []
        self._finder = _AfterImport()

    def when_imported(self, module: str, apply: Callable[[ModuleType], None]) -> None:
        """Have `apply` wrap what is in this module: now if it is imported, else as soon as the host imports it."""
        loaded = sys.modules.get(module)
        if loaded is not None and not getattr(loaded.__spec__, "_initializing", False):
            apply(loaded)
            return
        self._finder.waiting[module] = apply
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)

    def replace(self, owner: type, name: str, make: MakeWrapper) -> None:
        """Wrap one method; one that is not there (another Python) is logged once and left out."""
        original = owner.__dict__.get(name)
        if original is None:
            guard.warn_once(
                f"patch.{owner.__name__}.{name}", "loopscope: %r has no %s; is this Python newer than us?", owner, name
            )
            return
        wrapper = make(original)
        setattr(owner, name, wrapper)
        self._replaced.append((owner, name, original, wrapper))

    def undo(self) -> None:
        """Put everything back as it was, except where somebody wrapped our wrapper. Twice is harmless."""
        self.active = False
        self._finder.waiting.clear()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for owner, name, original, wrapper in reversed(self._replaced):
            if owner.__dict__.get(name) is wrapper:
                setattr(owner, name, original)
        self._replaced.clear()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Notices the import of the modules waited for; finds nothing itself."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[ModuleType], None]] = {}
        self._here = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        apply = self.waiting.get(fullname)
        if apply is None or getattr(self._here, "looking", False):
            return None
        self._here.looking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._here.looking = False
        if spec is not None and isinstance(spec.loader, importlib.abc.Loader):
            spec.loader = _Loader(spec.loader, lambda module: self._imported(fullname, module))
        return spec

    @guard.guarded
    def _imported(self, name: str, module: ModuleType) -> None:
        if apply := self.waiting.pop(name, None):
            apply(module)


class _Loader(importlib.abc.Loader):
    """The module's own loader; when it has done its work, what waited for the module runs and this one steps aside."""

    def __init__(self, loader: importlib.abc.Loader, done: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._done = done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._done(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

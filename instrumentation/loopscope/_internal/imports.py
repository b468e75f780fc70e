"""Noticing that the host imports a library, so that it can be wrapped then and never has to be imported by us.

Used by the instrumentations. Finds no module itself: it lets the others find, and is told when a module is complete.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Apply = Callable[[ModuleType], None]


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with each of some modules once it is imported: now, where it is already."""

    def __init__(self, targets: Mapping[str, Apply]) -> None:
        self._waiting = dict(targets)
        self._looking = threading.local()

    def install(self) -> None:
        """Begin. A module that is being imported right now, on this thread or another, counts as imported later."""
        for name in list(self._waiting):
            module = sys.modules.get(name)
            spec = getattr(module, "__spec__", None)
            if module is not None and not getattr(spec, "_initializing", False):
                self._waiting.pop(name)(module)
        if self._waiting:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """End; what is imported from now on is not noticed."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in self._waiting or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is not None and isinstance(spec.loader, importlib.abc.Loader):
            spec.loader = _Loader(spec.loader, lambda module: self._imported(fullname, module))
        return spec

    def _imported(self, name: str, module: ModuleType) -> None:
        apply = self._waiting.pop(name, None)
        if apply is not None:
            apply(module)


class _Loader(importlib.abc.Loader):
    """The module's own loader; when it has done its work, the module is handed over and this one steps aside."""

    def __init__(self, loader: importlib.abc.Loader, imported: Apply) -> None:
        self._loader = loader
        self._imported = imported

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._imported(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

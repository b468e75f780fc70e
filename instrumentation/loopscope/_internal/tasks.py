"""What a new asyncio task inherits is where its maker is, also amid generators. Installed by `propagation`.

A task copies the context variables of the code that makes it, ours included, so nothing need be carried. Only when
generators with runs of their own are open, the variable may hold what one of them left behind; then the right scope is
put there while the task is made. Loops that are not asyncio's own (uvloop) are left alone.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from . import guard, scope
from .patches import Patches


def install(patches: Patches) -> None:
    """Wrap `create_task` of asyncio's event loops."""

    def loops(module: ModuleType) -> None:
        patches.replace(module.BaseEventLoop, "create_task", functools.partial(_create_task, patches))

    patches.when_imported("asyncio.base_events", loops)


def _create_task(patches: Patches, original: Any) -> Any:
    @functools.wraps(original)
    def create_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        around = scope.current.get()
        if not patches.active or not _corrected(around):
            return original(self, *args, **kwargs)
        try:
            return original(self, *args, **kwargs)
        finally:
            scope.current.set(around)

    return create_task


@guard.guarded
def _corrected(around: scope.Scope | None) -> bool:
    """Put the right scope there; whether it may have been a wrong one."""
    if not scope.amid_generators(around):
        return False
    inside = scope.here()
    scope.current.set(inside.detached() if inside is not None else None)
    return True

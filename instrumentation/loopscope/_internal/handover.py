"""A scope, and the settings, on their way to another process: packed into bytes here, unpacked there.

`processes` packs when the host hands work over and unpacks where it arrives. Bytes and not objects, so that nothing of
ours can make the host's own pickling fail. The run's span stays the parent process' alone: what arrives is a run that
gives its id and attributes to calls and tools and can end nothing.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from . import scope
from .recording import SpanIds
from .runs import Run

if TYPE_CHECKING:
    from .config import Config

MAX_RUNS = 256
"""Runs that a worker process remembers, to go on numbering their turns."""
_arrived: dict[str, Run] = {}


def pack(inside: scope.Scope | None, config: Config | None) -> bytes:
    """Both as bytes. Raises what pickle raises for settings that cannot be pickled."""
    packed: dict[str, Any] = {"config": config}
    if inside is not None:
        run = inside.run
        packed["span"] = tuple(inside.span)
        packed["run_id"] = inside.run_id
        packed["capture"] = inside.capture
        if run is not None:
            packed["run"] = {"name": run.name, "turn": run.turn, "shared": dict(run.shared_attributes)}
    return pickle.dumps(packed, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> tuple[scope.Scope | None, Config | None]:
    """What `pack` was given; the bytes come from this program's own parent process."""
    found: dict[str, Any] = pickle.loads(packed)  # noqa: S301
    if "span" not in found:
        return None, found["config"]
    run_id: str = found["run_id"]
    run = _run(run_id, **found["run"]) if "run" in found else None
    return scope.Scope(SpanIds(*found["span"]), run, run_id, found["capture"]), found["config"]


def _run(run_id: str, name: str | None, turn: int, shared: dict[str, Any]) -> Run:
    run = _arrived.get(run_id)
    if run is None:
        if len(_arrived) >= MAX_RUNS:
            _arrived.pop(next(iter(_arrived)), None)
        run = _arrived[run_id] = Run.handed_over(name, run_id=run_id, shared_attributes=shared)
    run.at_least_turn(turn)
    return run

"""Delivering what dead processes left behind, from a process that records nothing itself. Called by `loopscope flush`.

Takes over the spool files that no living process holds, as any next agent would, and tells what became of them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from . import guard
from .config import Config
from .endpoints import credential_free
from .spool import ADDRESS, SUFFIX, Spool, directory_for


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Spool files for another address in the same spool directory."""

    endpoint: str
    """The address, or the directory's path where it is not written down."""
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """What was found and what became of it; numbers of spans where nothing else is said."""

    endpoint: str
    found: int
    delivered: int
    refused: int
    """Refused for good, and set aside in `rejected/`."""
    left: int
    """Still in the spool."""
    held_files: int
    """Files of processes that still run: they deliver them themselves."""
    dropped_before: int
    """What dead processes had dropped because the spool was full, and could not tell; the next agent tells it."""
    elsewhere: tuple[Elsewhere, ...]

    @property
    def complete(self) -> bool:
        """Whether everything that was found is delivered."""
        return not self.left and not self.refused


def deliver_left(config: Config, version: str, timeout: float) -> Flushed:
    """Deliver for at most `timeout` seconds what dead processes left for this configuration's endpoint."""
    from .delivery import Exporter
    from .drops import untold_by_dead
    from .encoding import resource, scope

    directory = directory_for(config.spool_dir, config.traces_url) if config.spool_dir is not None else None
    before = guard.counts()
    dropped = held = left = 0
    if directory is not None and directory.is_dir():
        deadline = time.monotonic() + timeout
        nobody = resource({})
        spool = Spool(directory, f"{time.time_ns()}-flush-{os.getpid()}", nobody, config.spool_max_bytes)
        exporter = Exporter(config, spool, scope(version), lambda: nobody, takes_over_drops=False)
        exporter.start()
        exporter.wait_empty(deadline, give_up_when_away=False)
        exporter.stop(1.0)
        left = spool.spans_held
        own = {segment.path for segment in spool.segments()}
        held = len([path for path in directory.glob(f"*{SUFFIX}") if path not in own])
        spool.close()
        dropped = untold_by_dead(directory, take=False)
    after = guard.counts()

    def counted(name: str) -> int:
        return after.get(name, 0) - before.get(name, 0)

    delivered, refused = counted("spans_delivered"), counted("spans_rejected")
    return Flushed(
        endpoint=credential_free(config.traces_url),
        found=delivered + refused + left,
        delivered=delivered,
        refused=refused,
        left=left,
        held_files=held,
        dropped_before=dropped,
        elsewhere=tuple(_elsewhere(config.spool_dir, directory)),
    )


def _elsewhere(spool_dir: Path | None, own: Path | None) -> list[Elsewhere]:
    found: list[Elsewhere] = []
    for directory in sorted(spool_dir.iterdir()) if spool_dir is not None else ():
        if directory == own or not directory.is_dir():
            continue
        sizes = [path.stat().st_size for path in directory.glob(f"*{SUFFIX}")]
        if not sizes:
            continue
        try:
            address = (directory / ADDRESS).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            address = ""
        found.append(Elsewhere(address or str(directory), len(sizes), sum(sizes)))
    return found

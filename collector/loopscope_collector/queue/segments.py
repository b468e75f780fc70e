"""Segment files: their names, reading them, and making them good after a crash.

    <id>.open             being written; its torn tail, if any, was never acknowledged
    <id>.<length>.sealed  complete; exactly so many bytes belong to it, and they never change

An id is a time and a random part: it sorts by age and is never used twice, not even when the directory was emptied or
two collectors write to one store. Used by `durable`; the writer reads `Segment.records`.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from loopscope_collector.queue.files import Files
from loopscope_collector.queue.records import Record, read_all, whole_prefix

_OPEN: Final = re.compile(r"(?P<id>\d{20}-[0-9a-f]{8})\.open")
_SEALED: Final = re.compile(r"(?P<id>\d{20}-[0-9a-f]{8})\.(?P<length>\d+)\.sealed")


def _no_report(_damaged: int) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed batch of records: one insert per table, one deduplication token."""

    id: str
    """Unique, sorts by age, the same after a restart."""
    path: Path
    length: int
    """Bytes of the file that belong to the segment."""
    on_damage: Callable[[int], None] = field(default=_no_report, compare=False, repr=False)
    """Told how many bytes could not be read, at each reading."""

    @property
    def begun_at(self) -> int:
        """When its first record was written, Unix nanoseconds."""
        return int(self.id.partition("-")[0])

    def records(self) -> Iterator[Record]:
        """Every record whose checksum is right, in order of receipt; the same ones at each call."""
        with self.path.open("rb") as file:
            data = file.read(self.length)
        if len(data) < self.length:
            self.on_damage(self.length - len(data))
        for item in read_all(data):
            if isinstance(item, Record):
                yield item
            else:
                self.on_damage(item)


class SegmentSource(Protocol):
    """What the writer sees of the queue."""

    def next_sealed(self, timeout: float) -> Segment | None:
        """The oldest sealed segment that is not done, waiting at most `timeout` seconds for one."""
        ...

    def done(self, segment: Segment) -> None:
        """Forget a segment, durably."""
        ...

    def set_aside(self, segment_id: str, record: Record, reason: str) -> None:
        """Keep a record that cannot be stored, with the reason, durably."""
        ...


def new_segment_id(now_ns: int, after: str) -> str:
    """An id that sorts behind `after`, even when the clock went backwards."""
    at = max(now_ns, int(after.partition("-")[0] or 0) + 1)
    return f"{at:020d}-{secrets.token_hex(4)}"


def open_path(directory: Path, segment_id: str) -> Path:
    """Where a segment is written."""
    return directory / f"{segment_id}.open"


def sealed_path(directory: Path, segment_id: str, length: int) -> Path:
    """Where a sealed segment lies."""
    return directory / f"{segment_id}.{length}.sealed"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found in the directory."""

    segments: list[tuple[str, Path, int]]
    """Id, path and length of every segment, oldest first."""
    torn_bytes: int
    """Cut off, because a crash came while they were written."""


def recover(directory: Path, files: Files) -> Recovered:
    """Seal what a crash left open, without its torn tail. Safe to repeat, and to be interrupted anywhere."""
    found: list[tuple[str, Path, int]] = []
    torn = 0
    for path in sorted(directory.iterdir()):
        if sealed := _SEALED.fullmatch(path.name):
            found.append((sealed["id"], path, int(sealed["length"])))
        elif opened := _OPEN.fullmatch(path.name):
            data = path.read_bytes()
            length = whole_prefix(memoryview(data))
            torn += len(data) - length
            if not length:
                files.remove(path)
                continue
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                files.truncate(descriptor, length)
            finally:
                files.close(descriptor)
            sealed_at = sealed_path(directory, opened["id"], length)
            files.rename(path, sealed_at)
            found.append((opened["id"], sealed_at, length))
    return Recovered(sorted(found), torn)

"""The spool: finished spans on disk until the collector has them, so that a killed agent's last calls are not lost.

A process appends to segment files of its own; each holds the process' resource and framed spans (length, CRC-32, bytes)
and is locked while its process lives. A file that can be locked belongs to a dead process: whoever finds it delivers
it, from the cursor on that its process kept in it: what was delivered is not delivered again. Written without fsync:
what is written survives the death of the process, though not of the machine. Bounded in bytes: the oldest segment goes
first, and what was in it is counted. Without a directory the frames wait in memory.

One thread appends, one thread reads and acknowledges; the lock is held for moments only.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import guard

MAGIC = b"LOOPSPL2"
MAGIC_WITHOUT_CURSOR = b"LOOPSPL1"
"""Files of the first format: all that is in them is taken to be undelivered."""
SUFFIX = ".spool"
SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment is deleted as a whole; smaller ones free space sooner, larger ones mean fewer files."""
ADDRESS = "address.txt"
"""Beside the segments: the address that they are for, for people and for `loopscope flush`; no user, no password."""
HELD_MAX_BYTES = 4 * 1024 * 1024
"""Of spans that are on disk so much is kept in memory as well, to be sent without being read back."""
MEMORY_MAX_BYTES = 64 * 1024 * 1024
"""What spans may hold of the host's memory when there is no disk to hold them."""
_FRAME = struct.Struct(">II")
_CURSOR = struct.Struct(">Q")
"""Offset of the first frame that is not delivered yet, right behind MAGIC."""


def directory_for(spool_dir: Path, traces_url: str) -> Path:
    """One directory for each collector: a process never delivers another's spans to its own collector."""
    return spool_dir / hashlib.sha256(traces_url.encode()).hexdigest()[:16]


def lock_file(fd: int) -> bool:
    """Lock the file for this process, without waiting; False when another process has it."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows: an open file cannot be removed there, which is lock enough
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Frame:
    """One span in a segment."""

    segment: Segment
    offset: int
    length: int


class Segment:
    """A file of frames that this process has open and locked; its own, or one of a dead process."""

    def __init__(self, path: Path | None, fd: int, resource: bytes, size: int, header_size: int) -> None:
        self.path = path
        self.fd = fd
        self.resource = resource
        self.size = size
        self.header_size = header_size
        self.pending: deque[Frame] = deque()
        self.memory: dict[int, Sequence[bytes]] = {}
        """Offset -> a frame's bytes in pieces: of all frames for a segment without a file, else of some."""

    @classmethod
    def create(cls, directory: Path | None, name: str, resource: bytes) -> Segment:
        size = len(MAGIC) + _CURSOR.size + _FRAME.size + len(resource)
        header = MAGIC + _CURSOR.pack(size) + _FRAME.pack(len(resource), zlib.crc32(resource)) + resource
        if directory is None:
            return cls(None, -1, resource, len(header), len(header))
        # Under another name until locked: a finder must not take it for the file of a dead process.
        temporary = directory / f".{name}.tmp"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        lock_file(fd)
        os.write(fd, header)
        path = directory / f"{name}{SUFFIX}"
        temporary.rename(path)
        return cls(path, fd, resource, len(header), len(header))

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """The file of a dead process with the frames that are whole; None when its process lives or it is not
        readable."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        if not lock_file(fd) or not path.exists():
            os.close(fd)
            return None
        size = os.fstat(fd).st_size
        magic = os.pread(fd, len(MAGIC), 0)
        if magic not in (MAGIC, MAGIC_WITHOUT_CURSOR):
            guard.count("spool_files_unknown")
            guard.warn_once("spool-unknown", "loopscope: %s is no spool file of a known format; it is left alone", path)
            os.close(fd)
            return None
        offset, cursor = len(MAGIC), 0
        if magic == MAGIC:
            field = os.pread(fd, _CURSOR.size, offset)
            cursor = _CURSOR.unpack(field)[0] if len(field) == _CURSOR.size else 0
            offset += _CURSOR.size
        head = os.pread(fd, _FRAME.size, offset)
        resource = b""
        if len(head) == _FRAME.size:
            length, crc = _FRAME.unpack(head)
            resource = os.pread(fd, min(length, size), offset + _FRAME.size)
            if len(resource) != length or zlib.crc32(resource) != crc:
                resource = b""
        segment = cls(path, fd, resource, size, offset + _FRAME.size + len(resource))
        if resource:
            # A cursor beyond the end: its process died between emptying the file and setting it back.
            begin = cursor if segment.header_size <= cursor <= size else segment.header_size
            segment.pending.extend(segment.scan(begin))
        return segment

    def scan(self, offset: int) -> Iterator[Frame]:
        """The frames of an adopted file from an offset on, up to the first that is cut off or damaged."""
        while offset + _FRAME.size <= self.size:
            length, crc = _FRAME.unpack(os.pread(self.fd, _FRAME.size, offset))
            data = os.pread(self.fd, length, offset + _FRAME.size) if 0 < length <= self.size - offset else b""
            if len(data) != length or zlib.crc32(data) != crc:
                guard.count("spool_frames_damaged")
                return
            yield Frame(self, offset + _FRAME.size, length)
            offset += _FRAME.size + length

    def append(self, parts: Sequence[bytes], *, hold: bool = False) -> Frame:
        """Write a frame; with `hold` keep its parts in memory as well until it is settled."""
        length, crc = 0, 0
        for part in parts:
            length += len(part)
            crc = zlib.crc32(part, crc)
        frame = Frame(self, self.size + _FRAME.size, length)
        if self.path is not None:
            _write_all(self.fd, [_FRAME.pack(length, crc), *parts], self.size)
        if hold or self.path is None:
            self.memory[frame.offset] = parts
        self.size += _FRAME.size + length
        return frame

    def parts(self, frame: Frame) -> Sequence[bytes]:
        """A frame's bytes in pieces: those it was made of where they are held, else read from the file."""
        held = self.memory.get(frame.offset)
        return held if held is not None else (self.read(frame),)

    def read(self, frame: Frame) -> bytes:
        if self.path is None:
            return b"".join(self.memory[frame.offset])
        data = os.pread(self.fd, frame.length, frame.offset)
        if len(data) != frame.length:
            raise OSError(f"{self.path} ends before the span at {frame.offset}; was it shortened by another program?")
        return data

    def delivered_up_to(self, offset: int) -> None:
        """Keep in the file that what stands before this offset needs no more delivery, should this process die."""
        # No descriptor: closed while the exporter still waited for an answer; then it is delivered again.
        if self.path is not None and self.fd >= 0 and os.pread(self.fd, len(MAGIC), 0) == MAGIC:
            os.pwrite(self.fd, _CURSOR.pack(offset), len(MAGIC))

    def truncate(self) -> None:
        """Forget all frames: each has been delivered."""
        self.memory.clear()
        if self.path is not None and self.size > self.header_size:
            os.ftruncate(self.fd, self.header_size)
            self.delivered_up_to(self.header_size)
        self.size = self.header_size

    def remove(self) -> None:
        self.memory.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _write_all(fd: int, parts: list[bytes], offset: int) -> None:
    """Write at `offset` without joining the parts; a short write is continued."""
    written = os.pwritev(fd, parts, offset)
    total = sum(map(len, parts))
    if written < total:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            done = os.pwrite(fd, rest, offset + total - len(rest))
            rest = rest[done:]


class Spool:
    """The segments of one process, oldest first, after those it took over from dead ones."""

    def __init__(self, directory: Path | None, name: str, resource: bytes, max_bytes: int) -> None:
        self.directory = directory
        self.name = name
        self.resource = resource
        self._max_bytes = max_bytes if directory is not None else min(max_bytes, MEMORY_MAX_BYTES)
        self._segment_bytes = min(SEGMENT_BYTES, max(max_bytes // 8, 64 * 1024))
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque()
        self._current: Segment | None = None
        self._made = 0
        self._held = 0
        """Bytes of spans that are on disk and in memory as well."""
        self._in_flight: set[Segment] = set()

    def append(self, parts: Sequence[bytes]) -> bool:
        """Keep one span; False when there is no room for it even after dropping the oldest."""
        length = sum(map(len, parts)) + _FRAME.size
        with self._lock:
            if length > self._max_bytes or not self._make_room(length):
                guard.count("spans_dropped")
                return False
            segment = self._current
            if segment is None or (segment.pending and segment.size + length > self._segment_bytes):
                segment = self._new_segment()
            hold = self._held + length <= HELD_MAX_BYTES and segment.path is not None
            try:
                frame = segment.append(parts, hold=hold)
                self._held += frame.length if hold else 0
            except OSError as error:  # the disk is full or gone; what is in the file stays readable
                frame = self._append_in_memory(parts, error)
                if frame is None:
                    return False
            frame.segment.pending.append(frame)
            return True

    def _append_in_memory(self, parts: Sequence[bytes], error: OSError) -> Frame | None:
        guard.warn_once("spool", "loopscope: cannot write to the spool (%s); spans wait in memory", error)
        guard.count("spool_errors")
        held = sum(s.size for s in self._segments if s.path is None)
        if held + sum(map(len, parts)) > MEMORY_MAX_BYTES:
            guard.count("spans_dropped")
            return None
        segment = Segment.create(None, "", self.resource)
        self._segments.append(segment)
        self._current = None
        return segment.append(parts)

    def _new_segment(self) -> Segment:
        self._made += 1
        try:
            segment = Segment.create(self.directory, f"{self.name}-{self._made:06d}", self.resource)
        except OSError as error:
            guard.warn_once("spool", "loopscope: cannot write to the spool (%s); spans wait in memory", error)
            guard.count("spool_errors")
            segment = Segment.create(None, "", self.resource)
        self._segments.append(segment)
        self._current = segment
        return segment

    def _make_room(self, length: int) -> bool:
        while self.bytes_held + length > self._max_bytes:
            victim = next((s for s in self._segments if s not in self._in_flight and s.pending), None)
            if victim is None:
                return False
            guard.count("spans_dropped", len(victim.pending))
            guard.warn_once(
                "spool-full", "loopscope: the spool is full (%d bytes); the oldest spans go", self._max_bytes
            )
            self._discard(victim)
        return True

    def _discard(self, segment: Segment) -> None:
        for frame in segment.pending:
            self._let_go(frame)
        segment.pending.clear()
        if segment is self._current:
            self._current = None
        self._segments.remove(segment)
        segment.remove()

    def _let_go(self, frame: Frame) -> None:
        """Forget what is held in memory of a frame."""
        if frame.segment.memory.pop(frame.offset, None) is not None and frame.segment.path is not None:
            self._held -= frame.length

    @property
    def bytes_held(self) -> int:
        # A tuple is made in one step; the deque itself may change while another thread walks it.
        return sum(segment.size - segment.header_size for segment in tuple(self._segments))

    @property
    def spans_held(self) -> int:
        return sum(len(segment.pending) for segment in tuple(self._segments))

    def segments(self) -> tuple[Segment, ...]:
        """Its segments, oldest first."""
        return tuple(self._segments)

    def adopt_orphans(self) -> int:
        """Take over files of dead processes in the same directory; the number of spans found."""
        if self.directory is None:
            return 0
        adopted: list[Segment] = []
        own = {segment.path for segment in tuple(self._segments)}
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path in own or (segment := Segment.adopt(path)) is None:
                continue
            if not segment.pending:
                segment.remove()
                continue
            adopted.append(segment)
        found = sum(len(segment.pending) for segment in adopted)
        with self._lock:
            self._segments.extendleft(reversed(adopted))  # the oldest first
            self._make_room(0)
        for path in self.directory.glob(".*.tmp"):
            self._sweep(path)
        return found

    @staticmethod
    def _sweep(path: Path) -> None:
        """Remove a file whose maker died before giving it its name."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        if lock_file(fd) and os.fstat(fd).st_size:
            path.unlink(missing_ok=True)
        os.close(fd)

    def next_batch(self, max_bytes: int, max_frames: int) -> list[Frame]:
        """The oldest frames of the oldest segment that has any; they stay until `settle`."""
        with self._lock:
            for segment in self._segments:
                if not segment.pending:
                    continue
                batch: list[Frame] = []
                size = 0
                for frame in segment.pending:
                    if batch and (size + frame.length > max_bytes or len(batch) >= max_frames):
                        break
                    batch.append(frame)
                    size += frame.length
                self._in_flight.add(segment)
                return batch
        return []

    def release(self, batch: Sequence[Frame]) -> None:
        """The batch was not delivered; it stays."""
        with self._lock:
            self._in_flight -= {frame.segment for frame in batch}

    def settle(self, batch: Sequence[Frame]) -> None:
        """The batch was delivered or set aside: forget it, and its file when nothing is left in it."""
        with self._lock:
            for frame in batch:
                segment = frame.segment
                self._in_flight.discard(segment)
                if segment.pending and segment.pending[0] is frame:
                    segment.pending.popleft()
                self._let_go(frame)
            for segment in {frame.segment for frame in batch}:
                if segment.pending:
                    segment.delivered_up_to(segment.pending[0].offset - _FRAME.size)
                if not segment.pending and segment in self._segments:
                    if segment is self._current:
                        segment.truncate()
                    else:
                        self._discard(segment)

    def close(self) -> None:
        """Leave: files with spans in them stay for whoever comes next, empty ones go."""
        with self._lock:
            for segment in list(self._segments):
                if segment.pending:
                    segment.close()
                else:
                    segment.remove()
            self._segments.clear()
            self._current = None

    def abandon_after_fork(self) -> None:
        """In a forked child: close the parent's files, so that their locks end with the parent. Takes no lock."""
        for segment in list(self._segments):
            segment.close()

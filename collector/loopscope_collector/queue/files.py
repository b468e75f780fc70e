"""Every file operation of the queue, so that tests can make each of them fail.

Order matters more than speed here: a new file's directory entry is on disk before the first record in it is
acknowledged, and a rename before the segment is handed to the writer.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_VECTOR: Final = 512
"""Buffers in one writev; the system's bound is 1024."""

_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Files:
    """The operating system's files. Each method raises OSError as the system does."""

    def create(self, path: Path) -> int:
        """Open a new file for appending, its name durable; readable by its owner alone."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.sync_directory(path.parent)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return descriptor

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
        """Write all of it, however many calls it takes."""
        waiting = [memoryview(piece) for piece in pieces if piece]
        first = 0
        while first < len(waiting):
            written = os.writev(descriptor, waiting[first : first + _VECTOR])
            while first < len(waiting) and written >= len(waiting[first]):
                written -= len(waiting[first])
                first += 1
            if written:
                waiting[first] = waiting[first][written:]

    def sync(self, descriptor: int) -> None:
        """Wait until what was written is on disk."""
        _sync_data(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut the file to a length, durably."""
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its directory, durably."""
        path.rename(to)
        self.sync_directory(to.parent)

    def remove(self, path: Path) -> None:
        """Delete a file, durably; one that is gone already is fine."""
        path.unlink(missing_ok=True)
        self.sync_directory(path.parent)

    def sync_directory(self, directory: Path) -> None:
        """Make names in a directory durable."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_whole(self, path: Path, pieces: Sequence[bytes]) -> None:
        """Make a small file with this content, or leave none: written aside, synced, renamed."""
        aside = path.with_name(path.name + ".tmp")
        aside.unlink(missing_ok=True)
        descriptor = self.create(aside)
        try:
            self.write(descriptor, pieces)
            self.sync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(aside, path)

"""The segment that is being written.

Used by the committer thread of `durable` alone. Whatever goes wrong, `synced` bytes of the file are what was
acknowledged; nothing is ever written behind bytes that are not known to be good.
"""

import contextlib
import time
from pathlib import Path
from typing import Self

from loopscope_collector.queue.files import Files
from loopscope_collector.queue.records import Record, frame
from loopscope_collector.queue.segments import open_path, sealed_path


class ActiveSegment:
    """An open segment file."""

    def __init__(self, files: Files, directory: Path, segment_id: str, descriptor: int) -> None:
        self.id = segment_id
        self.synced = 0
        """Bytes on disk that belong to acknowledged records."""
        self.began = time.monotonic()
        """When its first record came (for the age, hence not the wall clock)."""
        self.broken = False
        """No more may be written to it: what lies behind `synced` is unknown."""
        self._files = files
        self._directory = directory
        self._descriptor = descriptor

    @classmethod
    def create(cls, files: Files, directory: Path, segment_id: str) -> Self:
        """Make the file, its name durable. Raises OSError."""
        return cls(files, directory, segment_id, files.create(open_path(directory, segment_id)))

    def append(self, records: list[Record]) -> None:
        """Write the records and wait for the disk. Raises OSError, and then none of them is part of the segment."""
        pieces = [piece for record in records for piece in frame(record)]
        if not self.synced:
            self.began = time.monotonic()
        try:
            self._files.write(self._descriptor, pieces)
            self._files.sync(self._descriptor)
        except OSError:
            # After a failed fsync the system may have dropped the pages: go back to what is known to be on disk.
            try:
                self._files.truncate(self._descriptor, self.synced)
            except OSError:
                self.broken = True
            raise
        self.synced += sum(len(piece) for piece in pieces)

    def age_seconds(self) -> float:
        """Since the first record."""
        return time.monotonic() - self.began

    def seal(self) -> Path:
        """Close it under its final name, which says how many bytes belong to it. Raises OSError; may be repeated."""
        to = sealed_path(self._directory, self.id, self.synced)
        if to.exists():  # renamed by an earlier try that failed afterwards
            self._files.sync_directory(self._directory)
        else:
            self._files.rename(open_path(self._directory, self.id), to)
        self.close()
        return to

    def discard(self) -> None:
        """Remove a segment that holds nothing. Raises OSError."""
        self.close()
        self._files.remove(open_path(self._directory, self.id))

    def close(self) -> None:
        """Close the file and leave it as it is."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # everything that counts was synced
                self._files.close(descriptor)

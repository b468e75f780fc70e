"""How many spans a process had to drop and has not told its collector yet: a small file beside its spool files.

Locked while its process lives, as they are. Who finds the file of a dead process tells in its place and removes it.
Used by the exporter's thread alone. A file that cannot be written costs the count, never a span.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import guard
from .spool import lock_file

SUFFIX = ".drops"


class DropLog:
    def __init__(self, directory: Path | None, name: str) -> None:
        self._directory = directory
        self._name = name
        self._path: Path | None = None
        self._fd = -1
        self._noted = 0

    def note(self, total: int, told: int) -> None:
        """So many were dropped so far, and so many of them the collector knows of."""
        untold = max(total - told, 0)
        if self._directory is None or untold == self._noted:
            return
        self._noted = untold
        try:
            if untold:
                self._write(self._directory, f"{untold}\n".encode())
            elif self._path is not None:
                self._path.unlink(missing_ok=True)
                self._path = None
                self.close()
        except OSError as error:
            guard.warn_once("drops", "loopscope: the number of dropped spans cannot be written down: %s", error)

    def _write(self, directory: Path, text: bytes) -> None:
        if self._path is None:
            temporary = directory / f".{self._name}{SUFFIX}.tmp"
            self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            lock_file(self._fd)
            os.pwrite(self._fd, text, 0)
            self._path = temporary.rename(directory / f"{self._name}{SUFFIX}")
            return
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def close(self) -> None:
        """Leave; the file, if there is one, is for whoever comes next."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def untold_by_dead(directory: Path | None, *, take: bool) -> int:
    """What dead processes had dropped and not told; with `take` it is the caller's to tell from now on."""
    found = 0
    for path in sorted(directory.glob(f"*{SUFFIX}")) if directory is not None else ():
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if not lock_file(fd):
                continue
            text = os.pread(fd, 32, 0).strip()
            found += int(text) if text.isdigit() else 0
            if take:
                path.unlink(missing_ok=True)
        finally:
            os.close(fd)
    return found

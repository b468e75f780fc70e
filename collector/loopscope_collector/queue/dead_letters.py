"""Records that the store will never take, kept with the reason.

One file each: a line of JSON that says what it is, then the body as received. The name comes from the segment and the
content, so that a replay of the segment writes the same file again instead of a second one. Bounded: beyond the
bound the oldest give way, counted.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

from loopscope_collector.metrics import Metrics
from loopscope_collector.queue.files import Files
from loopscope_collector.queue.records import Record

SUFFIX = ".dead"


class DeadLetters:
    """The dead-letter directory."""

    def __init__(
        self, directory: Path, *, max_bytes: int, metrics: Metrics, clock: Callable[[], int], files: Files
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._clock = clock
        self._files = files
        self._lock = threading.Lock()
        self._sizes = {path: path.stat().st_size for path in sorted(directory.glob(f"*{SUFFIX}"))}
        self._report()

    def add(self, segment_id: str, record: Record, reason: str) -> Path:
        """Keep a record, durably; returns its file. Adding the same one again changes nothing. Raises OSError."""
        digest = hashlib.sha256(record.body).hexdigest()[:16]
        path = self._directory / f"{segment_id}-{record.kind}-{digest}{SUFFIX}"
        head = {
            "segment": segment_id,
            "reason": reason,
            "kind": record.kind,
            "encoding": record.encoding,
            "received_at": record.received_at,
            "set_aside_at": self._clock(),
            "body_bytes": len(record.body),
        }
        line = json.dumps(head).encode() + b"\n"
        with self._lock:
            if path not in self._sizes:
                self._files.write_whole(path, [line, record.body])
                self._sizes[path] = len(line) + len(record.body)
                self._metrics.count("dead_letters_added")
                self._make_room(keep=path)
                self._report()
        return path

    def _make_room(self, keep: Path) -> None:
        for path in [path for path in self._sizes if path != keep]:
            if sum(self._sizes.values()) <= self._max_bytes:
                return
            self._files.remove(path)
            del self._sizes[path]
            self._metrics.count("dead_letters_dropped", reason="too_many_bytes")

    def _report(self) -> None:
        self._metrics.gauge("dead_letters", len(self._sizes))
        self._metrics.gauge("dead_letter_bytes", sum(self._sizes.values()))


def read_dead_letter(path: Path) -> tuple[dict[str, object], bytes]:
    """What a dead letter says about itself, and the body. Raises OSError, ValueError."""
    line, _, body = path.read_bytes().partition(b"\n")
    return json.loads(line), body

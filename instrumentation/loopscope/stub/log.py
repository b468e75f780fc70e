"""What the stand-in saw and answered, request by request: the account that other totals are checked against.

Filled by the app; read by tests, by the demo's comparison and over `GET /stub/log`. It keeps the bytes of each request
exactly, and of a streamed answer what was really sent. Bounded by bytes; what had to go is counted.
"""

import base64
import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

JsonDict = dict[str, Any]

LOG_MAX_BYTES: Final = 512 * 1024 * 1024
"""Request and response bytes kept in memory; older entries make room."""
SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
REDACTED: Final = "[redacted]"


@dataclass(frozen=True)
class LogEntry:
    """One HTTP request and what became of it.

    `number` counts from 1. `at_unix_nano` is when it arrived, `duration_ms` until its end. `ended` is how: `answered`;
    `error` (status >= 400, or an `error` event in the stream); `broken` (this side cut the connection); `abandoned`
    (the client went away). `response` is the message (of a stream: what was sent of it) or the error body; None when
    nothing was sent. `retry` is the client's own count of retries of this call: 0 on its first request. `script` and
    `session` say which script answered (None without one) and `step` which turn of it, from 0.
    """

    number: int
    at_unix_nano: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    retry: int
    script: str | None
    session: str | None
    step: int | None
    status: int | None
    ended: str
    stream: bool
    request_id: str
    response: JsonDict | None
    duration_ms: float

    @property
    def usage(self) -> JsonDict | None:
        """The usage of the answer, None without one."""
        return self.response.get("usage") if self.response else None

    @property
    def request(self) -> JsonDict:
        """The request body as JSON. Raises ValueError where it was none."""
        return json.loads(self.body)

    def to_json(self) -> JsonDict:
        """All of it as JSON; the body in base64 under `body_base64`."""
        return {
            "number": self.number,
            "at_unix_nano": self.at_unix_nano,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": dict(self.headers),
            "body_base64": base64.b64encode(self.body).decode(),
            "retry": self.retry,
            "script": self.script,
            "session": self.session,
            "step": self.step,
            "status": self.status,
            "ended": self.ended,
            "stream": self.stream,
            "request_id": self.request_id,
            "response": self.response,
            "usage": self.usage,
            "duration_ms": self.duration_ms,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "LogEntry":
        """The entry that `to_json` wrote."""
        values = {name: value for name, value in data.items() if name not in ("body_base64", "usage")}
        return LogEntry(body=base64.b64decode(data["body_base64"]), **values)


class RequestLog:
    """The entries of one stand-in, oldest first. Safe to read from any thread."""

    def __init__(self, file: Path | None = None, max_bytes: int = LOG_MAX_BYTES) -> None:
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, LogEntry]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._last = 0
        self._dropped = 0
        self._file = file.open("a", encoding="utf-8") if file else None

    def next_number(self) -> int:
        """The number for a request that has just arrived."""
        with self._lock:
            self._last += 1
            return self._last

    def append(self, entry: LogEntry) -> None:
        """Keep an entry; write it to the file, if there is one, before anything else happens."""
        response_bytes = len(json.dumps(entry.response)) if entry.response else 0
        size = len(entry.body) + response_bytes + 1_000
        with self._lock:
            if self._file is not None:
                self._file.write(json.dumps(entry.to_json()) + "\n")
                self._file.flush()
            self._entries.append((size, entry))
            self._bytes += size
            while self._bytes > self._max_bytes and len(self._entries) > 1:
                gone, _ = self._entries.popleft()
                self._bytes -= gone
                self._dropped += 1

    def entries(self, since: int = 0) -> list[LogEntry]:
        """Entries with a number above `since`, in the order of their numbers."""
        with self._lock:
            found = [entry for _, entry in self._entries if entry.number > since]
        return sorted(found, key=lambda entry: entry.number)

    @property
    def dropped(self) -> int:
        """Entries that had to make room."""
        return self._dropped

    def reset(self) -> None:
        """Forget the entries in memory; the file, if any, is kept and goes on."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            self._dropped = 0

    def close(self) -> None:
        """Close the file. Entries stay readable."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def redacted(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without the values of credentials."""
    return {name: REDACTED if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def read_log(path: Path) -> list[LogEntry]:
    """The entries of a log file. Raises OSError, ValueError."""
    with path.open(encoding="utf-8") as lines:
        return [LogEntry.from_json(json.loads(line)) for line in lines]

"""One kept-alive HTTP connection to the collector. Knows HTTP and nothing of spans; used by the exporter's thread.

The standard library's client, because the HTTP libraries an agent uses are often instrumented, and what they send must
not come to record us recording.
"""

from __future__ import annotations

import email.utils
import gzip
import http.client
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from loopscope_schemas.keys import is_loopback

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the collector said; status 0 when it could not be reached."""

    status: int
    reason: str
    body: bytes = b""
    retry_after: float | None = None
    """Seconds, when the collector named them."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Transport:
    def __init__(self, url: str, headers: Sequence[tuple[str, str]], *, timeout: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._secure else 80)
        self._timeout = timeout
        self._headers = {"Content-Type": "application/x-protobuf", "User-Agent": "loopscope", **dict(headers)}
        self._compress = not is_loopback(self._host)
        self._connection: http.client.HTTPConnection | None = None

    def post(self, url: str, parts: Sequence[bytes]) -> Answer:
        """Send the parts as one body. Never raises for what the network does."""
        headers = dict(self._headers)
        if self._compress:
            parts = [gzip.compress(b"".join(parts), compresslevel=1)]
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(sum(map(len, parts)))
        target = urlsplit(url)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        reused = self._connection is not None
        try:
            return self._exchange(path, parts, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # An idle connection may have been closed by the other side; that says nothing about whether it is there.
            if not reused or isinstance(error, TimeoutError):
                return Answer(0, f"{type(error).__name__}: {error}")
        try:
            return self._exchange(path, parts, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(0, f"{type(error).__name__}: {error}")

    def _exchange(self, path: str, parts: Sequence[bytes], headers: dict[str, str]) -> Answer:
        connection = self._connection
        if connection is None:
            if self._secure:
                context = ssl.create_default_context()
                connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._connection = connection
        connection.request("POST", path, body=_grouped(parts), headers=headers)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
        if response.read(1) or response.will_close:
            self.close()
        return Answer(response.status, response.reason, body, _retry_after(response.getheader("Retry-After")))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _grouped(parts: Sequence[bytes]) -> list[bytes]:
    """Small parts joined, so that each is not a packet of its own; large ones as they are, not copied."""
    grouped: list[bytes] = []
    small: list[bytes] = []
    for part in parts:
        if len(part) < 64 * 1024:
            small.append(part)
            continue
        if small:
            grouped.append(b"".join(small))
            small = []
        grouped.append(part)
    if small:
        grouped.append(b"".join(small))
    return grouped


def _retry_after(header: str | None) -> float | None:
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)

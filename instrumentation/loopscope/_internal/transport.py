"""One kept-alive HTTP connection to the collector. Knows HTTP and nothing of spans; used by the exporter's thread.

The standard library's client, because the HTTP libraries an agent uses are often instrumented, and what they send must
not come to record us recording. A connection that the other side closed while it was idle is never opened again by
itself: the answer is `stale`, so that the caller can first ask who is there now.
"""

from __future__ import annotations

import email.utils
import gzip
import http.client
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from loopscope_schemas.keys import is_loopback

from .endpoints import Endpoint

MAX_ANSWER_BYTES = 64 * 1024
MAX_RETRY_AFTER_SECONDS = 300.0
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the collector said; status 0 when it could not be reached."""

    status: int
    reason: str
    body: bytes = b""
    retry_after: float | None = None
    """Seconds, when the collector named them."""
    stale: bool = False
    """The kept connection had been closed by the other side: nothing is known, another attempt opens a new one."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def says_nothing(self) -> bool:
        """Nobody answered, or whoever did was busy: no word about the request or about who is there."""
        return self.status in (0, 408, 429, 502, 503, 504)

    @property
    def wants_key(self) -> bool:
        """The sender is refused, not what it sent: with the right key the same request will be taken."""
        return self.status in (401, 403)


class Sender(Protocol):
    """A way to a backend: HTTP or gRPC."""

    def post(self, url: str, parts: Sequence[bytes], content_type: str = PROTOBUF) -> Answer: ...

    def close(self) -> None: ...


class Transport:
    def __init__(self, url: str, headers: Sequence[tuple[str, str]], endpoint: Endpoint | None = None) -> None:
        self._endpoint = endpoint or Endpoint()
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._secure else 80)
        self._headers = {"User-Agent": "loopscope", **dict(headers)}
        self._compress = self._endpoint.compression == "gzip" or (
            self._endpoint.compression is None and not is_loopback(self._host)
        )
        self._connection: http.client.HTTPConnection | None = None
        self._opened = 0

    @property
    def connection(self) -> int | None:
        """Number of the open connection, counted from 1; None when none is open."""
        return self._opened if self._connection is not None else None

    def get(self, url: str) -> Answer:
        """Ask for a resource. Never raises for what the network does."""
        return self._send("GET", url, [], dict(self._headers))

    def post(self, url: str, parts: Sequence[bytes], content_type: str = PROTOBUF) -> Answer:
        """Send the parts as one body. Never raises for what the network does."""
        headers = {"Content-Type": content_type, **self._headers}
        if self._compress:
            parts = [gzip.compress(b"".join(parts), compresslevel=1)]
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(sum(map(len, parts)))
        return self._send("POST", url, parts, headers)

    def _send(self, method: str, url: str, parts: Sequence[bytes], headers: dict[str, str]) -> Answer:
        target = urlsplit(url)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        reused = self._connection is not None
        try:
            return self._exchange(method, path, parts, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # An idle connection may have been closed by the other side; that says nothing about whether it is there.
            stale = reused and not isinstance(error, TimeoutError)
            return Answer(0, f"{type(error).__name__}: {error}", stale=stale)

    def _exchange(self, method: str, path: str, parts: Sequence[bytes], headers: dict[str, str]) -> Answer:
        connection = self._connection
        if connection is None:
            connection = self._connect()
            self._connection = connection
            self._opened += 1
        connection.request(method, path, body=_grouped(parts) if method == "POST" else None, headers=headers)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
        if response.read(1) or response.will_close:
            self.close()
        return Answer(response.status, response.reason, body, _retry_after(response.getheader("Retry-After")))

    def _connect(self) -> http.client.HTTPConnection:
        timeout = self._endpoint.timeout_seconds
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        context = ssl.create_default_context(cafile=self._endpoint.certificate)
        if self._endpoint.client_certificate is not None:
            context.load_cert_chain(self._endpoint.client_certificate, self._endpoint.client_key)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)

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

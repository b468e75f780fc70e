"""A stand-in for a ClickHouse *server*, for tests of the path that uses one.

The engine of Loopscope does the work; a small HTTP server in front of it behaves as a real one does where the embedded
engine is kinder: it demands user and password (403 and code 516), refuses several statements in one request (code
62), and has no database but `default` until somebody creates one. It can be told to fail, to stall, and to vanish.
"""

import base64
import contextlib
import http.client
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from loopscope_collector.engine import WRITER_USER, EngineProcess

_AUTHENTICATION = {"x-clickhouse-user", "x-clickhouse-key", "authorization"}
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "expect"}
_PIECE = 256 * 1024


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    query: str
    """The statement, as far as it stands in the URL; else the first 2,000 bytes of the body."""
    settings: dict[str, str]
    status: int


class ClickHouseServer:
    """The stand-in. `dsn` holds user and password; `requests` what has been asked."""

    def __init__(self, engine: EngineProcess, write_secret: str, *, user: str, password: str, database: str) -> None:
        self._engine = engine
        self._secret = write_secret
        self.user = user
        self.password = password
        self.database = database
        self.requests: list[Seen] = []
        self._lock = threading.Lock()
        self._failures = 0
        self._failure_status = 500
        self._stall_seconds = 0.0
        self._released = threading.Event()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.come_back()

    @property
    def dsn(self) -> str:
        """`clickhouse://user:password@127.0.0.1:port/database`."""
        user, password = quote(self.user, safe=""), quote(self.password, safe="")
        return f"clickhouse://{user}:{password}@127.0.0.1:{self.port}/{self.database}"

    def fail_next(self, count: int, *, status: int = 500) -> None:
        """Answer the next `count` requests with `status`, without passing them on."""
        with self._lock:
            self._failures, self._failure_status = count, status

    def stall(self, seconds: float) -> None:
        """Keep every request waiting so long before it is passed on; 0 ends it, for those that wait as well."""
        with self._lock:
            self._stall_seconds = seconds
            self._released.set()
            self._released = threading.Event()

    def vanish(self) -> None:
        """Close the port and every connection: requests are refused or cut off."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            open_now = list(self._open)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Listen again, on the same port."""
        if self._server is not None:
            return
        outer = self

        class Handler(_Handler):
            stand_in = outer

        server = _Server(("127.0.0.1", self.port), Handler)
        self.port = int(server.server_address[1])
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), name="clickhouse-stand-in", daemon=True).start()

    # What follows is for the handler.

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def planned_failure(self) -> int | None:
        """The status of the failure that is due, if one is."""
        with self._lock:
            if self._failures <= 0:
                return None
            self._failures -= 1
            return self._failure_status

    def wait_out_stall(self) -> None:
        with self._lock:
            seconds, released = self._stall_seconds, self._released
        if seconds > 0:
            released.wait(seconds)

    def engine_connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._engine.port, timeout=120)

    def engine_headers(self) -> dict[str, str]:
        return {"X-ClickHouse-User": WRITER_USER, "X-ClickHouse-Key": self._secret}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is what `vanish` is for; nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: ClickHouseServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stand_in.opened(self.connection)

    def finish(self) -> None:
        self.stand_in.closed(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Tests read `requests` instead."""

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(b"".join(self._body()))

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece

    def _handle(self, body: bytes) -> None:
        self.stand_in.wait_out_stall()
        if self.path.startswith("/ping"):
            self._answer(200, b"Ok.\n", {})
            return
        if (status := self.stand_in.planned_failure()) is not None:
            self._note(body, status)
            self._answer(
                status,
                b"Code: 1002. DB::Exception: told to fail. (UNKNOWN_EXCEPTION)\n",
                {"X-ClickHouse-Exception-Code": "1002"},
            )
            return
        if not self._authenticated():
            self._note(body, 403)
            text = (
                "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no user with such "
                "name. (AUTHENTICATION_FAILED)\n"
            )
            self._answer(403, text.encode(), {"X-ClickHouse-Exception-Code": "516"})
            return
        self._pass_on(body)

    def _authenticated(self) -> bool:
        wanted = (self.stand_in.user, self.stand_in.password)
        if "X-ClickHouse-User" in self.headers:
            return (self.headers["X-ClickHouse-User"], self.headers.get("X-ClickHouse-Key", "")) == wanted
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(rest).decode().partition(":")
            return (user, password) == wanted
        given = parse_qs(urlsplit(self.path).query)
        return (given.get("user", [""])[0], given.get("password", [""])[0]) == wanted

    def _pass_on(self, body: bytes) -> None:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in _HOP_BY_HOP and name.lower() not in _AUTHENTICATION
        }
        upstream = self.stand_in.engine_connection()
        try:
            upstream.request(self.command, self.path, body=body, headers={**headers, **self.stand_in.engine_headers()})
            answer = upstream.getresponse()
            self._note(body, answer.status)
            self._relay(answer)
        finally:
            upstream.close()

    def _relay(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length")
        if length is not None:
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(answer.read())
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while piece := answer.read1(_PIECE):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        except http.client.IncompleteRead:
            self.close_connection = True  # the half answer ends here as it did there: without a last chunk
            return
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self, body: bytes, status: int) -> None:
        args = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        query = args.pop("query", "") or body[:2000].decode("utf-8", "replace")
        self.stand_in.requests.append(Seen(self.command, query, args, status))


@contextmanager
def clickhouse_server(
    data_dir: Path,
    *,
    user: str = "loopscope",
    password: str = "a pass/word:with@signs",
    database: str = "loopscope",
    database_exists: bool = True,
) -> Generator[ClickHouseServer]:
    """Run the stand-in on an empty directory. `database_exists=False`: it must be created first, as on a new server."""
    secret = "the-stand-in-writes-with-this"
    with EngineProcess(data_dir, port=0, write_secret=secret) as engine:
        server = ClickHouseServer(engine, secret, user=user, password=password, database=database)
        try:
            if not database_exists:
                _command(engine, secret, "DROP DATABASE IF EXISTS loopscope SYNC")
            elif database != "loopscope":
                _command(engine, secret, f"CREATE DATABASE IF NOT EXISTS `{database}`")
            yield server
        finally:
            server.stall(0)
            server.vanish()


def _command(engine: EngineProcess, secret: str, sql: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)
    connection.request(
        "POST", "/", body=sql.encode(), headers={"X-ClickHouse-User": WRITER_USER, "X-ClickHouse-Key": secret}
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{sql}: {text}")

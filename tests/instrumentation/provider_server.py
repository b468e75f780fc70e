"""A small local HTTP server for these tests: a Messages API that answers as told, and a sink of OTLP requests.

It speaks real HTTP on a free port and keeps the bytes it received. The stand-in that ships with the product is
`loopscope.stub`; this one is only as clever as these tests need.
"""

import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loopscope_schemas.wire import IDENTITY_PATH, PRODUCT, WIRE_VERSION

DEADLINE_SECONDS = 60.0
IDENTITY = json.dumps({"product": PRODUCT, "version": "0", "wire": WIRE_VERSION}).encode()
ANSWERING = ("/messages", "/invoke", "/invoke-with-response-stream", ":rawPredict", ":streamRawPredict")
"""How the paths of requests for an answer end: Anthropic's, Bedrock's, Vertex'."""

USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1800,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 42,
    "service_tier": "standard",
}


def message(text: str = "Hello, ünïcode", **more: Any) -> dict[str, Any]:
    """A Messages API answer."""
    return {
        "id": "msg_01test",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
        **more,
    }


def stream_events(texts: tuple[str, ...] = ("Hel", "lo ", "wörld")) -> list[dict[str, Any]]:
    """The events of a streamed answer with a text and a tool use."""
    begun = message() | {"content": [], "stop_reason": None, "usage": USAGE | {"output_tokens": 1}}
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"where": "he'},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": 're"}'}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 42},
        },
        {"type": "message_stop"},
    ]


def sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


@dataclass
class Reply:
    """How the server answers one Messages request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    events: list[dict[str, Any]] | None = None
    delays: dict[int, float] = field(default_factory=dict[int, float])
    """Index of an event -> seconds to wait before it."""
    break_after: int | None = None
    """Events after which the connection is cut."""
    cut_at: int | None = None
    """Bytes of a plain body after which the connection is cut."""
    hold: threading.Event | None = None
    """Waited for before the event `hold_at`, or before that byte of a plain body."""
    hold_at: int = 3
    silent: threading.Event | None = None
    """Waited for before anything is answered; then the connection is closed without an answer."""
    waiting: threading.Event | None = None
    """Set when the server begins to wait for one of these."""
    gzip: bool = False
    encode: Callable[[dict[str, Any]], bytes] = sse
    """How an event is written."""
    content_type: str = "text/event-stream; charset=utf-8"


def ok(text: str = "Hello, ünïcode", **more: Any) -> Reply:
    return Reply(body=json.dumps(message(text, **more), ensure_ascii=False).encode())


def failing(status: int, kind: str, **headers: str) -> Reply:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": f"made to fail: {kind}"}}).encode()
    return Reply(status=status, body=body, headers=headers)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


class Recorded:
    """One span as the collector got it, with its attributes as Python values."""

    def __init__(self, span: Span, resource: dict[str, Any]) -> None:
        self.span = span
        self.resource = resource
        self.attributes: dict[str, Any] = {item.key: python_value(item.value) for item in span.attributes}

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str) -> Any:
        return self.attributes.get(name)

    @property
    def operation(self) -> str:
        return self.attributes["gen_ai.operation.name"]

    @property
    def failed(self) -> bool:
        return self.span.status.code == 2


def python_value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [python_value(item) for item in value.array_value.values]
        case None:
            return None
        case name:
            return getattr(value, name)


class Server:
    """The Messages API and the OTLP sink, on one port each test has to itself."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.messages: list[Request] = []
        self.traces: list[Request] = []
        self.starts: list[Request] = []
        self.others: list[Request] = []
        self.asked: list[Request] = []
        """Requests for the identity."""
        self.replies: list[Reply] = []
        """Taken from the front; the last stays."""
        self.routes: dict[str, Reply] = {}
        """`METHOD /path` -> how that is answered, before anything else."""
        self.counts: list[Reply] = []
        """The same for count_tokens; without one, 7 tokens are counted."""
        self.answer_traces: Callable[[Request], tuple[int, dict[str, str]]] = lambda _: (200, {})
        self.answer_starts: Callable[[Request], tuple[int, dict[str, str]]] = lambda _: (200, {})
        self.answer_identity: Callable[[Request], tuple[int, bytes]] = lambda _: (200, IDENTITY)
        self.gunzip = False
        """Whether bodies of spans are kept decompressed."""
        self.connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def restart(self) -> None:
        """Serve at the same port again, after `stop`."""
        self._http = ThreadingHTTPServer(("127.0.0.1", self._http.server_port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.start()

    def drop_connections(self) -> None:
        """Close every connection that a client keeps open."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def note(self, kind: list[Request], request: Request) -> None:
        with self._changed:
            kind.append(request)
            self._changed.notify_all()

    def next_reply(self) -> Reply:
        return self._next(self.replies, ok())

    def next_count(self) -> Reply:
        return self._next(self.counts, Reply(body=b'{"input_tokens": 7}'))

    def _next(self, replies: list[Reply], default: Reply) -> Reply:
        with self._changed:
            if not replies:
                return default
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"waited {DEADLINE_SECONDS:.0f} s for {what}"
                self._changed.wait(min(left, 0.05))

    def spans(self) -> list[Recorded]:
        """Every finished span received, in order of arrival, doubles included."""
        return _spans(self.traces)

    def markers(self) -> list[Recorded]:
        return _spans(self.starts)

    def calls(self) -> list[Recorded]:
        return [span for span in self.spans() if span.operation == "chat"]


def _spans(requests: list[Request]) -> list[Recorded]:
    found: list[Recorded] = []
    for request in requests:
        parsed = ExportTraceServiceRequest.FromString(request.body)
        for group in parsed.resource_spans:
            resource = {item.key: python_value(item.value) for item in group.resource.attributes}
            found += [Recorded(span, resource) for scoped in group.scope_spans for span in scoped.spans]
    return found


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server.connections.add(self.connection)

        def finish(self) -> None:
            server.connections.discard(self.connection)
            super().finish()

        def do_GET(self) -> None:
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, b"")
            if routed := server.routes.get(f"GET {self.path.partition('?')[0]}"):
                server.note(server.others, request)
                self.answer(routed)
                return
            server.note(server.asked if self.path == IDENTITY_PATH else server.others, request)
            status, body = server.answer_identity(request) if self.path == IDENTITY_PATH else (404, b"")
            self.reply(status, {"content-type": "application/json"}, body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if server.gunzip and self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            if routed := server.routes.get(f"{self.command} {self.path.partition('?')[0]}"):
                server.note(server.others, request)
                self.answer(routed)
            elif self.path == "/v1/traces":
                status, headers = server.answer_traces(request)
                if status == 200:
                    server.note(server.traces, request)
                self.reply(status, headers, b"")
            elif self.path == "/loopscope/v1/starts":
                status, headers = server.answer_starts(request)
                if status == 200:
                    server.note(server.starts, request)
                self.reply(status, headers, b"")
            elif self.path.partition("?")[0].endswith(ANSWERING) and "count-tokens" not in self.path:
                server.note(server.messages, request)
                self.answer(server.next_reply())
            elif self.path.partition("?")[0].endswith(("/messages/count_tokens", "/count-tokens:rawPredict")):
                server.note(server.others, request)
                self.answer(server.next_count())
            else:
                server.note(server.others, request)
                self.reply(404, {"content-type": "application/json"}, b"{}")

        def answer(self, reply: Reply) -> None:
            if reply.silent is not None:
                self.wait(reply, reply.silent)
                self.close_connection = True
                return
            if reply.events is not None:
                self.stream(reply)
                return
            headers = {"content-type": "application/json", "request-id": "req_1", **reply.headers}
            body = reply.body
            if reply.gzip:
                headers["content-encoding"], body = "gzip", gzip.compress(body)
            if reply.hold is None:
                self.reply(reply.status, headers, body, reply.cut_at)
                return
            self.reply(reply.status, {**headers, "Content-Length": str(len(body))}, body[: reply.hold_at])
            self.wait(reply, reply.hold)
            try:
                self.wfile.write(body[reply.hold_at :])
            except OSError:
                self.close_connection = True  # the client went away, as some tests have it do

        def reply(self, status: int, headers: dict[str, str], body: bytes, cut_at: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut_at])
            if cut_at is not None:
                self.close_connection = True
                self.connection.shutdown(2)

        def wait(self, reply: Reply, until: threading.Event) -> None:
            if reply.waiting is not None:
                reply.waiting.set()
            until.wait(DEADLINE_SECONDS)

        def stream(self, reply: Reply) -> None:
            self.send_response(200)
            self.send_header("content-type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            if reply.gzip:
                self.send_header("content-encoding", "gzip")
            self.end_headers()
            try:
                self.stream_events(reply)
            except OSError:
                self.close_connection = True  # the client went away, as some tests have it do

        def stream_events(self, reply: Reply) -> None:
            assert reply.events is not None
            if reply.gzip:
                self.chunk(gzip.compress(b"".join(map(reply.encode, reply.events))))
            else:
                for index, event in enumerate(reply.events):
                    if index == reply.break_after:
                        self.close_connection = True
                        self.connection.shutdown(2)
                        return
                    if index == reply.hold_at and reply.hold is not None:
                        self.wait(reply, reply.hold)
                    time.sleep(reply.delays.get(index, 0))
                    self.chunk(reply.encode(event))
            self.wfile.write(b"0\r\n\r\n")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
            pass

    return Handler


@contextmanager
def running_server(tls: ssl.SSLContext | None = None) -> Generator[Server]:
    server = Server(tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()

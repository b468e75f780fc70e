"""The other side of the SDK's benchmark: a Messages API and sinks for every recorder's spans, in a process of its own.

Answers at once after a time to think (a model takes longer), in one piece or as a stream. Whatever else is posted is
read and accepted. Used by `sdk_overhead`.
"""

import json
import multiprocessing
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

THINK_SECONDS = 0.03
PIECES = 40
_MESSAGE: dict[str, Any] = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": "All right. " * PIECES}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1000, "output_tokens": 80},
}
ANSWER = json.dumps(_MESSAGE).encode()


def _events() -> bytes:
    start = _MESSAGE | {"content": [], "stop_reason": None, "usage": {"input_tokens": 1000, "output_tokens": 1}}
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "All right. "}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[piece] * PIECES,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 80}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


STREAM = _events()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    received = 0
    """Bytes of everything but messages since it was asked for: what recorders sent. Of the class, so of the process."""

    def do_GET(self) -> None:
        body = b"{}"
        if self.path == "/received":
            body, _Handler.received = str(_Handler.received).encode(), 0
        self._answer(body, "application/json")

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        body, kind = b"", "application/json"
        if self.path.startswith("/v1/messages"):
            time.sleep(THINK_SECONDS)
            body = ANSWER
            # The parameter stands behind the messages, or before them; never inside the text of this benchmark.
            if b'"stream":true' in request[-300:] or b'"stream":true' in request[:300]:
                body, kind = STREAM, "text/event-stream"
        else:
            _Handler.received += len(request)
            if "traces" not in self.path and "starts" not in self.path:
                body = b"{}"
        self._answer(body, kind)

    do_PUT = do_POST  # noqa: N815 - the names that the base class calls
    do_PATCH = do_POST  # noqa: N815

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        pass


def _serve(port: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def serving() -> Generator[str]:
    """The server's base URL while it runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()

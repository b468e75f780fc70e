"""A local OTLP/HTTP endpoint that keeps what it is sent, for tests that look at the wire and need no store."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from loopscope_schemas.wire import IDENTITY_PATH, PRODUCT, STARTS_PATH, TRACES_PATH, WIRE_VERSION


class OtlpSink:
    """Answers 200 to spans and start markers, and to a health check. `with OtlpSink() as sink: sink.url`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[str, list[bytes]] = {TRACES_PATH: [], STARTS_PATH: []}
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == IDENTITY_PATH:
                    self._answer(200, json.dumps({"product": PRODUCT, "version": "0", "wire": WIRE_VERSION}).encode())
                else:
                    self._answer(200 if self.path == "/healthz" else 404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                known = self.path in sink._bodies
                if known:
                    with sink._lock:
                        sink._bodies[self.path].append(body)
                self._answer(200 if known else 404)

            def _answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json" if body else "application/x-protobuf")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[dict[str, Any]]:
        """The attributes of each finished span, once each, with `error` (bool) beside them."""
        return _spans(self.received(TRACES_PATH))

    def markers(self) -> list[dict[str, Any]]:
        """The attributes of each start marker and heartbeat."""
        return [_attributes(span) for span in _decoded(self.received(STARTS_PATH))]

    def received(self, path: str) -> list[bytes]:
        """Bodies posted to a path, decompressed, in order of arrival."""
        with self._lock:
            return list(self._bodies[path])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _decoded(bodies: list[bytes]) -> list[Span]:
    return [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _spans(bodies: list[bytes]) -> list[dict[str, Any]]:
    unique = {(span.trace_id, span.span_id): span for span in _decoded(bodies)}
    return [{**_attributes(span), "error": span.status.code == Status.STATUS_CODE_ERROR} for span in unique.values()]


def _attributes(span: Span) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in span.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)

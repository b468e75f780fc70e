"""Who is at the endpoint, and what may go there: our collector gets all, another backend standard GenAI spans only.

Asked by a request without content, on the very connection that is used next: after each reconnect for our collector,
now and then for another backend. Used by the exporter's thread alone.
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from loopscope_schemas.wire import PRODUCT

from . import guard
from .encoding import request_parts
from .endpoints import credential_free, identity_url
from .genai_spans import standard_resource, standard_scope, standard_span
from .transport import Answer, Sender, Transport

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from .config import Config

FOREIGN_ASKED_AGAIN_SECONDS = 300.0
"""Another backend is asked again whether it is our collector by now, at a new connection after so long."""
JSON = "application/json"
NOTHING_TO_SEND = Answer(204, "nothing to send")


class Kind(enum.Enum):
    """Whose backend it is."""

    UNKNOWN = "unknown"
    OURS = "ours"
    FOREIGN = "foreign"


class Backend:
    def __init__(self, config: Config, scope: bytes) -> None:
        self._config = config
        self._endpoint = config.endpoint
        self._scope = scope
        self._http: Transport | None = None
        if self._endpoint.protocol == "grpc":
            from .grpc_transport import GrpcTransport

            self._sender: Sender = GrpcTransport(config.traces_url, config.headers, self._endpoint)
        else:
            self._sender = self._http = Transport(config.traces_url, config.headers, self._endpoint)
        self.kind = Kind.UNKNOWN
        self._asked_on: int | None = None
        """Number of the connection on which `kind` was found out."""
        self._asked_at = 0.0

    def send_spans(self, resource: bytes, spans: Sequence[Sequence[bytes]]) -> Answer:
        """One attempt at delivering these, each in pieces. A backend of which nothing is known yet gets nothing."""

        def send() -> Answer:
            if self.kind is Kind.OURS:
                return self._sender.post(self._config.traces_url, request_parts(resource, self._scope, spans))
            return self._send_standard(resource, [b"".join(span) for span in spans])

        return self._once_known(send) or NOTHING_TO_SEND

    def send_markers(self, resource: bytes, markers: Sequence[bytes]) -> Answer | None:
        """One attempt at start markers; None when they are not for this backend."""
        url = self._config.starts_url

        def send() -> Answer | None:
            if self.kind is not Kind.OURS or url is None:
                return None
            return self._sender.post(url, request_parts(resource, self._scope, [(marker,) for marker in markers]))

        return self._once_known(send)

    def _once_known(self, send: Callable[[], Answer | None]) -> Answer | None:
        """Send once it is known who is there; once more when that was another connection's answer."""
        if (silent := self._identify()) is not None:
            return silent
        answer = send()
        if answer is not None and answer.stale:
            if (silent := self._identify()) is not None:
                return silent
            answer = send()
        if answer is not None and not answer.ok:
            self._asked_on = None
        return answer

    def close(self) -> None:
        self._sender.close()

    def _identify(self) -> Answer | None:
        """Find out who is there where that is not known; the answer that left it open, if so."""
        url = self._config.starts_url
        if self._http is None or url is None or self._endpoint.backend == "otlp":
            self.kind = Kind.FOREIGN
            return None
        if self._endpoint.backend == "loopscope":
            self.kind = Kind.OURS
            return None
        connection = self._http.connection
        if self.kind is not Kind.UNKNOWN and self._asked_on is not None:
            if connection == self._asked_on:
                return None
            if self.kind is Kind.FOREIGN and time.monotonic() - self._asked_at < FOREIGN_ASKED_AGAIN_SECONDS:
                return None
        answer = self._http.get(identity_url(url))
        if answer.stale:
            answer = self._http.get(identity_url(url))
        if answer.says_nothing:
            self.kind = Kind.UNKNOWN
            return answer
        self.kind = Kind.OURS if answer.ok and _is_ours(answer.body) else Kind.FOREIGN
        self._asked_on, self._asked_at = self._http.connection or 0, time.monotonic()
        if self.kind is Kind.FOREIGN:
            guard.warn_once(
                "foreign",
                "loopscope: %s is not Loopscope's collector (it answers %d): it gets standard GenAI spans, no start "
                "markers. If a collector of Loopscope is behind it, let /loopscope/v1/* through or set "
                "LOOPSCOPE_BACKEND=loopscope",
                credential_free(self._config.traces_url),
                answer.status,
            )
        return None

    def _send_standard(self, resource: bytes, spans: Sequence[bytes]) -> Answer:
        standard = [made for span in spans if (made := self._standard(span)) is not None]
        if not standard:
            return NOTHING_TO_SEND
        parts = request_parts(
            standard_resource(resource), standard_scope(self._scope), [(span.SerializeToString(),) for span in standard]
        )
        if self._endpoint.protocol != "http/json":
            return self._sender.post(self._config.traces_url, parts)
        return self._sender.post(self._config.traces_url, [_as_json(b"".join(parts))], JSON)

    def _standard(self, span: bytes) -> Span | None:
        try:
            return standard_span(span, content=self._endpoint.foreign_content)
        except Exception as error:  # noqa: BLE001 - content that cannot be translated must not hold up all behind it
            guard.swallowed("loopscope translation of a span", error)
            return standard_span(span, content=False)


def _is_ours(body: bytes) -> bool:
    try:
        value: object = json.loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and cast("dict[str, Any]", value).get("product") == PRODUCT


def rejected_spans(answer: Answer) -> int:
    """Spans that the backend says it left out of a request that it took."""
    if not answer.body:
        return 0
    if answer.body.startswith(b"{"):
        return _rejected_in_json(answer.body)
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        return ExportTraceServiceResponse.FromString(answer.body).partial_success.rejected_spans
    except DecodeError:
        return 0  # a 2xx in some other form: accepted


def _rejected_in_json(body: bytes) -> int:
    try:
        return int(json.loads(body).get("partialSuccess", {}).get("rejectedSpans", 0))
    except (ValueError, AttributeError, TypeError):
        return 0


def _as_json(request: bytes) -> bytes:
    """OTLP's JSON encoding: protobuf's, but with ids in hex and enumerations as numbers."""
    import base64

    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    document = MessageToDict(ExportTraceServiceRequest.FromString(request), use_integers_for_enums=True)
    for group in document["resourceSpans"]:
        for scoped in group["scopeSpans"]:
            for span in scoped["spans"]:
                for holder in (span, *span.get("links", ())):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in holder:
                            holder[name] = base64.b64decode(holder[name]).hex()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

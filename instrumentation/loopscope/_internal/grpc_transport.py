"""A backend spoken to over gRPC: one unary call for each batch. Imports grpcio, an extra, when it is first used.

Used by the exporter's thread in the place of `transport.Transport`; statuses are told in HTTP's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loopscope_schemas.keys import is_loopback

from . import forks
from .transport import PROTOBUF, Answer

if TYPE_CHECKING:
    from .endpoints import Endpoint

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_PORT = 4317
_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 404,
    "RESOURCE_EXHAUSTED": 429,
    "DEADLINE_EXCEEDED": 504,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
    "ABORTED": 503,
    "OUT_OF_RANGE": 503,
    "DATA_LOSS": 503,
}
"""gRPC status -> what it means for the batch, in HTTP's terms; others are 500."""


class GrpcTransport:
    def __init__(self, url: str, headers: Sequence[tuple[str, str]], endpoint: Endpoint) -> None:
        parts = urlsplit(url)
        host = parts.hostname or "127.0.0.1"
        self._target = f"{f'[{host}]' if ':' in host else host}:{parts.port or DEFAULT_PORT}"
        self._secure = parts.scheme == "https"
        self._metadata = [(name.lower(), value) for name, value in headers]
        self._endpoint = endpoint
        self._compress = endpoint.compression == "gzip" or (endpoint.compression is None and not is_loopback(host))
        self._channel: Any = None

    def post(self, url: str, parts: Sequence[bytes], content_type: str = PROTOBUF) -> Answer:
        """Export one request. Never raises for what the network does."""
        del url, content_type  # a gRPC service has one name and one encoding
        try:
            with forks.importing:
                import grpc  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        except ImportError:
            return Answer(0, "grpcio is not installed: pip install 'loopscope[grpc]'")
        grpc_: Any = grpc
        try:
            if self._channel is None:
                self._channel = self._open(grpc_)
            call = self._channel.unary_unary(EXPORT, request_serializer=None, response_deserializer=None)
            body = call(
                b"".join(parts),
                timeout=self._endpoint.timeout_seconds,
                metadata=self._metadata,
                compression=grpc_.Compression.Gzip if self._compress else None,
            )
        except grpc_.RpcError as error:
            code, detail = str(error.code().name), str(error.details())
            status = _HTTP_STATUS.get(code, 500)
            if status == 429 and "larger than max" in detail:
                status = 413  # not "slow down": this message never fits
            return Answer(status, f"{code}: {detail}")
        except OSError as error:  # a certificate that cannot be read
            return Answer(0, f"{type(error).__name__}: {error}")
        return Answer(200, "OK", body)

    def _open(self, grpc: Any) -> Any:
        if not self._secure:
            return grpc.insecure_channel(self._target)

        def content(path: Any) -> bytes | None:
            return path.read_bytes() if path is not None else None

        endpoint = self._endpoint
        credentials = grpc.ssl_channel_credentials(
            content(endpoint.certificate), content(endpoint.client_key), content(endpoint.client_certificate)
        )
        return grpc.secure_channel(self._target, credentials)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

"""How the backend is spoken to: protocol, time, compression, certificates, and whose it is. Resolved by `config`.

The OTEL_EXPORTER_OTLP_* variables count only where one of them gives the endpoint: elsewhere they describe another
exporter of the same process. Traces' own variables win over the general ones, as OpenTelemetry has it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from loopscope_schemas.wire import IDENTITY_PATH, STARTS_PATH, TRACES_PATH

from .guard import logger

DEFAULT_TIMEOUT_SECONDS = 10.0
MIN_TIMEOUT_SECONDS = 1.0
MAX_TIMEOUT_SECONDS = 300.0
PROTOCOLS = ("http/protobuf", "http/json", "grpc")
NO_CONTENT = {"no_content", "event_only", "false", "0", "off", "no"}
"""Values of OpenTelemetry's content switch that keep prompts and answers off spans."""

Env = Callable[[str], tuple[str, str] | None]
"""Name of a variable -> (name, value), None when it is not set."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything about the way to a backend but its address and headers."""

    protocol: str = "http/protobuf"
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    """For connecting, and for each wait for an answer."""
    compression: Literal["gzip", "none"] | None = None
    """None: gzip, but not on this machine."""
    certificate: Path | None = None
    """Certificates (PEM) that the server's must come from; None: the system's."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    backend: Literal["auto", "loopscope", "otlp"] = "auto"
    """Whose the endpoint is; auto asks it before the first span."""
    foreign_content: bool = True
    """Whether a backend that is not ours gets prompts and answers, where they were recorded."""


def resolve_endpoint(env: Env, *, from_otel: bool, backend: str) -> Endpoint:
    """What the environment says. `backend` is auto, loopscope or otlp."""
    switch = env("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    content = switch is None or switch[1].lower() not in NO_CONTENT
    chosen: Literal["auto", "loopscope", "otlp"] = (
        "loopscope" if backend == "loopscope" else "otlp" if backend == "otlp" else "auto"
    )
    if not from_otel:
        return Endpoint(backend=chosen, foreign_content=content)
    protocol = protocol_of(env)
    if protocol == "grpc" and importlib.util.find_spec("grpc") is None:
        logger.warning(
            "loopscope: the protocol is grpc and grpcio is not installed; spans wait in the spool. "
            "pip install 'loopscope[grpc]', or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
    return Endpoint(
        protocol=protocol,
        timeout_seconds=_timeout(env),
        compression=_compression(env),
        certificate=_file(env, "CERTIFICATE"),
        client_certificate=_file(env, "CLIENT_CERTIFICATE"),
        client_key=_file(env, "CLIENT_KEY"),
        backend=chosen,
        foreign_content=content,
    )


def protocol_of(env: Env) -> str:
    """The protocol that OTEL_EXPORTER_OTLP_PROTOCOL asks for; http/protobuf when it asks for none that is known."""
    found = _exporter(env, "PROTOCOL")
    if found is None or found[1].lower() in PROTOCOLS:
        return found[1].lower() if found else PROTOCOLS[0]
    logger.warning("loopscope: %s=%r is passed over: expected one of %s", *found, ", ".join(PROTOCOLS))
    return PROTOCOLS[0]


def http_url(text: str) -> SplitResult | None:
    """The URL when it is one of HTTP with a host and a valid port."""
    try:
        url = urlsplit(text.strip())
        url.port  # noqa: B018 - raises ValueError when it is no number
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.hostname else None


def grpc_url(text: str, env: Env) -> str:
    """A gRPC target as a URL: it may come without a scheme, and then a variable says whether it is encrypted."""
    if "://" in text:
        return text.strip()
    insecure = _exporter(env, "INSECURE")
    return f"{'http' if insecure and insecure[1].lower() == 'true' else 'https'}://{text.strip()}"


def under(endpoint: str) -> tuple[str, str]:
    """(URL for spans, URL for start markers) below a base URL."""
    base = endpoint.strip().rstrip("/")
    return f"{base}{TRACES_PATH}", f"{base}{STARTS_PATH}"


def starts_beside(traces_url: str) -> str | None:
    """The URL for start markers of whoever serves this full URL for spans; None when its path is somebody else's."""
    base, found, rest = traces_url.strip().rpartition(TRACES_PATH)
    return f"{base}{STARTS_PATH}" if found and not rest else None


def identity_url(starts_url: str) -> str:
    """Where to ask who listens, of whoever may serve start markers there."""
    return starts_url.removesuffix(STARTS_PATH) + IDENTITY_PATH


def credential_free(url: str) -> str:
    """The URL without user and password, for logs and files."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _exporter(env: Env, name: str) -> tuple[str, str] | None:
    return env(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or env(f"OTEL_EXPORTER_OTLP_{name}")


def _timeout(env: Env) -> float:
    found = _exporter(env, "TIMEOUT")
    if found is None:
        return DEFAULT_TIMEOUT_SECONDS
    try:
        value = float(found[1])
    except ValueError:
        value = 0.0
    if value <= 0:
        logger.warning("loopscope: %s=%r is passed over: expected milliseconds above 0", *found)
        return DEFAULT_TIMEOUT_SECONDS
    # The specification says milliseconds, OpenTelemetry's own Python exporters take seconds: nobody means 10 ms.
    seconds = value / 1000 if value >= 1000 else value
    return min(max(seconds, MIN_TIMEOUT_SECONDS), MAX_TIMEOUT_SECONDS)


def _compression(env: Env) -> Literal["gzip", "none"] | None:
    found = _exporter(env, "COMPRESSION")
    if found is None:
        return None
    if found[1].lower() == "gzip":
        return "gzip"
    if found[1].lower() == "none":
        return "none"
    logger.warning("loopscope: %s=%r is passed over: expected gzip or none", *found)
    return None


def _file(env: Env, name: str) -> Path | None:
    found = _exporter(env, name)
    if found is None:
        return None
    path = Path(found[1]).expanduser()
    if not path.is_file():
        logger.warning("loopscope: %s=%r is passed over: there is no such file", *found)
        return None
    return path


def environment_of(environ: Mapping[str, str]) -> Env:
    """Reads a mapping; an empty value counts as none."""

    def env(name: str) -> tuple[str, str] | None:
        value = environ.get(name, "").strip()
        return (name, value) if value else None

    return env

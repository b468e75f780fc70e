"""The address of the store: `chdb:///path` (embedded) or `clickhouse://user:pass@host:8123/db` (a server)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

ENVIRONMENT_VARIABLE: Final = "LOOPSCOPE_DSN"
DEFAULT_DATABASE: Final = "loopscope"


class DsnError(ValueError):
    """A DSN cannot be read. The message shows it without its password, and what is expected."""


@dataclass(frozen=True, slots=True)
class EmbeddedDsn:
    """The embedded engine, its files in a directory."""

    path: Path
    database: str = DEFAULT_DATABASE


@dataclass(frozen=True, slots=True)
class ServerDsn:
    """A ClickHouse server over HTTP(S)."""

    host: str
    port: int
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = DEFAULT_DATABASE
    secure: bool = False
    cluster: str | None = None

    def url(self) -> str:
        """Base URL of the HTTP interface, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


def parse_dsn(text: str) -> EmbeddedDsn | ServerDsn:
    """Read a DSN. `clickhouses://` is HTTPS; `?cluster=NAME` names a cluster. Raises DsnError."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise DsnError(f"the store's address cannot be read ({error}); {_EXPECTED}") from error
    if parts.scheme == "chdb":
        if parts.netloc or not parts.path.strip("/"):
            raise DsnError(f"{text!r} names no directory; write chdb:///absolute/path (three slashes)")
        return EmbeddedDsn(Path(unquote(parts.path)))
    if parts.scheme not in ("clickhouse", "clickhouses"):
        raise DsnError(
            f"the store's address begins with {parts.scheme + '://' if parts.scheme else text[:20]!r}; {_EXPECTED}"
        )
    if not parts.hostname:
        raise DsnError(f"the store's address names no host; {_EXPECTED}")
    options = parse_qs(parts.query)
    unknown = sorted(set(options) - {"cluster"})
    if unknown:
        raise DsnError(f"the store's address has the option {unknown[0]!r}; only cluster=NAME is known")
    secure = parts.scheme == "clickhouses"
    return ServerDsn(
        host=parts.hostname,
        port=port or (8443 if secure else 8123),
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")) or DEFAULT_DATABASE,
        secure=secure,
        cluster=options["cluster"][0] if "cluster" in options else None,
    )


_EXPECTED: Final = "expected chdb:///path or clickhouse://user:password@host:8123/database"

"""Settings of the collector: argument > environment > default, resolved once at the start.

`loopscope up` builds `CollectorSettings` from its flags; nothing else in the collector reads the environment.
`docs/configuration.md` lists every field; a test keeps it complete.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import ByteSize, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from loopscope_collector.keys import load_keys

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

Port = Annotated[int, Field(ge=0, le=65535)]
Keys = Annotated[tuple[SecretStr, ...], NoDecode]
Bytes = Annotated[ByteSize, Field(gt=0)]


def variable_of(field: str) -> str:
    """Environment variable of a setting."""
    return f"LOOPSCOPE_{field.upper()}"


def explain(error: ValueError) -> str:
    """What is wrong with the settings, in one line that names them and shows no secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        lines.append(text if "LOOPSCOPE_" in text or not field else f"{field} ({variable_of(field)}): {text}")
    return "; ".join(lines)


class CollectorSettings(BaseSettings):
    """All settings of the collector. Each is also an environment variable: `LOOPSCOPE_` and its name in capitals.

    Sizes are bytes and may be written with a unit (`64MiB`). Raises pydantic.ValidationError for values that cannot be.
    """

    model_config = SettingsConfigDict(
        env_prefix="LOOPSCOPE_",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    data_dir: Path = Path("~/.loopscope")
    """Where the queue and the embedded store live."""
    dsn: SecretStr | None = None
    """Address of the store: `clickhouse://user:password@host:8123/database` uses a server, `chdb:///path` the embedded
    engine in that directory; unset, the embedded engine in the data directory."""
    bind: str = "127.0.0.1"
    """Address that the receiver, the embedded engine and the dashboards listen on. Beyond loopback it needs keys."""
    otlp_http_port: Port = 4318
    """Port of the OTLP/HTTP receiver; 0 takes a free one."""
    clickhouse_port: Port = 8123
    """Port of the embedded engine's ClickHouse HTTP interface; 0 takes a free one. Unused with a server."""
    dashboard: bool = True
    """Whether to start the dashboards."""
    dashboard_port: Port = 8501
    """Port of the dashboards; 0 takes a free one."""
    ingest_keys: Keys = ()
    """Keys that may send telemetry: a comma-separated list, or `@file` with one a line. Empty: no key is asked for."""
    read_keys: Keys = ()
    """Keys that may read: the embedded engine, the dashboards and `/metrics`. Written like `ingest_keys`."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """Days that recorded data is kept."""
    crash_after_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A run without an end whose process was silent for this long, while the collector was up, is shown as crashed."""
    max_body_bytes: Bytes = ByteSize(64 * MIB)
    """Largest request body, as sent."""
    max_decompressed_bytes: Bytes = ByteSize(128 * MIB)
    """Largest request body after decompression."""
    max_request_spans: Annotated[int, Field(gt=0)] = 100_000
    """Most spans in one request."""
    inflight_max_bytes: Bytes = ByteSize(256 * MIB)
    """Most bytes of request bodies held in memory at once; beyond it senders are asked to come back later."""
    body_idle_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A sender that is silent this long in the middle of a body is cut off."""
    queue_max_bytes: Bytes = ByteSize(4 * GIB)
    """Bound on the durable queue; when the store has not taken so much, senders are asked to come back later."""
    segment_max_bytes: Bytes = ByteSize(32 * MIB)
    """Size at which a queue segment is sealed: the size of an insert under load."""
    segment_max_age_seconds: Annotated[float, Field(gt=0)] = 0.2
    """Age at which a segment is sealed while the writer is idle: how soon a span can be seen."""
    dead_letter_max_bytes: Bytes = ByteSize(1 * GIB)
    """Bound on records that could not be stored and are kept with the reason; beyond it the oldest go, counted."""
    drain_seconds: Annotated[float, Field(ge=0)] = 10.0
    """On SIGTERM or Ctrl-C: how long the queue may drain into the store. What is left is stored at the next start."""

    @field_validator("ingest_keys", "read_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, str):
            return tuple(SecretStr(key) for key in load_keys(value, name=variable_of(info.field_name or "")))
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def queue_dir(self) -> Path:
        """Where the durable queue lives."""
        return self.data_dir / "queue"

    @property
    def store_dir(self) -> Path:
        """Where the embedded engine lives when no DSN says otherwise."""
        return self.data_dir / "store"

    def ingest_key_texts(self) -> tuple[str, ...]:
        """Ingest keys in clear."""
        return tuple(key.get_secret_value() for key in self.ingest_keys)

    def read_key_texts(self) -> tuple[str, ...]:
        """Read keys in clear."""
        return tuple(key.get_secret_value() for key in self.read_keys)

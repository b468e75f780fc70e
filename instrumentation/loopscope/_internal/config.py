"""The configuration of a recording process: one frozen object, resolved once by `loopscope.configure`.

Precedence: argument > LOOPSCOPE_* > OTEL_* > default. This is the only module that reads the environment. A bad
argument raises ConfigurationError; a bad environment variable is logged and passed over, since it may be set for
another program and must not stop the host.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from loopscope.exceptions import ConfigurationError

from .capture import EVERYONE, FULL, METADATA, CapturePolicy, policy_of
from .guard import logger
from .limits import Limits, limits_of
from .rules import RedactionRule, pii_kinds, rules_of

DEFAULT_ENDPOINT = "http://127.0.0.1:4318"
DEFAULT_SPOOL_MAX_BYTES = 512 * 1024 * 1024
"""Half a gigabyte holds about a day of a busy agent while its collector is away."""
DEFAULT_MEMORY_MAX_BYTES = 64 * 1024 * 1024
"""What finished calls may hold of the host's memory until they are on disk; six 10 MB requests."""
QUEUE_MAX_ITEMS = 20_000
MIN_SPOOL_BYTES = 1024 * 1024
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a recording process was told. Sizes in bytes, times in seconds."""

    agent: str
    agent_version: str | None
    service_name: str
    environment: str | None
    user_id: str | None
    conversation_id: str | None
    traces_url: str
    starts_url: str | None
    """None when the endpoint is a full traces URL of somebody else: only our collector serves start markers."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    spool_dir: Path | None
    """None: no directory could be had; spans then wait in memory."""
    spool_max_bytes: int
    memory_max_bytes: int
    redact: bool
    """Whether credentials are scrubbed."""
    redact_rules: tuple[RedactionRule, ...]
    redact_pii: tuple[str, ...]
    capture: CapturePolicy
    price_overrides: Mapping[str, Any] | None
    resource_attributes: Mapping[str, str]
    enabled: bool
    exit_flush_seconds: float
    limits: Limits | None
    """Limits of every run that has none of its own."""

    @property
    def capture_content(self) -> bool:
        """Whether text is recorded of agents that no setting names."""
        return self.capture.default == FULL


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """The configuration that these arguments of `configure` and the environment amount to.

    Raises ConfigurationError for an argument that cannot be used.
    """
    read = _Reader(arguments, os.environ if environ is None else environ)
    resource = read.pairs("OTEL_RESOURCE_ATTRIBUTES")
    service = read.text("service_name", None, "OTEL_SERVICE_NAME") or resource.get("service.name")
    agent = read.text("agent", "LOOPSCOPE_AGENT") or service or _script_name()
    traces_url, starts_url, from_otel = _addresses(read)
    rules, rules_failed = _rules(read)
    return Config(
        agent=agent,
        agent_version=read.text("agent_version", "LOOPSCOPE_AGENT_VERSION") or resource.get("service.version"),
        service_name=service or agent,
        environment=read.text("environment", "LOOPSCOPE_ENVIRONMENT")
        or resource.get("deployment.environment.name")
        or resource.get("deployment.environment"),
        user_id=read.text("user_id", "LOOPSCOPE_USER_ID"),
        conversation_id=read.text("conversation_id", "LOOPSCOPE_CONVERSATION_ID"),
        traces_url=traces_url,
        starts_url=starts_url,
        headers=_headers(read, from_otel=from_otel),
        spool_dir=_spool_dir(read),
        spool_max_bytes=read.number(
            "spool_max_bytes", "LOOPSCOPE_SPOOL_MAX_BYTES", DEFAULT_SPOOL_MAX_BYTES, MIN_SPOOL_BYTES
        ),
        memory_max_bytes=read.number(
            "memory_max_bytes", "LOOPSCOPE_MEMORY_MAX_BYTES", DEFAULT_MEMORY_MAX_BYTES, MIN_SPOOL_BYTES
        ),
        redact=read.flag("redact", "LOOPSCOPE_REDACT", default=True),
        redact_rules=rules,
        redact_pii=_pii(read),
        capture=CapturePolicy(METADATA) if rules_failed else _capture(read),
        price_overrides=_overrides(arguments.get("price_overrides")),
        resource_attributes=resource,
        enabled=not read.flag("disabled", "LOOPSCOPE_DISABLED", default=read.env_flag("OTEL_SDK_DISABLED")),
        exit_flush_seconds=read.seconds("exit_flush_seconds", "LOOPSCOPE_EXIT_FLUSH_SECONDS", 2.0),
        limits=_limits(read),
    )


class _Reader:
    """Reads one setting at a time: the argument when given, else the environment."""

    def __init__(self, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ

    def env(self, *names: str | None) -> tuple[str, str] | None:
        for name in names:
            if name and (value := self.environ.get(name, "").strip()):
                return name, value
        return None

    def text(self, argument: str, *variables: str | None) -> str | None:
        value = self.arguments.get(argument)
        if value is None:
            found = self.env(*variables)
            return found[1] if found else None
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"configure({argument}={value!r}): expected a text that is not empty")
        return value.strip()

    def number(self, argument: str, variable: str, default: int, at_least: int) -> int:
        value = self.arguments.get(argument)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
                raise ConfigurationError(
                    f"configure({argument}={value!r}): expected a number of bytes, at least {at_least}"
                )
            return value
        if found := self.env(variable):
            if found[1].isdecimal() and int(found[1]) >= at_least:
                return int(found[1])
            _passed_over(*found, f"a number of bytes, at least {at_least}")
        return default

    def seconds(self, argument: str, variable: str, default: float) -> float:
        value = self.arguments.get(argument)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
                raise ConfigurationError(f"configure({argument}={value!r}): expected seconds between 0 and 3600")
            return float(value)
        if found := self.env(variable):
            try:
                if 0 <= float(found[1]) <= 3600:
                    return float(found[1])
            except ValueError:
                pass
            _passed_over(*found, "seconds between 0 and 3600")
        return default

    def flag(self, argument: str, variable: str, *, default: bool) -> bool:
        value = self.arguments.get(argument)
        if value is not None:
            if not isinstance(value, bool):
                raise ConfigurationError(f"configure({argument}={value!r}): expected True or False")
            return value
        found = self.env(variable)
        return self.env_flag(variable, default=default) if found else default

    def env_flag(self, variable: str, *, default: bool = False) -> bool:
        found = self.env(variable)
        if found is None:
            return default
        if found[1].lower() in _TRUE | _FALSE:
            return found[1].lower() in _TRUE
        _passed_over(*found, "true or false")
        return default

    def pairs(self, variable: str) -> dict[str, str]:
        """`a=b,c=d` with percent-encoded values, as OpenTelemetry writes headers and resource attributes."""
        result: dict[str, str] = {}
        found = self.env(variable)
        for part in found[1].split(",") if found else ():
            key, equals, value = part.partition("=")
            if equals and key.strip():
                result[unquote(key.strip())] = unquote(value.strip())
            elif part.strip():
                # The value may be a credential: name the variable, not its content.
                logger.warning("loopscope: a part of %s is passed over: expected key=value", variable)
        return result


def _passed_over(variable: str, value: str, expected: str) -> None:
    logger.warning("loopscope: %s=%r is passed over: expected %s", variable, value, expected)


def _addresses(read: _Reader) -> tuple[str, str | None, bool]:
    """(URL for spans, URL for start markers, whether they come from OTEL_*)."""
    given = read.arguments.get("endpoint")
    if given is not None:
        if not isinstance(given, str) or _http_url(given) is None:
            raise ConfigurationError(f"configure(endpoint={given!r}): expected http://host:port or https://host[:port]")
        return (*_under(given), False)
    grpc = read.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip().lower() == "grpc"
    for variable in ("LOOPSCOPE_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        found = read.env(variable)
        if found is None:
            continue
        otel = variable.startswith("OTEL_")
        if _http_url(found[1]) is None:
            _passed_over(*found, "http://host:port or https://host[:port]")
        elif otel and grpc:
            logger.warning("loopscope: %s is passed over, it speaks gRPC; set LOOPSCOPE_ENDPOINT", variable)
        elif variable == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":
            return found[1], None, True
        else:
            return (*_under(found[1]), otel)
    return (*_under(DEFAULT_ENDPOINT), False)


def _under(endpoint: str) -> tuple[str, str]:
    base = endpoint.strip().rstrip("/")
    return f"{base}/v1/traces", f"{base}/loopscope/v1/starts"


def _http_url(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text.strip())
        url.port  # noqa: B018 - raises ValueError when it is no number
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.hostname else None


def _headers(read: _Reader, *, from_otel: bool) -> tuple[tuple[str, str], ...]:
    """Headers for the collector. Those of OTEL_* go only where OTEL_* points: they may be another backend's
    credentials."""
    headers: dict[str, str] = {}
    if from_otel:
        headers |= read.pairs("OTEL_EXPORTER_OTLP_HEADERS") | read.pairs("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    headers |= read.pairs("LOOPSCOPE_HEADERS")
    given = read.arguments.get("headers")
    if given is not None:
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"configure(headers=...): expected a mapping of texts, got {type(given).__name__}")
        for key, value in given.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise ConfigurationError(f"configure(headers=...): the header {key!r} is not text to text")
            headers[key] = value
    if key := read.text("api_key", "LOOPSCOPE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    for name, value in list(headers.items()):
        if not _is_header(name, value):
            if (given is not None and name in given) or (name == "Authorization" and read.arguments.get("api_key")):
                raise ConfigurationError(f"configure: the header {name!r} holds a character that HTTP does not allow")
            logger.warning("loopscope: the header %r is passed over: HTTP does not allow one of its characters", name)
            del headers[name]
    return tuple(headers.items())


def _is_header(name: str, value: str) -> bool:
    return (
        name.isascii() and name.replace("-", "").replace("_", "").isalnum() and value.isprintable() and value.isascii()
    )


def _spool_dir(read: _Reader) -> Path | None:
    given = read.arguments.get("spool_dir")
    if given is not None:
        if not isinstance(given, str | os.PathLike):
            raise ConfigurationError(f"configure(spool_dir={given!r}): expected a path")
        path = Path(os.fspath(given)).expanduser()  # pyright: ignore[reportArgumentType] - a path of text
        if not _usable(path):
            raise ConfigurationError(f"configure(spool_dir={str(path)!r}): cannot be created or written to")
        return path
    candidates: list[Path] = []
    if found := read.env("LOOPSCOPE_SPOOL_DIR"):
        candidates.append(Path(found[1]).expanduser())
    if found := read.env("HOME", "USERPROFILE"):
        candidates.append(Path(found[1]) / ".loopscope" / "spool")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    import tempfile  # it imports a dozen modules that only this last resort needs

    candidates.append(Path(tempfile.gettempdir()) / f"loopscope-{user}" / "spool")
    for path in candidates:
        if _usable(path):
            return path
        logger.warning("loopscope: the spool directory %s cannot be used; trying the next", path)
    return None


def _usable(path: Path) -> bool:
    """Make the directory for its owner alone: it holds prompts. A directory of somebody else is not used."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return False
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)


def _rules(read: _Reader) -> tuple[tuple[RedactionRule, ...], bool]:
    """(the user's rules, whether a variable names rules that cannot be used).

    In that case the text that they are for must not be recorded.
    """
    given = read.arguments.get("redact_rules")
    if given is not None:
        return rules_of(given, "configure(redact_rules=...)"), False
    found = read.env("LOOPSCOPE_REDACT_RULES")
    if found is None:
        return (), False
    path = Path(found[1].removeprefix("@")).expanduser()
    try:
        return rules_of(_rules_file(path), f"{path}"), False
    except (OSError, ValueError) as error:  # a ConfigurationError is a ValueError
        logger.error(
            "loopscope: LOOPSCOPE_REDACT_RULES=%r cannot be used (%s); until it can, only metadata is recorded",
            found[1],
            error,
        )
        return (), True


def _rules_file(path: Path) -> object:
    import tomllib

    content = tomllib.loads(path.read_text("utf-8"))
    rules = content.pop("rules", None)
    if rules is None or content:
        raise ConfigurationError(f"{path}: expected one table [rules] of name = 'regular expression'")
    return rules


def _pii(read: _Reader) -> tuple[str, ...]:
    given = read.arguments.get("redact_pii")
    if given is not None:
        return pii_kinds(given, "configure(redact_pii=...)")
    found = read.env("LOOPSCOPE_REDACT_PII")
    if found is None or found[1].lower() in _FALSE:
        return ()
    if found[1].lower() in _TRUE:
        return pii_kinds(True, found[0])
    try:
        return pii_kinds([kind.strip() for kind in found[1].split(",") if kind.strip()], found[0])
    except ConfigurationError as error:
        logger.error("loopscope: %s; all kinds are scrubbed", error)
        return pii_kinds(True, found[0])


def _capture(read: _Reader) -> CapturePolicy:
    """Arguments over variables, and `capture` over its older form `capture_content`."""
    given = read.arguments.get("capture")
    if given is not None:
        return policy_of(given, "configure(capture=...)")
    if read.arguments.get("capture_content") is None and (found := read.env("LOOPSCOPE_CAPTURE")):
        pairs = [part.rpartition("=") for part in found[1].split(",") if part.strip()]
        try:
            return policy_of({agent.strip() or EVERYONE: mode.strip().lower() for agent, _, mode in pairs}, found[0])
        except ConfigurationError as error:
            logger.error("loopscope: %s; only metadata is recorded", error)
            return CapturePolicy(METADATA)
    content = read.flag("capture_content", "LOOPSCOPE_CAPTURE_CONTENT", default=True)
    return CapturePolicy(FULL if content else METADATA)


def _script_name() -> str:
    """The running program's name, so that an agent whose owner named nothing can still be told from another."""
    path = Path(sys.argv[0] if sys.argv and sys.argv[0] else "")
    if path.name == "-m" and "-m" in sys.orig_argv[:-1]:  # the module is still being looked for
        path = Path(*sys.orig_argv[sys.orig_argv.index("-m") + 1].split("."))
    stem = path.parent.name if path.stem == "__main__" else path.stem
    return stem if stem and stem not in ("-", "-c", "-m") else "unnamed agent"


_LIMIT_VARIABLES: Mapping[str, tuple[str, Any]] = {
    "max_turns": ("LOOPSCOPE_MAX_TURNS", int),
    "max_tokens": ("LOOPSCOPE_MAX_TOKENS", int),
    "max_cost_usd": ("LOOPSCOPE_MAX_COST_USD", float),
    "max_seconds": ("LOOPSCOPE_MAX_SECONDS", float),
    "on_hit": ("LOOPSCOPE_ON_LIMIT", str),
}


def _limits(read: _Reader) -> Limits | None:
    given = limits_of(read.arguments.get("limits"), "configure(limits)")
    if given is not None:
        return given
    values: dict[str, Any] = {}
    for name, (variable, kind) in _LIMIT_VARIABLES.items():
        if (found := read.env(variable)) is None:
            continue
        try:
            value = kind(found[1])
            Limits(**{name: value})
        except (ValueError, ConfigurationError):
            _passed_over(*found, "partial or raise" if kind is str else "a number above 0")
        else:
            values[name] = value
    return Limits(**values) if values.keys() - {"on_hit"} else None


def _overrides(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigurationError(f"configure(price_overrides={value!r}): expected a mapping of model name to rates")
    return value

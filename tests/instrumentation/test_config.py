"""Configuration: what wins over what, what is refused, what is passed over."""

import inspect
import logging
import re
from pathlib import Path
from typing import Any

import pytest

import loopscope
from loopscope._internal.config import Config, resolve
from loopscope._internal.endpoints import Endpoint


def config(tmp_path: Path, environ: dict[str, str] | None = None, **arguments: Any) -> Config:
    return resolve(arguments, {"LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"), **(environ or {})})


def test_defaults(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made.traces_url == "http://127.0.0.1:4318/v1/traces"
    assert made.starts_url == "http://127.0.0.1:4318/loopscope/v1/starts"
    assert made.spool_dir == tmp_path / "spool"
    assert made.redact
    assert made.capture_content
    assert made.enabled
    assert made.headers == ()
    assert made.agent


def test_argument_over_loopscope_over_otel(tmp_path: Path) -> None:
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1", "OTEL_SERVICE_NAME": "service"}
    own = {"LOOPSCOPE_ENDPOINT": "http://own:2/", "LOOPSCOPE_AGENT": "own"}
    assert config(tmp_path, otel).traces_url == "http://otel:1/v1/traces"
    assert config(tmp_path, otel).agent == "service"
    assert config(tmp_path, otel | own).traces_url == "http://own:2/v1/traces"
    assert config(tmp_path, otel | own).agent == "own"
    assert config(tmp_path, otel | own).service_name == "service"
    given = config(tmp_path, otel | own, endpoint="https://given", agent="given")
    assert given.traces_url == "https://given/v1/traces"
    assert given.agent == "given"


def test_a_traces_url_of_otel_is_taken_as_it_is_and_gets_no_markers(tmp_path: Path) -> None:
    made = config(tmp_path, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://backend/custom?x=1"})
    assert (made.traces_url, made.starts_url) == ("https://backend/custom?x=1", None)


def test_a_full_url_of_the_usual_path_may_be_our_collectors(tmp_path: Path) -> None:
    made = config(tmp_path, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c:1/base/v1/traces"})
    assert (made.traces_url, made.starts_url) == ("https://c:1/base/v1/traces", "https://c:1/base/loopscope/v1/starts")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10000", 10.0), ("1500", 1.5), ("10", 10.0), ("0.5", 1.0), ("999999", 300.0), ("soon", 10.0), ("-1", 10.0)],
)
def test_the_timeout_in_milliseconds_or_as_python_has_it(value: str, seconds: float, tmp_path: Path) -> None:
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1", "OTEL_EXPORTER_OTLP_TIMEOUT": value}
    assert config(tmp_path, otel).endpoint.timeout_seconds == seconds


def test_traces_own_variables_win_over_the_general_ones_and_only_where_otel_points(tmp_path: Path) -> None:
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none",
    }
    made = config(tmp_path, otel).endpoint
    assert (made.protocol, made.compression) == ("http/json", "none")
    other = config(tmp_path, otel, endpoint="http://mine:1").endpoint
    assert (other.protocol, other.compression) == ("http/protobuf", None)


@pytest.mark.parametrize(
    ("endpoint", "more", "url"),
    [
        ("http://otel:4317", {}, "http://otel:4317"),
        ("otel:4317", {}, "https://otel:4317"),
        ("otel:4317", {"OTEL_EXPORTER_OTLP_INSECURE": "true"}, "http://otel:4317"),
    ],
)
def test_a_grpc_endpoint_is_never_our_collector(endpoint: str, more: dict[str, str], url: str, tmp_path: Path) -> None:
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **more}
    made = config(tmp_path, otel)
    assert (made.traces_url, made.starts_url, made.endpoint.protocol) == (url, None, "grpc")


def test_what_cannot_be_used_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier pigeon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem",
        "LOOPSCOPE_HOST_SPANS": "some",
        "LOOPSCOPE_BACKEND": "mine",
    }
    made = config(tmp_path, otel)
    assert made.endpoint == Endpoint()
    assert made.host_spans == "off"
    for name, value in list(otel.items())[1:]:
        assert name in caplog.text
        assert value in caplog.text


def test_grpc_without_its_library_says_what_to_install(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    config(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "pip install 'loopscope[grpc]'" in caplog.text


def test_otel_headers_go_only_where_otel_points(tmp_path: Path) -> None:
    otel = {"OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=a%20b", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:1"}
    assert config(tmp_path, otel).headers == (("x-api-key", "a b"),)
    assert config(tmp_path, otel, endpoint="http://mine:1").headers == ()
    assert config(tmp_path, otel | {"LOOPSCOPE_ENDPOINT": "http://mine:1", "LOOPSCOPE_API_KEY": "k"}).headers == (
        ("Authorization", "Bearer k"),
    )


def test_resource_attributes(tmp_path: Path) -> None:
    made = config(
        tmp_path,
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=s,service.version=2,deployment.environment.name=prod,team=a%2Cb"},
    )
    assert (made.service_name, made.agent_version, made.environment) == ("s", "2", "prod")
    assert made.resource_attributes["team"] == "a,b"


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "LOOPSCOPE_DISABLED"])
def test_it_can_be_disabled(variable: str, tmp_path: Path) -> None:
    assert not config(tmp_path, {variable: "true"}).enabled
    assert config(tmp_path, {variable: "true"}, disabled=False).enabled


WRONG: list[tuple[str, Any]] = [
    ("agent", ""),
    ("agent", 7),
    ("endpoint", "localhost:4318"),
    ("endpoint", "ftp://x"),
    ("endpoint", "http://host:notaport"),
    ("redact", "no"),
    ("backend", "mine"),
    ("host_spans", True),
    ("spool_max_bytes", 12),
    ("spool_max_bytes", True),
    ("headers", ["a"]),
    ("headers", {"a": "b\nc"}),
    ("api_key", "a\r\nb"),
    ("spool_dir", 3),
    ("spool_dir", "/proc/none"),
    ("exit_flush_seconds", -1),
    ("price_overrides", [1]),
    ("price_overrides", {"m": {"inptu": 1}}),
    ("price_overrides", {"m": {"input": "cheap"}}),
    ("price_overrides", {"m": 3}),
]


@pytest.mark.parametrize(("argument", "value"), WRONG)
def test_a_wrong_argument_is_refused_by_name(argument: str, value: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"spool_dir": tmp_path, argument: value}
    with pytest.raises(loopscope.ConfigurationError) as raised:
        loopscope.configure(**given)
    assert isinstance(raised.value, ValueError)
    assert argument.removesuffix("s") in str(raised.value) or argument == "api_key"
    assert loopscope.stats()["internal_errors"] == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOOPSCOPE_ENDPOINT", "nonsense"),
        ("LOOPSCOPE_SPOOL_MAX_BYTES", "much"),
        ("LOOPSCOPE_REDACT", "perhaps"),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
        ("LOOPSCOPE_EXIT_FLUSH_SECONDS", "soon"),
    ],
)
def test_a_wrong_variable_is_passed_over_and_said(
    variable: str, value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "loopscope"):
        assert config(tmp_path, {variable: value}) == config(tmp_path)
    assert variable in caplog.text


def test_a_spool_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    made = config(tmp_path, {"LOOPSCOPE_SPOOL_DIR": "/proc/none", "HOME": str(tmp_path)})
    assert made.spool_dir == tmp_path / ".loopscope" / "spool"


def test_credentials_do_not_show(tmp_path: Path) -> None:
    assert "hush" not in repr(config(tmp_path, api_key="hush"))


def test_all_is_sorted_and_there() -> None:
    assert loopscope.__all__ == sorted(loopscope.__all__)
    for name in loopscope.__all__:
        assert getattr(loopscope, name).__doc__


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for name in inspect.signature(loopscope.configure).parameters:
        assert f"`{name}`" in page, f"docs/configuration.md does not name {name}"
    source = (Path(resolve.__code__.co_filename)).read_text()
    for variable in set(re.findall(r'"((?:LOOPSCOPE|OTEL)_[A-Z_]+)"', source)):
        assert variable in page, f"docs/configuration.md does not name {variable}"

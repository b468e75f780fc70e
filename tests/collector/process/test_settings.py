"""Settings: where they come from, what is refused, and that each is documented."""

import re
from pathlib import Path

import pytest

from loopscope_collector.settings import CollectorSettings, explain, variable_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_every_setting_has_a_docstring_and_a_line_in_the_document() -> None:
    documented = set(re.findall(r"^\| `(LOOPSCOPE_[A-Z_]+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    for name, field in CollectorSettings.model_fields.items():
        assert field.description, name
        assert variable_of(name) in documented, f"docs/configuration.md does not name {variable_of(name)}"


def test_argument_before_environment_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_OTLP_HTTP_PORT", "1234")
    monkeypatch.setenv("LOOPSCOPE_QUEUE_MAX_BYTES", "5MiB")
    monkeypatch.setenv("LOOPSCOPE_BIND", "")
    settings = CollectorSettings(clickhouse_port=0)
    assert (settings.otlp_http_port, settings.clickhouse_port, settings.dashboard_port) == (1234, 0, 8501)
    assert settings.queue_max_bytes == 5 * 1024 * 1024
    assert settings.bind == "127.0.0.1"
    assert CollectorSettings(otlp_http_port=99).otlp_http_port == 99


def test_the_data_dir_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert CollectorSettings(data_dir=Path("here")).queue_dir == tmp_path / "here" / "queue"
    assert CollectorSettings(data_dir=Path("~/there")).data_dir == Path.home() / "there"


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_INGEST_KEYS", "top-secret-1,top-secret-2")
    monkeypatch.setenv("LOOPSCOPE_DSN", "clickhouse://user:top-secret-3@host/db")
    settings = CollectorSettings()
    assert "top-secret" not in f"{settings!r} {settings}"
    assert settings.ingest_key_texts() == ("top-secret-1", "top-secret-2")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"otlp_http_port": 70000}, "otlp_http_port (LOOPSCOPE_OTLP_HTTP_PORT): Input should be less than"),
        ({"max_body_bytes": "many"}, "max_body_bytes (LOOPSCOPE_MAX_BODY_BYTES): "),
        ({"read_keys": "a key with blanks"}, "key 1 of LOOPSCOPE_READ_KEYS holds a blank"),
        ({"ingest_keys": "@/does/not/exist"}, "LOOPSCOPE_INGEST_KEYS names the file /does/not/exist"),
        ({"retention_days": 0}, "retention_days (LOOPSCOPE_RETENTION_DAYS): "),
    ],
)
def test_a_value_that_cannot_be_used_is_named_in_one_line(given: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=r"LOOPSCOPE|validation error") as refusal:
        CollectorSettings(**given)  # type: ignore[arg-type]
    text = explain(refusal.value)
    assert line in text
    assert "\n" not in text
    assert "blanks" not in text

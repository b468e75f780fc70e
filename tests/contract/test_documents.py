"""Documents and files that users rely on agree with the code."""

import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_attribute_is_documented() -> None:
    """docs/attributes.md is what the attribute module says today."""
    script = runpy.run_path(str(ROOT / "scripts/document_attributes.py"))
    source = (ROOT / "schemas/loopscope_schemas/attributes.py").read_text(encoding="utf-8")
    assert (ROOT / "docs/attributes.md").read_text(encoding="utf-8") == script["page"](source)


def test_the_public_interface_is_documented() -> None:
    """docs/api.md is what the docstrings say today, and everything public has one."""
    script = runpy.run_path(str(ROOT / "scripts/document_api.py"))
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == script["page"](), "run scripts/document_api.py"
    for module in map(importlib.import_module, script["MODULES"]):
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name)), f"{module.__name__}.{name} has no docstring"


def test_attribute_names_are_distinct() -> None:
    """One name, one constant."""
    script = runpy.run_path(str(ROOT / "scripts/document_attributes.py"))
    names = [name for name, _ in script["attributes"]((ROOT / "schemas/loopscope_schemas/attributes.py").read_text())]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements.runtime.lock"])
def test_lock_files_name_no_host_and_hash_everything(name: str) -> None:
    """Whoever installs chooses the index; what arrives is what was locked."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)
    pinned = re.findall(r"^[a-z0-9][^\s=]*==\S+.*$", text, re.MULTILINE)
    assert len(pinned) > 30
    assert all(line.endswith("\\") for line in pinned)


def test_the_compose_file_follows_its_schema() -> None:
    """No container engine is needed to see that the file is well-formed."""
    check = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr


def test_the_compose_file_opens_nothing_without_keys() -> None:
    """Published ports are on loopback, and whoever listens beyond it is given keys that have no default."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    published = [(name, port) for name, service in services.items() for port in service.get("ports", [])]
    assert published
    for name, port in published:
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port} beyond loopback"
        environment = services[name]["environment"]
        for key in ("LOOPSCOPE_INGEST_KEYS", "LOOPSCOPE_READ_KEYS"):
            assert environment[key].startswith("${" + key + ":?"), f"{name} starts without {key}"
    assert "ports" not in services["clickhouse"]
    assert services["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"].startswith("${CLICKHOUSE_PASSWORD:?")
    for name, service in services.items():
        assert "healthcheck" in service, f"{name} has no health check"
        assert service["volumes"] if name != "dashboards" else True

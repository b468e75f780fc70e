"""Starting, refusing to start, keys, and what the child tells the machine."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from loopscope_collector.engine import EngineError, EngineProcess

from .conftest import WRITE_SECRET


def test_a_directory_has_one_engine_and_a_port_one_listener(engine: EngineProcess, tmp_path: Path) -> None:
    assert engine.data_dir is not None
    with pytest.raises(EngineError, match=rf"held by another process \(pid {engine.pid}\)"):
        EngineProcess(engine.data_dir, port=0, write_secret="x").start()
    with pytest.raises(EngineError, match="Address already in use"):
        EngineProcess(tmp_path / "other", port=engine.port, write_secret="x").start()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(EngineError, match="cannot be made or opened"):
        EngineProcess(tmp_path / "file", port=0, write_secret="x").start()


def test_beyond_loopback_it_wants_keys(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="LOOPSCOPE_READ_KEYS"):
        EngineProcess(tmp_path / "data", host="0.0.0.0", port=0, write_secret="x").start()
    with pytest.raises(EngineError, match="write secret"):
        EngineProcess(tmp_path / "data", port=0, write_secret="")


def test_read_keys(tmp_path: Path) -> None:
    """With keys nobody reads without one; a key reads and does not write."""
    with EngineProcess(tmp_path / "data", port=0, write_secret=WRITE_SECRET, read_keys=["one", "two"]) as engine:
        for password in ("", "three", WRITE_SECRET):
            with pytest.raises(DatabaseError, match=r"194|516"):
                clickhouse_connect.get_client(host="127.0.0.1", port=engine.port, password=password)
        for user, password in (("default", "one"), ("grafana", "two")):
            client = clickhouse_connect.get_client(host="127.0.0.1", port=engine.port, username=user, password=password)
            assert client.command("SELECT 1") == 1
            with pytest.raises(DatabaseError, match="497"):
                client.command("CREATE TABLE loopscope.t (x UInt8) ENGINE = Memory")
        token = clickhouse_connect.get_client(host="127.0.0.1", port=engine.port, access_token="two")
        assert token.command("SELECT 1") == 1
        assert clickhouse_connect.get_client(dsn=engine.write_dsn).command("SELECT 1") == 1


def test_secrets_stand_on_no_command_line_and_in_no_environment(engine: EngineProcess) -> None:
    process = Path(f"/proc/{engine.pid}")
    assert WRITE_SECRET.encode() not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert WRITE_SECRET not in engine.read_url + engine.address + repr(engine)
    assert os.getpgid(engine.pid or 0) != os.getpgid(0)  # a Ctrl-C at our terminal is not for it
    assert engine.data_dir.stat().st_mode & 0o077 == 0


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed leaves no child behind that would hold the directory."""
    script = f"""
        import sys, time
        from pathlib import Path
        from loopscope_collector.engine import EngineProcess
        engine = EngineProcess(Path({str(tmp_path / "data")!r}), port=0, write_secret="x").start()
        print(engine.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
    with EngineProcess(tmp_path / "data", port=0, write_secret="x") as again:
        assert again.is_alive()


def test_outgrown_memory_restarts_it(tmp_path: Path) -> None:
    """A bound below what an idle engine holds: the watch restarts it, and says why."""
    reasons: list[str] = []
    process = EngineProcess(
        tmp_path / "data", port=0, write_secret="x", options={"memory_limit_bytes": 1 << 20}, on_restart=reasons.append
    )
    with process as engine:
        first = engine.pid
        engine.watch()
        deadline = time.monotonic() + 60
        while not reasons:
            assert time.monotonic() < deadline, "no restart"
            time.sleep(0.05)
        assert "MiB, more than 1" in reasons[0]
        assert engine.pid != first


def test_importing_the_package_loads_no_engine() -> None:
    code = (
        "import sys, loopscope_collector.engine; "
        "sys.exit(any(name in sys.modules for name in ('chdb', 'pyarrow', 'uvicorn')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

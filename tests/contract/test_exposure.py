"""Beyond loopback nothing listens without keys, whichever door it is started by."""

import os
import subprocess
import sys

import pytest

DOORS = {
    "collector, engine and dashboards": ["loopscope.cli", "up", "--bind", "0.0.0.0"],
    "dashboards": ["loopscope_dashboards", "--bind", "0.0.0.0", "--port", "0"],
    "stand-in": ["loopscope.cli", "stub", "--host", "0.0.0.0", "--port", "0"],
}


@pytest.mark.parametrize("door", DOORS)
def test_nothing_listens_beyond_loopback_without_keys(door: str) -> None:
    """It ends at once, says why in one line, and says what to do."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOPSCOPE_")}
    done = subprocess.run(
        [sys.executable, "-m", *DOORS[door]], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "0.0.0.0" in done.stderr
    assert "key" in done.stderr.lower()

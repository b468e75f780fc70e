"""The examples run as they stand: against the stand-in, with nothing but environment variables set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.stub import StubServer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("example", "calls", "words"),
    [("support_agent.py", 2, "espresso machine"), ("streaming_report.py", 1, "Write a short report on heat pumps")],
)
def test_an_example(stub: StubServer, tmp_path: Path, example: str, calls: int, words: str) -> None:
    environment = {
        **os.environ,
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "any",
        "LOOPSCOPE_SPOOL_DIR": str(tmp_path),
        "LOOPSCOPE_ENDPOINT": "http://127.0.0.1:9",
        "LOOPSCOPE_EXIT_FLUSH_SECONDS": "0",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert len(stub.log.entries()) == calls


def test_every_example_is_run_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["streaming_report.py", "support_agent.py"]

"""What an agent's process loads when it imports Loopscope."""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

HEAVY = {"chdb", "pandas", "pyarrow", "streamlit", "plotly", "starlette", "uvicorn", "clickhouse_connect", "anthropic",
         "genai_prices", "typer", "rich", "loopscope_collector", "loopscope_dashboards"}  # fmt: skip


def test_importing_and_configuring_stays_light() -> None:
    """None of the heavy libraries is loaded, whether or not it is installed."""
    program = (
        "import json, sys, loopscope\n"
        "loopscope.configure(agent='light', endpoint='http://127.0.0.1:9')\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "loopscope.shutdown(timeout=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[0]))


def needed_by(distribution: str) -> set[str]:
    """Names of the distributions that come along with one, extras left out, as the installed metadata says."""
    found: set[str] = set()
    waiting = [distribution]
    while waiting:
        try:
            lines = requires(waiting.pop()) or []
        except PackageNotFoundError:
            continue  # needed on another platform or Python only
        for line in lines:
            name = re.sub(r"[-_.]+", "-", re.split(r"[ ;<>=!~\[(]", line, maxsplit=1)[0]).lower()
            if "extra ==" not in line and name not in found:
                found.add(name)
                waiting.append(name)
    return found


def test_a_plain_install_brings_only_the_instrumentation() -> None:
    """`pip install loopscope` without extras installs none of what only collector and dashboards need."""
    brought = needed_by("loopscope")
    assert {"opentelemetry-api", "genai-prices", "typer"} <= brought
    heavy = {"chdb", "chdb-core", "pandas", "pyarrow", "numpy", "streamlit", "plotly", "starlette", "uvicorn",
             "clickhouse-connect", "anthropic", "opentelemetry-sdk"}  # fmt: skip
    assert not heavy & brought

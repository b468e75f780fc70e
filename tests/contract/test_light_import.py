"""What an agent's process loads when it imports Loopscope."""

import json
import subprocess
import sys

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

"""How the dashboards are started: the command line of their process. Called by the collector; imports nothing heavy."""

import sys
from pathlib import Path
from typing import Final

READ_KEYS: Final = "LOOPSCOPE_READ_KEYS"
"""Keys that admit to the pages; without any, they are served on loopback only."""
APP: Final = Path(__file__).with_name("app.py")


def streamlit_command(bind: str, port: int) -> list[str]:
    """Arguments of the process that serves the dashboards on an address and a port.

    The process reads LOOPSCOPE_DSN (`clickhouse://user:key@host:port/database`) and LOOPSCOPE_READ_KEYS from its
    environment; neither appears among the arguments, which other users of the machine can see.
    """
    return [sys.executable, "-m", "loopscope_dashboards", "--bind", bind, "--port", str(port)]


def streamlit_arguments(bind: str, port: int) -> list[str]:
    """What Streamlit is told there. Repeats `.streamlit/config.toml` where a file of the user's own could undo it."""
    return [
        "run",
        str(APP),
        f"--server.address={bind}",
        f"--server.port={port}",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--server.runOnSave=false",
        "--browser.gatherUsageStats=false",
        "--client.toolbarMode=viewer",
        "--client.showErrorDetails=none",
        "--runner.magicEnabled=false",
        "--global.developmentMode=false",
    ]

"""`python -m loopscope_dashboards [--bind ADDRESS] [--port PORT]`: serve the dashboards from this process.

The libraries that the pages need are loaded before the port opens; the first reader would wait seconds for them.
"""

import argparse
import importlib
import os
import sys
from typing import Final

from loopscope_dashboards.command import READ_KEYS, streamlit_arguments
from loopscope_schemas.keys import KeysError, load_keys, require_keys

_PAGES_NEED: Final = ("clickhouse_connect", "plotly.graph_objects", "pandas")


def main() -> None:
    """Serve until ended by a signal."""
    parser = argparse.ArgumentParser(prog="python -m loopscope_dashboards", description="Serve the dashboards.")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on")
    options = parser.parse_args()
    try:
        keys = load_keys(os.environ.get(READ_KEYS, ""), name=READ_KEYS)
        require_keys(options.bind, {READ_KEYS: keys})
    except KeysError as error:
        sys.exit(f"loopscope: {error}")
    from streamlit.web import cli

    for name in _PAGES_NEED:
        importlib.import_module(name)
    sys.argv = ["streamlit", *streamlit_arguments(options.bind, options.port)]
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()

"""The process of the dashboards: loads what the pages need, then hands over to Streamlit.

`command.streamlit_command` starts it. Without this the first reader would wait some seconds for the libraries that the
pages import; so they are there when the port opens.
"""

import importlib
import sys
from typing import Final

_PAGES_NEED: Final = (
    "clickhouse_connect",
    "plotly.graph_objects",
    "pandas",
    "loopscope_dashboards.panels.charts",
    "loopscope_dashboards.queries.turn",
)


def main() -> None:
    """Run `streamlit run` with this process's arguments."""
    from streamlit.web import cli

    for name in _PAGES_NEED:
        importlib.import_module(name)
    sys.argv[0] = "streamlit"
    sys.argv.insert(1, "run")
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()

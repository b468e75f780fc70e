"""`python -m loopscope_dashboards [address] [port]`: serve the dashboards in this process's place."""

import os
import sys

from loopscope_dashboards.command import streamlit_command

if __name__ == "__main__":
    bind = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8501
    command = streamlit_command(bind, port)
    os.execv(command[0], command)  # noqa: S606  (no shell: our own interpreter)

"""Router of the dashboards: access, navigation, the frame around every page. `command` names this file to Streamlit."""

from pathlib import Path

import streamlit as st

from loopscope_dashboards.access import admitted

_PICTURES = Path(__file__).parent / "pictures"
# A Material icon here would make every browser ask Google's font server for it.
st.set_page_config(page_title="Loopscope", page_icon=str(_PICTURES / "icon.svg"), layout="wide")
st.logo(str(_PICTURES / "logo.svg"), size="medium")

if admitted():
    page = st.navigation(
        [
            st.Page("views/runs.py", title="Runs", icon=":material/list:", default=True),
            st.Page("views/run.py", title="Run", icon=":material/timeline:", url_path="run", visibility="hidden"),
        ],
        position="top",
    )
    page.run()

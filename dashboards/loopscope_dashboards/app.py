"""Router of the dashboards: access, navigation, the frame around every page. `command` names this file to Streamlit."""

from pathlib import Path

import streamlit as st

from loopscope_dashboards.access import admitted

_PICTURES = Path(__file__).parent / "pictures"
# A Material icon here would make every browser ask Google's font server for it.
st.set_page_config(page_title="Loopscope", page_icon=str(_PICTURES / "icon.svg"), layout="wide")
st.logo(str(_PICTURES / "logo.svg"), size="medium")

if admitted():
    # Both views are one page to Streamlit, told apart by the address. Between pages of their own, a live part of the
    # page that was left asks for itself once more while the new one is drawn, and Streamlit then clears the new one.
    view = "views/run.py" if "run" in st.query_params else "views/runs.py"
    st.navigation([st.Page(view, title="Loopscope", default=True)], position="hidden").run()

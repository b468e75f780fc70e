"""The `plain` widget: draws node trees (`panels.nodes`) in the browser, text as text.

Recorded text is hostile. Streamlit's own labels, headings and captions read Markdown; this widget reads nothing: the
script beside it creates elements of a fixed list and sets strings as `textContent`.
"""

from importlib.resources import files
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from loopscope_dashboards.panels.nodes import Node

_here = files(__name__)
_widget = component(
    "loopscope.plain",
    js=(_here / "plain.js").read_text(encoding="utf-8"),
    css=(_here / "plain.css").read_text(encoding="utf-8"),
)


def _nothing() -> None:
    return None


def draw(tree: Node, *, key: str) -> None:
    """Draw a tree under a key of its own."""
    _widget(data={"tree": tree}, key=key, on_go_change=_nothing)


def clicked(*keys: str) -> dict[str, str] | None:
    """Where the reader just asked to go in one of the trees (see `nodes.to_run`); None most of the time.

    To be asked before drawing: a click is told once, to the run that it causes.
    """
    for key in keys:
        state: Any = st.session_state.get(key)
        found = getattr(state, "go", None)
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in found.items() if isinstance(value, (str, int))}
    return None

"""The `plain` widget: draws node trees (`panels.nodes`) in the browser, text as text.

Recorded text is hostile. Streamlit's own labels, headings and captions read Markdown; this widget reads nothing: the
script beside it creates elements of a fixed list and sets strings as `textContent`.
"""

from importlib.resources import files
from typing import Any

import streamlit as st

from loopscope_dashboards.panels.nodes import Node

_here = files(__name__)
_widget = st.components.v2.component(
    "loopscope.plain",
    js=(_here / "plain.js").read_text(encoding="utf-8"),
    css=(_here / "plain.css").read_text(encoding="utf-8"),
)


def _nothing() -> None:
    return None


def draw(tree: Node, *, key: str) -> dict[str, str] | None:
    """Draw a tree; the `go` of what the reader just clicked, or None. Clicks that ask for a new tab stay the browser's."""
    result: Any = _widget(data={"tree": tree}, key=key, on_go_change=_nothing)
    found = result.go
    if not isinstance(found, dict):
        return None
    return {str(name): str(value) for name, value in found.items() if isinstance(value, (str, int))}

"""The `plain` widget: draws node trees (`panels.nodes`) in the browser, text as text.

Recorded text is hostile. Streamlit's own labels, headings and captions read Markdown; this widget reads nothing: the
script beside it creates elements of a fixed list and sets strings as `textContent`.
"""

from importlib.resources import files

from streamlit.components.v2 import component

from loopscope_dashboards.panels.nodes import Node

_here = files(__name__)
_widget = component(
    "loopscope.plain",
    js=(_here / "plain.js").read_text(encoding="utf-8"),
    css=(_here / "plain.css").read_text(encoding="utf-8"),
)


def draw(tree: Node, *, key: str) -> None:
    """Draw a tree under a key of its own."""
    _widget(data={"tree": tree}, key=key)

"""Recorded text made fit to be looked at: what a screen would hide, obey or reorder becomes visible.

Every text that came from an agent, a model or a tool passes through `visible` on its way to a page. Pages show it with
`textContent` or plain-text widgets only, so markup needs no escaping; Plotly reads tags in labels, so `plotly_label`.
"""

import re
from typing import Final

CUT_CHARS: Final = 20_000
"""Characters of one text that a page shows; the rest is a download away. A browser lays out 20,000 in a few ms."""

_NAMES: Final = [
    *("NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR", "SO", "SI"),
    *("DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US"),
]
"""Of the ASCII control characters."""
# Bidirectional controls reorder what a reader sees; zero-width, tag and variation characters carry hidden text.
_HIDDEN: Final = (
    "\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_VISIBLE: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_HIDDEN}]")


def _mark(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < len(_NAMES):
        return f"\u27e8{_NAMES[code]}\u27e9"
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    return f"\u27e8U+{code:04X}\u27e9"


def visible(text: str) -> str:
    """The text with control, bidirectional, invisible and lone-surrogate characters shown as marks. Tabs and line
    breaks stay; a carriage return is marked."""
    return _VISIBLE.sub(_mark, text)


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters on one line, visible, with an ellipsis where something was left out."""
    cut = text[: limit + 1]
    line = " ".join(visible(cut).split())
    return line if len(text) <= limit else line[:limit].rstrip() + "\u2026"


def plotly_label(text: str, limit: int = 60) -> str:
    """A label that Plotly draws as it stands: it reads HTML tags, entities and `$...$` in labels otherwise."""
    line = one_line(text, limit)
    # The full-width dollar: Plotly gives anything between two dollar signs to MathJax where a page has loaded it.
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "\uff04")

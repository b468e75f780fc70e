"""Node trees: what the `plain` widget draws. Built from fixed tags and class names; every text is made visible here.

A node is a list `[tag, attributes, *children]`, a child a node or a string. The browser side sets strings with
`textContent` and knows no way to interpret them; links are made from ids by the browser side, never from text.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from loopscope_dashboards.text import visible

Tag: TypeAlias = Literal[
    "div", "span", "b", "p", "h1", "h2", "h3", "pre", "a", "button", "details", "summary",
    "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "ol", "li",
]  # fmt: skip
Node: TypeAlias = list[Any]
Child: TypeAlias = "Node | str | None"

Address: TypeAlias = Mapping[str, str | list[str]]
"""What stands in the address of a page, by name."""


def node(
    tag: Tag,
    *children: Child,
    cls: str = "",
    title: str = "",
    key: str = "",
    go: Address | None = None,
    bar: tuple[float, float] | None = None,
    indent: int = 0,
    opened: bool = False,
    scroll_to: bool = False,
) -> Node:
    """One element. `title` is its tooltip; `key` keeps it (open or closed, scrolled) from one drawing to the next;
    `go` makes it lead to a page of ours (see `to_run`); `bar` is a place on a time axis: left edge, width (0 to 1)."""
    attributes: dict[str, Any] = {}
    if cls:
        attributes["c"] = cls
    if title:
        attributes["t"] = visible(title)
    if key:
        attributes["k"] = visible(key)
    if go is not None:
        attributes["go"] = go
    if bar:
        attributes["bar"] = [round(bar[0], 5), round(bar[1], 5)]
    if indent:
        attributes["i"] = indent
    if opened:
        attributes["o"] = 1
    if scroll_to:
        attributes["s"] = 1
    return [
        tag,
        attributes,
        *(visible(child) if isinstance(child, str) else child for child in children if child is not None),
    ]


def to_run(run_id: str, turn: int | None = None, **more: str) -> Address:
    """Where a run's page is, at a turn."""
    return {"run": run_id} | ({"turn": str(turn)} if turn is not None else {}) | more


def to_runs(**filters: str) -> Address:
    """Where the list of runs is, filtered."""
    return filters


def badge(text: str, tone: str = "") -> Node:
    """A small label. Tones: good, bad, warn, live, info, quiet."""
    return node("span", text, cls=f"badge {tone}".strip())


OUTCOME_TONES: Final = {
    "running": "live",
    "completed": "good",
    "partial": "warn",
    "limit": "warn",
    "escalated": "warn",
    "failed": "bad",
    "crashed": "bad",
}


def outcome_badge(outcome: str) -> Node:
    """A run's outcome."""
    return badge(outcome or "unknown", OUTCOME_TONES.get(outcome, "quiet"))


def facts(pairs: list[tuple[str, Child]]) -> Node:
    """A line of small name-value pairs; pairs without a value are left out."""
    return node(
        "dl",
        *(node("div", node("dt", name), node("dd", value)) for name, value in pairs if value not in (None, "")),
        cls="facts",
    )


def tiles(items: list[tuple[str, str, str, str]]) -> Node:
    """Key figures: (label, value, smaller line below, tone)."""
    return node(
        "div",
        *(
            node(
                "div",
                node("div", label, cls="label"),
                node("div", value, cls=f"value {tone}".strip()),
                node("div", below, cls="below") if below else None,
                cls="tile",
            )
            for label, value, below, tone in items
        ),
        cls=f"tiles n{len(items)}",
    )


def notice(text: str, *more: Child, tone: str = "") -> Node:
    """A line that tells the reader something about what is shown."""
    return node("div", node("span", text), *more, cls=f"notice {tone}".strip())

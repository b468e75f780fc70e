"""What a page shows when it cannot do its work: the store is away, a query is refused, an address makes no sense."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import streamlit as st

from loopscope_dashboards import plain
from loopscope_dashboards.client import QueryRefusedError, StoreError, ask
from loopscope_dashboards.panels.nodes import Child, facts, node

RETRY_SECONDS: Final = 2.0


@contextmanager
def trouble_shown(key: str) -> Generator[None]:
    """Runs a page or a part of one; shows what keeps it from its work in its place. `key` is unique on the page."""
    try:
        yield
    except StoreError as error:
        _show_away(error, key)
    except QueryRefusedError as error:
        say(
            "The store refused this question",
            str(error),
            "A narrower time range or a longer search text asks for less.",
            key=key,
        )


def say(title: str, *lines: Child, key: str) -> None:
    """A message in the place of a page's content."""
    body = [node("p", line) if isinstance(line, str) else line for line in lines]
    plain.draw(node("div", node("h2", title), *body, cls="tree empty"), key=f"say_{key}")


def _show_away(error: StoreError, key: str) -> None:
    plain.draw(
        node(
            "div",
            node("h2", "The store does not answer"),
            node("p", "This page comes back by itself when it does."),
            facts([("What", error.what), ("Address", node("span", error.address, cls="mono")), ("To do", error.to_do)]),
            cls="tree empty away",
        ),
        key=f"away_{key}",
    )
    _wait_for_store()


@st.fragment(run_every=RETRY_SECONDS)
def _wait_for_store() -> None:
    try:
        ask("SELECT 1 FROM runs LIMIT 1", {})
    except (StoreError, QueryRefusedError):
        return
    st.rerun()

"""The pages' logic, run by Streamlit without a browser over the real engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from support.dashboards import READ_KEY, Store
from support.hostile import MARKUP

import loopscope_dashboards
from loopscope_dashboards import access

FOLDER = Path(loopscope_dashboards.__file__).parent


def page(**address: str) -> AppTest:
    """The page at an address."""
    st.cache_data.clear()
    st.cache_resource.clear()
    app = AppTest.from_file(str(FOLDER / "app.py"), default_timeout=60)
    for key, value in address.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, app.exception
    return app


def trees(app: AppTest) -> str:
    """All that the `plain` widgets were given, as one JSON text without escapes."""
    return "\n".join(json.dumps(_data(element), ensure_ascii=False) for element in app.get("bidi_component"))


def _data(element: Any) -> Any:
    proto = element.proto
    return json.loads(proto.json) if proto.json else {}


def texts(node: Any) -> list[str]:
    """All strings of a node tree."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, list) and node:
        return [found for child in node[2:] for found in texts(child)]
    return []


def shown(app: AppTest) -> str:
    """All text that the trees show."""
    found: list[str] = []
    for element in app.get("bidi_component"):
        found += texts(_data(element).get("tree"))
    return "\n".join(found)


def test_the_list_shows_the_newest_runs_and_what_they_cost(in_store: Store) -> None:
    text = shown(page())
    assert "running" in text
    assert "crashed" in text
    assert "$0.1481" in text
    assert "unknown" in text
    assert MARKUP[:60] in text


def test_filters_of_the_address_are_applied(in_store: Store) -> None:
    text = shown(page(agent="unpriced"))
    assert "unpriced" in text
    assert "file-job" not in text
    assert shown(page(outcome="crashed")).count("crashed") >= 1
    assert "No run matches" in shown(page(agent="no such agent"))
    assert "No run matches" in shown(page(q="no such text anywhere"))


def test_nonsense_in_the_address_of_the_list_is_ignored(in_store: Store) -> None:
    assert "support" in shown(page(range="'; DROP TABLE runs", outcome="<script>", q=""))


def test_a_run_is_shown_turn_by_turn(in_store: Store) -> None:
    text = shown(page(run=in_store.runs["support"], turn="3"))
    assert "Turn 3 of 12" in text
    assert "3 earlier messages, unchanged" in text
    assert "Let me look at order W-1003." in text
    assert '"status": "shipped"' in text or '"status":"shipped"' in text
    assert "+23 % vs $0.1200 estimated" in text
    assert "toolu_3" in text


def test_the_first_turn_is_shown_without_a_turn_in_the_address(in_store: Store) -> None:
    assert "Turn 1 of 12" in shown(page(run=in_store.runs["support"]))


def test_what_a_crash_left_unfinished_is_marked(in_store: Store) -> None:
    text = shown(page(run=in_store.runs["crashed"]))
    assert "went silent" in text
    assert "Turn 4 of 4" in text
    assert "unfinished" in text
    assert "No answer: the call has not ended." in text


def test_a_failed_call_says_why(in_store: Store) -> None:
    text = shown(page(run=in_store.runs["failed"]))
    assert "Overloaded: try again later" in text
    assert "overloaded_error (transient)" in text


def test_a_running_run_is_live(in_store: Store) -> None:
    text = shown(page(run=in_store.runs["running"]))
    assert "so far" in text
    assert "Nothing yet." in text


def test_an_inferred_run_and_what_belongs_to_it_are_marked(in_store: Store) -> None:
    """The run and the tool call; steps and limits by name; a duplicate is marked, and no turn of its own."""
    text = shown(page(run=in_store.runs["found"]))
    assert "Turn 1 of 2" in text
    for words in (["inferred"], ["duplicate"], ["fetch orders", "step"], ["max_turns", "limit"]):
        assert "\n".join(words) in text
    assert text.count("inferred") == 4  # the head, the root, the tool call in the timeline and in the turn


def test_a_run_that_is_only_another_recording_says_which_counts(in_store: Store) -> None:
    """It is in no list, but its address still works."""
    tree = trees(page(run=in_store.runs["shadow"]))
    assert "its recording counts" in tree
    assert in_store.runs["found"] in tree
    assert in_store.runs["shadow"] not in trees(page(range="7d"))
    assert "Turn 1 of" in tree


def test_a_large_text_is_cut_and_says_so(in_store: Store) -> None:
    app = page(run=in_store.runs["big"], turn="2")
    assert "Showing 20,000 of 10,485,760 characters." in shown(app)
    assert len(trees(app)) < 200_000


def test_sub_agents_are_part_of_the_timeline_and_link_to_their_run(in_store: Store) -> None:
    tree = trees(page(run=in_store.runs["parent"]))
    assert "helper" in tree
    assert in_store.runs["child"] in tree
    assert in_store.runs["parent"] in trees(page(run=in_store.runs["child"]))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ({"run": "0" * 32}, "No such run"),
        ({"run": "<script>alert(1)</script>"}, "There is no such run"),
        ({"run": "' OR 1=1 --"}, "There is no such run"),
        ({"run": ""}, "No run is chosen"),
    ],
)
def test_addresses_that_name_no_run(address: dict[str, str], expected: str, in_store: Store) -> None:
    assert expected in shown(page(**address))


@pytest.mark.parametrize("turn", ["99", "0", "-1", "abc", "1e9", "99999999999999"])
def test_turns_that_are_not(turn: str, in_store: Store) -> None:
    assert "There is no such turn" in shown(page(run=in_store.runs["support"], turn=turn))


@pytest.mark.parametrize("tab", ["Context", "Prompts", "Record"])
def test_other_tabs(tab: str, in_store: Store) -> None:
    app = page(run=in_store.runs["support"], tab=tab)
    if tab == "Context":
        assert len(app.get("plotly_chart")) == 1
    else:
        expected = {"Prompts": "You are the support agent of a small shop.", "Record": "request parameters"}[tab]
        assert expected in shown(app)


def test_a_store_that_is_away_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_DSN", "clickhouse://reader:very-secret@127.0.0.1:9/loopscope")
    tree = trees(page())
    assert "The store does not answer" in tree
    assert "http://127.0.0.1:9" in tree
    assert "very-secret" not in tree


def test_a_dsn_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_DSN", "chdb:///some/where")
    assert "names a directory" in trees(page())
    monkeypatch.setenv("LOOPSCOPE_DSN", "mysql://x")
    assert "cannot be read" in trees(page())


def test_a_wrong_read_key_of_the_store_is_said(in_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_DSN", in_store.dsn.replace(READ_KEY, "wrong-key-in-dsn"))
    tree = trees(page())
    assert "The store does not answer" in tree
    assert "wrong-key-in-dsn" not in tree


def test_with_read_keys_nothing_is_shown_before_one_is_given(in_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPSCOPE_READ_KEYS", "first-key, second-key")
    monkeypatch.setattr(access, "_WRONG_KEY_SECONDS", 0)
    app = AppTest.from_file(str(FOLDER / "app.py"), default_timeout=60).run()
    assert shown(app) == ""
    app.text_input[0].set_value("nonsense")
    app.button[0].click().run()
    assert shown(app) == ""
    assert "not one of the read keys" in app.error[0].value
    app.text_input[0].set_value("second-key")
    app.button[0].click().run()
    assert "support" in shown(app)
    assert "second-key" not in str(dict(app.query_params))


def test_keys_are_compared_whole() -> None:
    keys = ["first-key", "second-key"]
    assert access.is_key("first-key", keys)
    assert not access.is_key("first-ke", keys)
    assert not access.is_key("", keys)
    assert not access.is_key("first-key,second-key", keys)

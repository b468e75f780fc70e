"""Search over the real engine equals a brute-force scan in Python."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dashboards import Store, engine_in, read_dsn
from support.recorded_runs import SECOND, Rows, Turn, add_run, connect, migrate, text

from loopscope_dashboards.queries import runs as questions
from loopscope_dashboards.queries.runs import RunFilter, list_runs
from loopscope_dashboards.queries.search import MAX_CHARS, needle_of

WORDS = [
    "refund EUR 47.30", "fund eur 4", "ÄRGER über Größe", "STRASSE straße", "don't", "C:\\temp\\new",
    "100 % sure_thing",
    "a%b_c", "'; DROP TABLE runs; --", '{"order_id":"W-1001"}', "line one\nline two", "tab\there", "日本語テキスト",
    "emoji 😀 end", "Kelvin \u212a and İstanbul", "ΣΑΣ σας", "\\\\double\\\\", "order W-1001 shipped", "x", "ü", "--",
    "\\", "%", "_", "'", '"', "😀", "nul\x00byte", "z" * 300, "<b>bold</b>", "{name:String}",
    "$1", "ſharp", "ﬁne", "\u0130",
]  # fmt: skip
PIECES = st.sampled_from(WORDS) | st.text(max_size=12, alphabet=st.characters(codec="utf-8"))
BODIES = st.lists(PIECES, min_size=1, max_size=4).map(" ".join)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Forty runs of one body each in an engine of their own: run id -> body."""
    import random

    order = random.Random(20)
    chosen = [" ".join(order.choices(WORDS, k=order.randint(1, 4))) for _ in range(40)]
    with engine_in(tmp_path_factory.mktemp("search")) as engine:
        client = connect(engine.write_dsn)
        migrate(client)
        rows = Rows()
        now = time.time_ns()
        found: dict[str, str] = {}
        for number, body in enumerate(chosen):
            state = add_run(
                rows, number + 1, [Turn([text(body)], stop_reason="end_turn")], at=now - (number + 1) * SECOND,
                question="q", final_answer="a", system="s",
            )  # fmt: skip
            found[state.run_id] = body
        rows.insert(client)
        # What the engine folds is folded by the engine: the scan below sees the same letters.
        lowered = {
            run: client.query("SELECT lowerUTF8({t:String})", parameters={"t": body}).result_rows[0][0]
            for run, body in found.items()
        }
        yield read_dsn(engine), client, lowered, now


@pytest.mark.parametrize(
    "typed", [*WORDS, "EUR 47", "rder W-100", "TABLE ru", "absent words", "RÖSSE", "größe", "gröss"]
)
def test_known_needles(typed: str, bodies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_to_scan(typed, bodies, monkeypatch)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_of_any_body(data: st.DataObject, bodies: Any) -> None:
    lowered: dict[str, str] = bodies[2]
    if data.draw(st.booleans()):
        body = data.draw(st.sampled_from(sorted(lowered.values())))
        start = data.draw(st.integers(0, len(body) - 1))
        typed = body[start : start + data.draw(st.integers(1, 30))]
    else:
        typed = data.draw(BODIES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert_equal_to_scan(typed, bodies, monkeypatch)


def assert_equal_to_scan(typed: str, bodies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs found are those whose body holds the text."""
    dsn, client, lowered, now = bodies
    monkeypatch.setenv("LOOPSCOPE_DSN", dsn)
    needle = needle_of(typed)
    if needle is None:
        return
    folded = client.query("SELECT lowerUTF8({t:String})", parameters={"t": needle.text}).result_rows[0][0]
    expected = {run for run, body in lowered.items() if folded in body or folded in ("q", "a")}
    wanted = RunFilter(now - 3_600 * SECOND, now + SECOND, text=typed)
    questions.shared_traces.clear()
    list_runs.clear()
    assert {row.run_id for row in list_runs(wanted, limit=500)} == expected


def test_a_text_is_found_in_the_run_that_has_it_not_in_its_neighbours_of_the_trace(in_store: Store) -> None:
    found = list_runs(wide(in_store, "xylophone"))
    assert [row.run_id for row in found] == [in_store.runs["child"]]


def test_both_forms_of_the_question_agree(in_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many shared traces the store works out by itself what is otherwise passed to it."""
    for typed in ("xylophone-7", "order W-1001", "Delegate"):
        list_runs.clear()
        short = list_runs(wide(in_store, typed), limit=500)
        with monkeypatch.context() as patch:
            patch.setattr(questions, "SHARED_MOST", -1)
            list_runs.clear()
            assert list_runs(wide(in_store, typed), limit=500) == short
        list_runs.clear()


def test_tool_results_inputs_and_answers_are_found(in_store: Store) -> None:
    assert in_store.runs["big"] in {row.run_id for row in list_runs(wide(in_store, "89 LOREM ipsum dol"))}
    assert in_store.runs["parent"] in {row.run_id for row in list_runs(wide(in_store, "delegate THIS"))}


def test_a_needle_is_bounded() -> None:
    needle = needle_of("x" * 5_000)
    assert needle is not None
    assert len(needle.text) == MAX_CHARS
    assert needle_of("  \n ") is None


def wide(store: Store, typed: str = "") -> RunFilter:
    """All seeded runs, and a text."""
    return RunFilter(store.now - 86_400 * SECOND, store.now + 86_400 * SECOND, text=typed)

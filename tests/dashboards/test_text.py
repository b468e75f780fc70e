"""What recorded text becomes on a page."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from support.hostile import CONTROLS, CONTROLS_SHOWN

from loopscope_dashboards.text import one_line, plotly_label, visible

ANY_TEXT = st.text(st.characters(codec=None, min_codepoint=0, max_codepoint=0x10FFFF))


def test_every_control_is_shown() -> None:
    assert visible(CONTROLS) == CONTROLS_SHOWN


def test_a_lone_surrogate_is_shown_as_its_escape() -> None:
    assert visible("a\ud800b") == "a\\ud800b"


@given(ANY_TEXT)
def test_nothing_invisible_is_left_and_all_else_stays(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    left = [letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n"]
    assert left == []
    assert not any(
        letter in shown for letter in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u200b\ufeff"
    )
    kept = [letter for letter in text if unicodedata.category(letter)[0] in "LNPSM" and ord(letter) < 0xE0000]
    assert [
        letter for letter in kept if letter not in shown and letter not in "\u115f\u1160\u3164\uffa0\u17b4\u17b5"
    ] == []


@given(ANY_TEXT)
def test_a_plotly_label_holds_no_tag_entity_or_formula(text: str) -> None:
    label = plotly_label(text)
    assert not any(letter in label for letter in "<>$\n")
    assert label.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&") == 0


def test_one_line_says_that_it_was_cut() -> None:
    assert one_line("a\nb  c", 10) == "a b c"
    assert one_line("x" * 11, 10) == "x" * 10 + "\u2026"

"""A message cut into events and put together again is the same message."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopscope.stub.sse import assemble, encode, events_of

TEXT = st.text(max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
BLOCK = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": TEXT, "name": TEXT, "input": st.dictionaries(TEXT, JSON, max_size=3)}
    ),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "tool_use_id": TEXT, "content": JSON}),
)


def message(content: list[Any]) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 2}}
    return {"id": "msg_1", "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


@given(st.lists(BLOCK, max_size=4), st.integers(1, 50))
def test_whole(content: list[Any], chunk_chars: int) -> None:
    whole = message(content)
    events = events_of(whole, chunk_chars)
    assert assemble(events) == whole
    for event in events:
        assert encode(event).count(b"\n\n") == 1


@given(st.lists(BLOCK, max_size=4), st.integers(1, 50), st.integers(0, 99))
def test_cut_off_it_is_a_beginning_of_the_message(content: list[Any], chunk_chars: int, percent: int) -> None:
    whole = message(content)
    events = events_of(whole, chunk_chars)
    cut = assemble(events[: len(events) * percent // 100])
    if cut is None:
        assert len(events) * percent // 100 == 0
        return
    assert cut["usage"]["output_tokens"] in (1, 9)
    for part, block in zip(cut["content"], whole["content"], strict=False):
        assert part["type"] == block["type"]
        for name in ("text", "thinking"):
            assert str(block.get(name)).startswith(part.get(name, "")), name

"""Splitting and joining: JSON = f(shape, bodies), exactly, for anything that is JSON and anything that is not."""

import base64
import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope_schemas.content import (
    Memo,
    MissingContentError,
    Pairs,
    Raw,
    Split,
    dump,
    join,
    parse,
    split_answer,
    split_block,
    split_document,
    split_messages,
    split_text,
)

ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT
KEYS = ANY_TEXT | st.sampled_from(
    ["type", "id", "input", "citations", "cache_control", "content", "text", "name", "data"]
)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_use", "tool_result", "image", "thinking"])},
    optional={
        "text": ANY_TEXT,
        "id": ANY_TEXT,
        "input": JSON_VALUES,
        "content": JSON_VALUES,
        "cache_control": JSON_VALUES,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": ANY_TEXT | st.lists(BLOCKS, max_size=4)}
    ),
    max_size=5,
)
REQUESTS = st.fixed_dictionaries(
    {"model": ANY_TEXT, "max_tokens": st.integers(), "messages": MESSAGES},
    optional={
        "system": ANY_TEXT | st.lists(BLOCKS, max_size=2),
        "tools": st.lists(JSON_VALUES, max_size=3),
        "metadata": JSON_VALUES,
    },
)


def encode(value: Any) -> bytes:
    """JSON as a client may send it: surrogates escaped, everything else as it is."""
    return dump(parse(json.dumps(value))).encode()


def rejoin(split: Split) -> Any:
    """The document from what the store would hold of it."""
    bodies = {block.hash: block.body for block in split.blocks}
    prompts = {prompt.hash: (prompt.body, prompt.shape) for prompt in split.prompts}
    blobs = {blob.hash: blob.data for part in (*split.blocks, *split.prompts) for blob in part.blobs}
    split.shape.encode()  # a store holds UTF-8
    for body in bodies.values():
        body.encode()
    return join(
        split.shape,
        [block.hash for block in split.blocks],
        bodies.__getitem__,
        prompts=[prompt.hash for prompt in split.prompts],
        prompt=prompts.__getitem__,
        blob=blobs.__getitem__,
    )


@given(JSON_VALUES)
def test_parse_and_dump_are_inverse(value: Any) -> None:
    """What json.dumps writes is read and written back to an equal document."""
    text = json.dumps(value)
    assert json.loads(dump(parse(text))) == value


@pytest.mark.parametrize(
    "text",
    [
        "12345678901234567890123",
        "1.0000000000000000000001",
        "1e400",
        "-0.0",
        '{"a":1,"a":2}',
        '"\\ud800"',
        '"\x01\x00"',
        '{"b":1,"a":{"z":[],"y":{}}}',
    ],
)
def test_nothing_is_rounded_merged_or_refused(text: str) -> None:
    """Big integers, long decimals, repeated keys, lone surrogates, control characters and key order stay."""
    assert parse(dump(parse(text))) == parse(text)
    assert type(parse(dump(parse(text)))) is type(parse(text))


def test_repeated_keys_stay_pairs() -> None:
    """A dict would keep the last one only."""
    assert parse('{"a":1,"a":2}') == Pairs([("a", Raw("1")), ("a", Raw("2"))])


@given(REQUESTS)
def test_a_request_is_rebuilt_exactly(request: dict[str, Any]) -> None:
    """Any request equals what is joined from its blocks, prompts and shape."""
    body = encode(request)
    assert dump(rejoin(split_document(body))) == dump(parse(body))


@given(st.lists(BLOCKS, max_size=3), MESSAGES, MESSAGES)
def test_a_memo_changes_no_result(system: list[Any], first: list[Any], more: list[Any]) -> None:
    """A growing history splits the same with the memo of the request before and without."""
    memo = Memo()
    for messages in (first, first + more, more, first):
        body = encode({"model": "m", "system": system, "messages": messages})
        with_memo, without = split_document(body, memo), split_document(body)
        assert with_memo.shape == without.shape
        assert [block.hash for block in with_memo.blocks] == [block.hash for block in without.blocks]
        assert [block.body for block in with_memo.blocks] == [block.body for block in without.blocks]
        assert [prompt.hash for prompt in with_memo.prompts] == [prompt.hash for prompt in without.prompts]


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.randoms(use_true_random=False), st.data())
def test_a_memo_changes_no_result_wherever_things_stand(
    turns: list[list[Any]], chance: Any, data: st.DataObject
) -> None:
    """Keys before and behind the messages in any order, spaces, a moving cache breakpoint, answers in between."""
    memo = Memo()
    history: list[Any] = []
    for turn in turns:
        history = [*history, *turn]
        messages = list(history)
        if messages and chance.random() < 0.7:
            place = chance.randrange(len(messages))
            marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
            messages[place] = {**messages[place], "content": [marked]}
        if chance.random() < 0.2:
            messages.append(chance.choice([1, 12, "a", "ab", None, [1]]))
        system, number = "s" * chance.randrange(3), chance.randrange(3)
        members: list[Any] = [("model", "m"), ("messages", messages), ("system", system), ("n", number)]
        if chance.random() < 0.3:
            members.append(("tools", [{"name": "t"}]))
        if chance.random() < 0.3:
            chance.shuffle(members)
        text = json.dumps(dict(members), indent=chance.choice([None, None, None, 1]))
        if chance.random() < 0.1:
            text = text[: chance.randrange(len(text))]
        answer = encode({"role": "assistant", "content": data.draw(st.lists(BLOCKS, max_size=2))})
        for split, body in ((split_document, text.encode()), (split_answer, answer)):
            with_memo, without = split(body, memo), split(body)
            assert with_memo.shape == without.shape
            for name in ("hash", "body", "role", "kind", "source"):
                assert [getattr(b, name) for b in with_memo.blocks] == [getattr(b, name) for b in without.blocks]
            assert [prompt.hash for prompt in with_memo.prompts] == [prompt.hash for prompt in without.prompts]
            assert with_memo.params == without.params
            assert [message.shape for message in with_memo.messages] == [m.shape for m in without.messages]
            assert with_memo.params_text in (None, dump(with_memo.params))
            rejoin(with_memo)


COMMON = st.one_of(
    ANY_TEXT,
    st.fixed_dictionaries({"type": st.just("text"), "text": ANY_TEXT | st.just("x" * 300)}),
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "tool_use_id": ANY_TEXT | st.just("%d"), "content": ANY_TEXT | SCALARS}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": ANY_TEXT,
            "name": ANY_TEXT,
            "input": st.dictionaries(KEYS | st.just("data"), JSON_VALUES | st.just("A" * 300), max_size=3),
        }
    ),
)


@given(COMMON | BLOCKS)
def test_common_blocks_are_split_as_all_are(block: Any) -> None:
    """The quick way for text, calls and results gives what the general one does."""
    turned = {key: block[key] for key in reversed(block)} if isinstance(block, dict) else block
    for value in (parse(encode(block)), parse(encode(turned))):
        quick = split_block("user", value)
        with patch("loopscope_schemas.content.blocks._split_plain", return_value=None):
            assert split_block("user", value) == quick


@given(st.lists(BLOCKS, max_size=3), JSON_VALUES)
def test_an_answer_is_rebuilt_exactly(content: list[Any], more: Any) -> None:
    """Whatever else it holds."""
    body = encode({"id": "m", "role": "assistant", "content": content, "usage": more, "tools": more})
    assert dump(rejoin(split_answer(body))) == dump(parse(body))


@given(MESSAGES)
def test_a_message_array_is_rebuilt_exactly(messages: list[Any]) -> None:
    """The same for the array that OpenTelemetry's attribute holds."""
    text = encode(messages).decode()
    assert dump(rejoin(split_messages(text))) == dump(parse(text))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_kept(data: bytes) -> None:
    """Nothing raises, nothing is lost."""
    split = split_document(data)
    rebuilt = rejoin(split)
    if isinstance(rebuilt, str):
        assert rebuilt.encode("utf-8", "surrogateescape") == data
    else:
        assert rebuilt == parse(data)


@given(JSON_VALUES | st.binary().map(lambda data: data.decode("latin-1")))
def test_tool_texts_are_kept(value: Any) -> None:
    """Arguments and results of tools: JSON or not."""
    for kind in ("tool_call", "tool_result"):
        text = encode(value).decode()
        assert dump(rejoin(split_text("tool", kind, text))) == dump(parse(text))
        plain = f"no json: {text}"
        assert rejoin(split_text("tool", kind, plain)) == plain


def test_a_moving_cache_breakpoint_changes_no_hash() -> None:
    """The block is the same block; only its shape differs."""
    plain, plain_shape = split_block("user", {"type": "text", "text": "hello"})
    marked, marked_shape = split_block(
        "user", {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    )
    assert plain.hash == marked.hash
    assert plain_shape != marked_shape
    as_string, _ = split_block("user", "hello")
    assert as_string.hash == plain.hash


def test_role_type_and_ids_change_the_hash() -> None:
    """Equal words of two speakers, or results of two calls, are two blocks."""
    hashes = {
        split_block(role, block)[0].hash
        for role, block in [
            ("user", "yes"),
            ("assistant", "yes"),
            ("assistant", {"type": "thinking", "thinking": "yes"}),
            ("user", {"type": "tool_result", "tool_use_id": "a", "content": "yes"}),
            ("user", {"type": "tool_result", "tool_use_id": "b", "content": "yes"}),
        ]
    }
    assert len(hashes) == 5


def test_a_body_reads_as_a_person_would_search_it() -> None:
    """Line breaks are line breaks; a tool's input is `name: value`; its result carries the tool's name."""
    split = split_document(
        encode(
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [
                            {
                                "type": "tool_use",
                                "id": "t1",
                                "name": "refund",
                                "input": {"amount": 47.30, "order": {"id": "W-1"}},
                            }
                        ],
                    },
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "t1",
                                "content": [{"type": "text", "text": "not\neligible"}],
                            }
                        ],
                    },
                ]
            }
        )
    )
    assert [(block.source, block.tool, block.body) for block in split.blocks] == [
        ("tool_call", "refund", "refund\namount: 47.3\nid: W-1"),
        ("tool_result", "refund", "not\neligible"),
    ]


@given(st.permutations(["type", "id", "name", "input", "caller"]), JSON_VALUES, ANY_TEXT)
def test_a_tool_call_is_one_block_in_any_order_of_its_keys(order: list[str], input_: Any, name: str) -> None:
    """A client sends back what it was given with its keys in another order."""
    call = {
        "type": "tool_use",
        "id": "t1",
        "name": name,
        "input": {"query": input_, "n": 1},
        "caller": {"type": "direct"},
    }
    ordered = {key: call[key] for key in order}
    body = encode({"messages": [{"role": "assistant", "content": [ordered]}]})
    split = split_document(body)
    assert dump(rejoin(split)) == dump(parse(body))
    first = split_document(encode({"messages": [{"role": "assistant", "content": [call]}]}))
    if name and name.isprintable():
        assert split.blocks[0].hash == first.blocks[0].hash
        assert split.blocks[0].body == first.blocks[0].body


def test_binaries_leave_the_text() -> None:
    """An image's base64 is stored as bytes, once, and is no text to search."""
    data = base64.b64encode(bytes(range(256)) * 4).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    split = split_document(encode({"messages": [{"role": "user", "content": [image, image]}]}))
    assert split.blocks[0].body == ""
    assert split.blocks[0].blobs[0].data == bytes(range(256)) * 4
    assert rejoin(split) == {"messages": [{"role": "user", "content": [image, image]}]}


def test_very_deep_json_is_kept_whole() -> None:
    """Deeper than Python can walk: one opaque block."""
    body = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert rejoin(split_document(body)) == body.decode()


def test_missing_text_is_said() -> None:
    """A hash that is not in the store is an error that names it."""
    split = split_document(encode({"messages": [{"role": "user", "content": "hello"}]}))
    with pytest.raises(MissingContentError, match=split.blocks[0].hash.hex()):
        join(split.shape, [split.blocks[0].hash], {}.__getitem__)

"""Through the store and back: every request and answer is rebuilt exactly."""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.telemetry import NOW, SECOND, Conversation, record

from loopscope_schemas import recall
from loopscope_schemas.content import MissingContentError, dump, parse
from loopscope_schemas.rows import NANOSECONDS_PER_DAY

IMAGE = base64.b64encode(bytes(range(256)) * 8).decode()
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
BLOCKS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": ANY_TEXT}, optional={"citations": st.none() | st.just([1])}
    ),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": ANY_TEXT, "signature": st.just("A" * 300)}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": st.text("abc", min_size=1, max_size=3),
            "name": ANY_TEXT,
            "input": st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.booleans() | st.none(), max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_result"),
            "tool_use_id": st.text("abc", min_size=1, max_size=3),
            "content": ANY_TEXT
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": ANY_TEXT}), max_size=2),
        },
        optional={"cache_control": st.just({"type": "ephemeral"}), "is_error": st.booleans()},
    ),
)
CONTENTS = st.lists(BLOCKS, max_size=3)


def assert_rebuilt(world: Any, *runs: Conversation) -> None:
    """Every call of the runs, as the store tells it."""
    for run in runs:
        calls = recall.fetch_run(world.store.query, run.run_id, database=world.store.database)
        assert {call.span_id for call in calls} == set(run.bodies)
        for call in calls:
            sent, answered = run.bodies[call.span_id]
            assert dump(call.request()) == dump(parse(sent))
            assert dump(call.response()) == dump(parse(answered))


def test_every_kind_of_content(world: Any) -> None:
    """Images, nested results, thinking, cache marks, NUL and control characters, big numbers, key order."""
    run = Conversation(system=[{"type": "text", "text": "Regeln: ü\x00", "cache_control": {"type": "ephemeral"}}])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
    tools = [{"name": "f", "input_schema": {"type": "object", "properties": {"z": {}, "a": {"maximum": 10**30}}}}]
    run.call(
        [image, {"type": "text", "text": "what\x00 is \x1b[31m\u2028 this? \U0001f600"}],
        [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln" * 200},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 12345678901234567890123, "a": {"b": [None]}}},
        ],
        tools=tools,
        metadata={"user_id": "ü"},
    )
    run.call(
        [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "no\\nbreak"}, image],
                "cache_control": {"type": "ephemeral"},
            }
        ],
        [{"type": "text", "text": "done", "citations": [{"type": "char_location", "cited_text": "x" * 300}]}],
        tools=tools,
    )
    world.write(record(run.spans))
    assert_rebuilt(world, run)
    assert world.rows("SELECT count() FROM db.blobs_data") == [(2,)]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CONTENTS | ANY_TEXT, CONTENTS), min_size=1, max_size=3), st.data())
def test_any_conversation(world: Any, turns: list[tuple[Any, list[Any]]], data: st.DataObject) -> None:
    """Whatever is said, cut into segments anywhere."""
    run = Conversation(name=f"any-{data.draw(st.integers(0, 2**64))}")
    for said, answer in turns:
        run.call(said, answer)
    at = data.draw(st.integers(0, len(run.spans)))
    for part in (run.spans[:at], run.spans[at:]):
        world.write(record(part))
    assert not world.aside
    assert_rebuilt(world, run)


def test_a_message_of_ten_megabytes(world: Any) -> None:
    """In full, to the last character."""
    run = Conversation()
    run.call("start " + "äöü word " * 1_000_000 + " end", [{"type": "text", "text": "long"}])
    world.write(record(run.spans))
    assert_rebuilt(world, run)
    assert world.rows("SELECT max(bytes) > 10000000 FROM db.messages") == [(True,)]


def test_what_protobuf_and_json_cannot_hold(world: Any) -> None:
    """Lone surrogates through a tool: escaped reversibly, the batch is kept."""
    run = Conversation()
    run.tool("f", "t", {"text": "\ud800"}, "a \udfff b")
    world.write(record(run.spans))
    ((arguments, result),) = world.rows("SELECT arguments, result FROM db.tool_calls")
    assert (json.loads(arguments), json.loads(result)) == ({"text": "\ud800"}, "a \udfff b")
    assert not world.aside


def test_each_day_is_complete_by_itself(world: Any) -> None:
    """A run across midnight: when the first day's partitions are dropped, the second day's calls are still whole."""
    midnight = (NOW // NANOSECONDS_PER_DAY + 1) * NANOSECONDS_PER_DAY
    run = Conversation(start=midnight - 2 * SECOND)
    for turn in range(5):
        run.call(f"question {turn}", [{"type": "text", "text": f"answer {turn}"}], tools=[{"name": "t"}])
    received = midnight + 60 * SECOND
    world.write(record(run.spans[:2], received_at=received))
    world.write(record(run.spans[2:], received_at=received))
    first_day = world.rows("SELECT toString(min(day)) FROM db.spans_data")[0][0]
    for table in ("spans_data", "messages_data", "prompts_data", "blobs_data"):
        world.store.command(f"ALTER TABLE {world.store.database}.{table} DROP PARTITION '{first_day}'")
    calls = recall.fetch_run(world.store.query, run.run_id, database=world.store.database)
    assert 0 < len(calls) < 5
    for call in calls:
        assert dump(call.request()) == dump(parse(run.bodies[call.span_id][0]))


def test_missing_text_is_said(world: Any) -> None:
    """Never a gap: the error names the block."""
    run = Conversation()
    run.call("hello", [])
    world.write(record(run.spans))
    world.store.command(f"TRUNCATE TABLE {world.store.database}.messages_data")
    (call,) = recall.fetch_run(world.store.query, run.run_id, database=world.store.database)
    with pytest.raises(MissingContentError, match=call.hashes[0]):
        call.request()
    with pytest.raises(recall.CallNotFoundError, match="0000"):
        recall.fetch_request(world.store.query, "0000", database=world.store.database)


def stored_bytes(world: Any) -> int:
    """Bytes of all active parts."""
    for table in ("spans_data", "messages_data", "blobs_data", "prompts_data"):
        world.store.command(f"OPTIMIZE TABLE {world.store.database}.{table} FINAL")
    sql = (
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {name:String} AND table LIKE '%_data'"
    )
    return int(world.rows(sql, name=world.store.database)[0][0])


def test_stored_size_grows_with_the_turns_not_with_their_square(world: Any) -> None:
    """Fifty turns take at most 2.2 times what twenty-five take."""
    sizes: list[int] = []
    for turns in (25, 50):
        for table in ("spans_data", "messages_data", "blobs_data", "prompts_data", "run_state_data"):
            world.store.command(f"TRUNCATE TABLE {world.store.database}.{table}")
        world.ingest.forget_content()
        runs = [Conversation(name=f"size-{turns}-{number}") for number in range(8)]
        for run in runs:
            for turn in range(turns):
                noise = " ".join(f"{(turn * 7919 + number * 104729) % 99991:x}" for number in range(300))
                run.call(f"question {run.name} {turn} {noise}", [{"type": "text", "text": f"{noise[::-1]} {turn}"}])
            world.write(record(run.spans))
        sizes.append(stored_bytes(world))
    assert sizes[1] <= 2.2 * sizes[0]

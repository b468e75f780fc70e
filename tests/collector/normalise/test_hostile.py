"""What no instrumentation should send: kept, marked, and never at the cost of its neighbours."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.telemetry import NOW, SECOND, put, record, span

from loopscope_collector.arrow import to_table
from loopscope_collector.normalise import Context, NotTelemetryError, normalise, single_spans
from loopscope_collector.queue import Record
from loopscope_schemas import attributes as at
from loopscope_schemas.rows import NANOSECONDS_PER_DAY, EventRow, MessageRow, SpanRow

RECEIVED = NOW + 2 * SECOND
NAMES = [value for name, value in vars(at).items() if name.isupper() and isinstance(value, str)]
VALUES = st.recursive(
    st.text(max_size=30) | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def one(made: Span, **more: Any) -> SpanRow:
    """The row of a span."""
    batch = normalise(record([made], **more), context=Context())
    assert not batch.refused, batch.refused
    return batch.spans[0]


@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=10), VALUES, max_size=12),
    st.sampled_from(["chat", "execute_tool", "invoke_agent", "embeddings", ""]),
    st.sampled_from(["loopscope", "opentelemetry.instrumentation.genai.anthropic", "x"]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_any_span_becomes_a_row_that_the_store_can_hold(
    attributes: dict[str, Any], operation: str, scope: str, start: int, end: int
) -> None:
    """Any attribute of any type, any time: a row, and Arrow takes it."""
    made = span("x", start=start, end=end)
    put(made, {at.OPERATION_NAME: operation, **attributes})
    made.events.add(name="e", time_unix_nano=end)
    put(made.events[0], attributes)
    batch = normalise(record([made], scope=scope), context=Context())
    assert not batch.refused, batch.refused[0].reason
    for row_type, rows in ((SpanRow, batch.spans), (MessageRow, batch.messages), (EventRow, batch.events)):
        assert to_table(row_type, rows).num_rows == len(rows)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.text("xyzäß", min_size=1, max_size=30), max_size=12),
    st.sampled_from(["chat", "execute_tool", "invoke_agent", "other"]),
    st.sampled_from(["loopscope", "somebody.elses"]),
)
def test_no_attribute_is_lost(attributes: dict[str, str], operation: str, scope: str) -> None:
    """Each text that was sent can be found in the row, in a message or in a prompt."""
    made = span("x")
    put(made, {**attributes, at.OPERATION_NAME: operation})
    batch = normalise(record([made], scope=scope), context=Context())
    (row,) = batch.spans
    texts = [str(getattr(row, item.name)) for item in dataclasses.fields(row)]
    texts += [message.body for message in batch.messages] + [prompt.body for prompt in batch.prompts]
    for key, value in attributes.items():
        assert key == at.OPERATION_NAME or any(value in text for text in texts), key


@pytest.mark.parametrize(
    "start", [0, 1, NOW - 400 * NANOSECONDS_PER_DAY, RECEIVED + 2 * NANOSECONDS_PER_DAY, 2**64 - 1]
)
def test_a_start_out_of_range_is_filed_under_the_day_received(start: int) -> None:
    """The start stays, as far as the store can hold it, and the mark says what it was."""
    row = one(span("x", start=start, end=start))
    assert row.day == RECEIVED // NANOSECONDS_PER_DAY
    assert row.start_time == min(start, 2**63 - 1)
    assert json.loads(row.cut)["start_time"]["was"] == start


def test_an_end_before_the_start() -> None:
    """Kept and marked."""
    row = one(span("x", start=NOW, end=NOW - SECOND))
    assert row.end_time == NOW - SECOND
    assert "end_time" in json.loads(row.cut)


@pytest.mark.parametrize("trace_id", [b"", bytes(16), b"short"])
def test_spans_without_ids_stay_apart(trace_id: bytes) -> None:
    """Ids made from their content: two spans never become one row, the same span does."""
    first, second = span("a", trace=trace_id), span("b", trace=trace_id)
    first.span_id = second.span_id = bytes(8)
    rows = normalise(record([first, second, first]), context=Context()).spans
    assert len({(row.trace_id, row.span_id) for row in rows}) == 2
    assert set(json.loads(rows[0].cut)) == {"trace_id", "span_id"}
    assert [found[:2] for found in single_spans(record([first]))] == [(rows[0].trace_id, rows[0].span_id)]


def test_a_long_attribute_becomes_a_message() -> None:
    """Its beginning in the map, all of it to be found, the mark names the block."""
    text = "needle " * 20_000
    made = span("x", somebodys__text=text)
    made.events.add(name="exception", time_unix_nano=NOW).attributes.add(
        key=at.EXCEPTION_STACKTRACE
    ).value.string_value = text
    batch = normalise(record([made]), context=Context())
    (row,) = batch.spans
    cut = json.loads(row.cut)
    hashes = {message.hash.hex(): message for message in batch.messages}
    assert hashes[cut["somebodys.text"]["block"]].body == text
    assert hashes[cut["exception[0].exception.stacktrace"]["block"]].body == text
    assert len(row.attributes["somebodys.text"]) < 300
    assert len(batch.events[0].attributes[at.EXCEPTION_STACKTRACE]) < 300


def test_what_the_sender_cut_is_kept() -> None:
    """Its own marks and the limits of its SDK."""
    made = span("x")
    put(made, {at.CUT: '{"loopscope.response.body":{"left_out_bytes":5}}'})
    made.dropped_attributes_count = 3
    cut = json.loads(one(made).cut)
    assert cut["loopscope.response.body"] == {"left_out_bytes": 5}
    assert cut["attributes"]["left_out"] == 3


def test_a_run_id_that_is_no_id() -> None:
    """Ids are hex digits; another is kept as an attribute and its digest stands for it, always the same."""
    first, second = (one(span(name, loopscope__run__id="'; DROP TABLE runs")) for name in "ab")
    assert first.run_id == second.run_id
    assert set(first.run_id) <= set("0123456789abcdef")
    assert first.attributes[at.RUN_ID] == "'; DROP TABLE runs"


def test_a_bad_span_does_not_cost_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set aside alone, with its resource and the reason."""
    from loopscope_collector.normalise import loopscope

    real = loopscope.translate

    def fails_for_one(draft: Any) -> None:
        if draft.span.name == "bad":
            raise RuntimeError("of its own making")
        real(draft)

    monkeypatch.setattr(loopscope, "translate", fails_for_one)
    batch = normalise(record([span("a"), span("bad"), span("b")]), context=Context())
    assert [row.name for row in batch.spans] == ["a", "b"]
    (refused,) = batch.refused
    assert refused.reason == "RuntimeError: of its own making"
    alone = ExportTraceServiceRequest.FromString(refused.body)
    assert [item.name for item in alone.resource_spans[0].scope_spans[0].spans] == ["bad"]
    assert alone.resource_spans[0].resource.attributes


def test_bytes_that_are_no_telemetry() -> None:
    """Said, not guessed."""
    with pytest.raises(NotTelemetryError, match="no ExportTraceServiceRequest"):
        normalise(Record("traces", "protobuf", NOW, b"\xff\xff"), context=Context())
    with pytest.raises(NotTelemetryError, match="json"):
        normalise(Record("traces", "json", NOW, b"{}"), context=Context())

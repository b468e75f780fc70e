"""Bedrock's frames: read as botocore reads them; what is damaged or cut ends the reading and nothing else."""

import base64
import contextlib
import json
import struct
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from loopscope._internal.anthropic.assembly import events
from loopscope._internal.anthropic.eventstream import as_server_sent_events, frames

from .aws_frames import chunk_frame, exception_frame, frame
from .provider_server import stream_events

HEADERS = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=60), max_size=5)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=6)


def by_botocore(body: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """What botocore reads before it fails, if it does."""
    buffer, found = EventStreamBuffer(), list[tuple[dict[str, Any], bytes]]()
    buffer.add_data(body)
    with contextlib.suppress(ParserError, UnicodeDecodeError):  # the frames before the damage are what counts
        found += ((message.headers, message.payload) for message in buffer)
    return found


@given(FRAMES)
def test_frames_are_what_botocore_reads(written: list[tuple[dict[str, str], bytes]]) -> None:
    body = b"".join(frame(headers, payload) for headers, payload in written)
    assert list(frames(body)) == written == by_botocore(body)


@given(FRAMES, st.integers(0, 3000), st.binary(max_size=40))
def test_damage_ends_the_reading_where_it_ends_botocores(
    written: list[tuple[dict[str, str], bytes]], cut: int, noise: bytes
) -> None:
    body = b"".join(frame(headers, payload) for headers, payload in written)
    damaged = body[:cut] + noise + body[cut + len(noise) :]
    assert list(frames(damaged)) == by_botocore(damaged)


@given(st.binary(max_size=300))
def test_noise_is_no_frame_and_no_error(noise: bytes) -> None:
    assert as_server_sent_events(noise) == b"" or list(frames(noise))


def test_other_header_types_are_passed_over() -> None:
    body = frame({":message-type": "event"}, b"{}")
    assert [each.headers for each in frames(body)] == [{":message-type": "event"}]
    typed = {0: b"", 1: b"", 2: b"\1", 3: b"\1\2", 4: b"1234", 5: b"12345678", 8: b"12345678", 9: b"1" * 16}
    for kind, value in {**typed, 6: b"\0\3abc"}.items():
        made = _frame_with_raw_headers(b"\1x" + bytes([kind]) + value)
        assert [each.headers for each in frames(made)] == [{}]
        assert len(by_botocore(made)) == 1
    assert list(frames(_frame_with_raw_headers(b"\1x\x0a"))) == []


def _frame_with_raw_headers(head: bytes) -> bytes:
    prelude = struct.pack("!II", 16 + len(head), len(head))
    begun = prelude + struct.pack("!I", crc32(prelude)) + head
    return begun + struct.pack("!I", crc32(begun))


@given(st.integers(0, 6000))
def test_every_beginning_of_a_stream_gives_its_first_events(cut: int) -> None:
    body = b"".join(map(chunk_frame, stream_events()))
    found = list(events(as_server_sent_events(body[:cut])))
    assert found == stream_events()[: len(found)]
    assert (len(found) == len(stream_events())) is (cut >= len(body))


def test_an_exception_is_an_error_event() -> None:
    (event,) = events(as_server_sent_events(exception_frame("throttlingException", "slow down")))
    assert event == {"type": "error", "error": {"type": "throttlingException", "message": "slow down"}}


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"bytes": 7}', b'{"bytes": "%%"}', b'{"bytes": "W10="}'])
def test_frames_without_an_event_are_passed_over(payload: bytes) -> None:
    assert as_server_sent_events(frame({":event-type": "chunk"}, payload)) == b""


def test_json_with_line_breaks_stays_one_event() -> None:
    data = json.dumps({"type": "ping", "n": [1, 2]}, indent=1).encode()
    body = frame({":event-type": "chunk"}, json.dumps({"bytes": base64.b64encode(data).decode()}).encode())
    assert list(events(as_server_sent_events(body))) == [{"type": "ping", "n": [1, 2]}]

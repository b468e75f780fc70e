"""What the receiver refuses: clearly, counted, and without harm to itself or to neighbours."""

import gzip
import json
import os
import socket
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.otlp import JSON, PROTOBUF, request_with
from support.receiver import Running, StartReceiver

GOOD = request_with("neighbour").SerializeToString()
MIB = 1 << 20
ZIPPED = {"content-encoding": "gzip"}


def status_message(content_type: str, body: bytes) -> tuple[int, str]:
    """Code and message of a google.rpc.Status, read by hand."""
    if content_type == "application/json":
        parsed = json.loads(body)
        return parsed["code"], parsed["message"]
    assert content_type == "application/x-protobuf"
    assert body[0] == 0x08
    assert body[2] == 0x12
    at, length, shift = 3, 0, 0
    while True:
        length |= (body[at] & 0x7F) << shift
        shift += 7
        at += 1
        if body[at - 1] < 0x80:
            break
    assert at + length == len(body)
    return body[1], body[at:].decode()


CASES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "garbage": ({"content": b"garbage!", "headers": PROTOBUF}, 400, "undecodable", "body of 8 bytes is no OTLP"),
    "garbage json": ({"content": b"garbage!", "headers": JSON}, 400, "undecodable", "not JSON"),
    "truncated": ({"content": GOOD[:-3], "headers": PROTOBUF}, 400, "undecodable", "no OTLP trace request"),
    "truncated json": ({"content": b'{"resourceSpans":[', "headers": JSON}, 400, "undecodable", "not JSON"),
    "array": ({"content": b"[]", "headers": JSON}, 400, "undecodable", "is a JSON array"),
    "no spans": ({"content": b'{"resourceLogs":[]}', "headers": JSON}, 400, "undecodable", "no resourceSpans"),
    "wrong shape": ({"content": b'{"resourceSpans":{"a":1}}', "headers": JSON}, 400, "undecodable", "not an array"),
    "bad scope": (
        {"content": b'{"resourceSpans":[{"scopeSpans":[{"scope":3}]}]}', "headers": JSON},
        400,
        "undecodable",
        "scopeSpans[0].scope is a JSON number",
    ),
    "deep json": ({"content": b"[" * 100_000, "headers": JSON}, 400, "undecodable", "nests too deeply"),
    "NaN": ({"content": b'{"resourceSpans":NaN}', "headers": JSON}, 400, "undecodable", "NaN is not JSON"),
    "oversized": ({"content": bytes(MIB + 1), "headers": PROTOBUF}, 413, "body_bytes", "1048577 bytes"),
    "bad gzip": ({"content": b"x" * 50, "headers": PROTOBUF | ZIPPED}, 400, "gzip", "not valid gzip"),
    "empty gzip": ({"content": b"", "headers": PROTOBUF | ZIPPED}, 400, "gzip", "not valid gzip"),
    "cut gzip": ({"content": gzip.compress(GOOD)[:-5], "headers": PROTOBUF | ZIPPED}, 400, "gzip", "breaks off"),
    "gzip and junk": (
        {"content": gzip.compress(GOOD) + b"junk", "headers": PROTOBUF | ZIPPED},
        400,
        "gzip",
        "not valid",
    ),
    "zlib": ({"content": zlib.compress(GOOD), "headers": PROTOBUF | ZIPPED}, 400, "gzip", "not valid gzip"),
    "bomb": (
        {"content": gzip.compress(bytes(500 * MIB), 9)[: MIB - 1], "headers": PROTOBUF | ZIPPED},
        413,
        "decompressed_bytes",
        "more than 4194304 bytes after decompression",
    ),
    "text": ({"content": GOOD, "headers": {"content-type": "text/plain"}}, 415, "content_type", "'text/plain'"),
    "no type": ({"content": GOOD}, 415, "content_type", "Content-Type '' is not accepted"),
    "zstd": (
        {"content": GOOD, "headers": PROTOBUF | {"content-encoding": "zstd"}},
        415,
        "content_encoding",
        "send one of: gzip, identity",
    ),
    "spans": (
        {"content": request_with(*["s"] * 1001).SerializeToString(), "headers": PROTOBUF},
        413,
        "spans",
        "1001 spans, more than 1000",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_gets_a_clear_answer_and_harms_nobody(receiver: Running, name: str) -> None:
    arguments, status, reason, text = CASES[name]
    answer = receiver.client.post("/v1/traces", **arguments)
    assert answer.status_code == status
    code, message = status_message(answer.headers["content-type"], answer.content)
    assert code > 0
    assert text in message
    if arguments.get("headers", {}).get("content-type") in ("application/json", "application/x-protobuf"):
        assert answer.headers["content-type"] == arguments["headers"]["content-type"]
    assert receiver.refused(reason) == 1
    assert receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF).status_code == 200
    assert receiver.kept_spans() == ["neighbour"]


def test_a_chunked_body_beyond_the_bound_is_cut_off(receiver: Running) -> None:
    endless = (bytes(65536) for _ in range(40))
    answer = receiver.client.post("/v1/traces", content=endless, headers=PROTOBUF)
    assert answer.status_code == 413
    assert receiver.refused("body_bytes") == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/traces", 405, "use POST"),
        ("PUT", "/loopscope/v1/starts", 405, "use POST"),
        ("POST", "/metrics", 405, "use GET or HEAD"),
        ("POST", "/v1/logs", 404, "nothing at '/v1/logs'; here are POST /v1/traces"),
        ("GET", "/", 404, "nothing at '/'"),
    ],
)
def test_wrong_methods_and_paths_say_what_is_right(
    receiver: Running, method: str, path: str, status: int, text: str
) -> None:
    answer = receiver.client.request(method, path)
    assert answer.status_code == status
    assert text in answer.json()["message"]
    assert status != 405 or "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_a_full_queue_sends_senders_away_for_a_while(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(queue_max_bytes=2000)
    big = request_with("big", text="x" * 1500).SerializeToString()
    assert receiver.client.post("/v1/traces", content=big, headers=PROTOBUF).status_code == 200
    answer = receiver.client.post("/v1/traces", content=big, headers=PROTOBUF)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert (
        "of at most 2000 that the store has not taken"
        in status_message(answer.headers["content-type"], answer.content)[1]
    )
    assert receiver.kept_spans() == ["big"]
    assert receiver.client.post("/v1/traces", content=big, headers=PROTOBUF).status_code == 200


def test_a_sender_that_falls_silent_is_cut_off_and_others_are_served(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(body_idle_seconds=0.2)
    with socket.create_connection(("127.0.0.1", receiver.server.port), timeout=30) as slow:
        slow.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 1000\r\n\r\nabc"
        )
        assert receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF).status_code == 200
        answer = b""
        while piece := slow.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert receiver.refused("idle") == 1
    assert receiver.kept_spans() == ["neighbour"]


def test_a_sender_that_leaves_midway_leaves_nothing(receiver: Running) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", receiver.server.port), timeout=30) as leaving:
            leaving.sendall(
                b"POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
                b"Content-Length: 1000\r\n\r\n" + GOOD
            )
    assert receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF).status_code == 200
    assert receiver.kept_spans() == ["neighbour"]


def test_bodies_on_their_way_are_bounded_together(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(inflight_max_bytes=100_000)
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 90001\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", receiver.server.port), timeout=30) as first:
        first.sendall(head + bytes(90_000))
        while "loopscope_receiver_inflight_bytes 90000\n" not in receiver.client.get("/metrics").text:
            pass  # the test's own time limit ends this
        large = request_with("large", text="x" * 50_000).SerializeToString()
        assert receiver.client.post("/v1/traces", content=large, headers=PROTOBUF).status_code == 503
        first.sendall(b"\0")
        assert first.recv(100).startswith(b"HTTP/1.1 400 ")
    assert receiver.refused("inflight_bytes") == 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from([PROTOBUF, JSON, PROTOBUF | ZIPPED, JSON | ZIPPED]))
def test_no_bytes_at_all_make_it_fail(receiver: Running, body: bytes, headers: dict[str, str]) -> None:
    answer = receiver.client.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code in (200, 400)
    assert receiver.refused("internal") == 0


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_of_a_good_body_makes_it_fail(receiver: Running, data: st.DataObject) -> None:
    body = bytearray(request_with("one", "two", key="value", other="x" * 40).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    answer = receiver.client.post("/v1/traces", content=bytes(body), headers=PROTOBUF)
    assert answer.status_code in (200, 400)
    assert receiver.refused("internal") == 0


def test_a_disk_without_room_refuses_and_keeps_what_it_had(start_receiver: StartReceiver) -> None:
    from collections.abc import Sequence

    from loopscope_collector.queue.files import Files

    class FullDisk(Files):
        full = False

        def write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
            if self.full:
                raise OSError(28, os.strerror(28))
            super().write(descriptor, pieces)

    files = FullDisk()
    receiver = start_receiver(files=files)
    assert receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF).status_code == 200
    files.full = True
    answer = receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "No space left on device" in status_message(answer.headers["content-type"], answer.content)[1]
    files.full = False
    assert receiver.client.post("/v1/traces", content=GOOD, headers=PROTOBUF).status_code == 200
    assert receiver.kept_spans() == ["neighbour", "neighbour"]

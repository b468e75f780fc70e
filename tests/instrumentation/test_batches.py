"""Batches: the submission is a span, each result is an LLM call, and nothing counts twice however often it is read."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sdk_features import has, needs

import loopscope
from loopscope._internal import guard, runtime
from loopscope._internal.anthropic import batch_results
from loopscope._internal.anthropic.batch_results import KEPT_REQUESTS_BYTES, requests_of

from .conftest import Configure, ask, delivered
from .provider_server import Recorded, Reply, Server, failing, message

BATCH_ID = "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF"
BATCHES = "/v1/messages/batches"
CREATED, ENDED = "2026-11-20T10:00:00.123456Z", "2026-11-20T11:30:00Z"
CREATED_NANOSECONDS, ENDED_NANOSECONDS = 1_795_168_800_123_456_000, 1_795_174_200_000_000_000


def described(server: Server, *, ended: bool = True, **more: Any) -> Reply:
    """A batch as the API describes it."""
    counts = {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 1, "expired": 1}
    batch = {
        "id": BATCH_ID,
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": counts,
        "created_at": CREATED,
        "expires_at": "2026-11-21T10:00:00Z",
        "ended_at": ENDED if ended else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{server.url}{BATCHES}/{BATCH_ID}/results" if ended else None,
    }
    return Reply(body=json.dumps(batch | more).encode())


def answered(custom_id: str, text: str, tier: str | None = "batch") -> dict[str, Any]:
    usage = message()["usage"] | {"service_tier": tier}
    return {
        "custom_id": custom_id,
        "result": {"type": "succeeded", "message": message(text, id=f"msg_{custom_id}", usage=usage)},
    }


REFUSED = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too large"}}
RESULTS: list[dict[str, Any]] = [
    answered("first", "Grüße"),
    {"custom_id": "refused", "result": {"type": "errored", "error": REFUSED}},
    answered("second", "two", tier=None),
    {"custom_id": "stopped", "result": {"type": "canceled"}},
    {"custom_id": "late", "result": {"type": "expired"}},
]
LONG = [answered(custom_id, "long " * 2_000) for custom_id in ("first", "second", "third", "fourth", "fifth")]
"""The SDK gives a line when more bytes have come, an old one 4 KB more: with these, a line is followed by enough."""
CUSTOM_IDS = [result["custom_id"] for result in RESULTS]


def line(result: dict[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


def results(found: list[dict[str, Any]] | None = None, **more: Any) -> Reply:
    return Reply(events=RESULTS if found is None else found, encode=line, content_type="application/x-jsonl", **more)


def requests(*custom_ids: str) -> list[Any]:
    """What is submitted."""
    return [{"custom_id": custom_id, "params": ask(f"about {custom_id}")} for custom_id in custom_ids]


def batches_of(client: Any, *, beta: bool = False) -> Any:
    """`messages.batches`, which an old SDK has in beta only."""
    return client.messages.batches if has("messages.batches") and not beta else client.beta.messages.batches


def by_custom_id(server: Server) -> dict[str, Recorded]:
    return {call["loopscope.batch.custom_id"]: call for call in server.calls()}


def identities(calls: list[Recorded]) -> set[tuple[bytes, bytes, int]]:
    """What makes a row of the store one row."""
    return {(call.span.trace_id, call.span.span_id, call.span.start_time_unix_nano) for call in calls}


@pytest.fixture(autouse=True)
def a_batch(server: Server) -> Iterator[None]:
    batch_results.forget()
    server.routes = {
        f"POST {BATCHES}": described(server, ended=False),
        f"GET {BATCHES}": Reply(body=json.dumps({"data": [], "has_more": False}).encode()),
        f"GET {BATCHES}/{BATCH_ID}": described(server),
        f"POST {BATCHES}/{BATCH_ID}/cancel": described(server, ended=False),
        f"GET {BATCHES}/{BATCH_ID}/results": results(),
    }
    yield
    batch_results.forget()


@pytest.mark.parametrize("beta", [pytest.param(False, marks=needs("messages.batches")), True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_submission_is_one_span(
    beta: bool, asynchronous: bool, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    async def submit() -> Any:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as made:
            return await batches_of(made, beta=beta).create(requests=requests("first", "second"))

    plain = repr(batches_of(client, beta=beta).create(requests=requests("first", "second")))
    configure()
    if asynchronous:
        batch = asyncio.run(submit())
    else:
        batch = batches_of(client, beta=beta).create(requests=requests("first", "second"))
    assert repr(batch) == plain
    delivered()
    (span,) = server.spans()
    assert span.operation == "create_batch"
    assert span["loopscope.batch.id"] == BATCH_ID
    assert span["loopscope.batch.requests"] == 2
    assert span["loopscope.request.body"] == server.others[-1].body
    assert span.span.name == "create_batch"
    assert span["loopscope.response.body"] == server.routes[f"POST {BATCHES}"].body
    assert span["http.response.status_code"] == 200
    assert span["gen_ai.provider.name"] == "anthropic"
    assert span.get("loopscope.turn") is None
    assert span.get("gen_ai.usage.input_tokens") is None
    assert span.get("loopscope.cost.source") is None
    assert not span.failed


def test_a_submission_belongs_to_its_run(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    with loopscope.run("planner"):
        batches_of(client).create(requests=requests("first"))
        client.messages.create(**ask())
    delivered()
    run = next(span for span in server.spans() if span.operation == "invoke_agent")
    submitted = next(span for span in server.spans() if span.operation == "create_batch")
    assert submitted["loopscope.run.id"] == run["loopscope.run.id"]
    assert submitted.span.parent_span_id == run.span.span_id
    assert server.calls()[0]["loopscope.turn"] == 1


def test_a_refused_submission(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.routes[f"POST {BATCHES}"] = failing(400, "invalid_request_error")
    configure()
    with pytest.raises(anthropic.BadRequestError):
        batches_of(client).create(requests=requests("first"))
    delivered()
    (span,) = server.spans()
    assert span.failed
    assert span["error.type"] == "invalid_request_error"
    assert span["loopscope.error.class"] == "deterministic"
    assert span.get("loopscope.batch.id") is None


def test_a_streamed_answer_to_a_submission(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    with batches_of(client).with_streaming_response.create(requests=requests("first")) as response:
        response.read()
    delivered()
    (span,) = server.spans()
    assert span["loopscope.batch.id"] == BATCH_ID
    assert span.get("loopscope.partial") is None


def check_results(server: Server, *, asked: bool = False) -> None:
    """Every result is one LLM call, with what the line said."""
    calls = by_custom_id(server)
    assert sorted(calls) == sorted(CUSTOM_IDS)
    assert len(server.calls()) == len(CUSTOM_IDS)
    first = calls["first"]
    assert first["loopscope.batch.id"] == BATCH_ID
    assert json.loads(first["loopscope.response.body"]) == RESULTS[0]["result"]["message"]
    assert first["gen_ai.response.id"] == "msg_first"
    assert first["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert first["gen_ai.request.model"] == "claude-sonnet-4-6"
    assert first["gen_ai.usage.input_tokens"] == 2121
    assert first["gen_ai.usage.output_tokens"] == 42
    assert first["loopscope.usage.service_tier"] == "batch"
    assert first["loopscope.cost.usd"] == 0.0012915, "half of what the same call costs by itself"
    assert first["loopscope.run.id"] == first.span.trace_id.hex()
    assert first["loopscope.turn"] == 1
    assert first.span.start_time_unix_nano == CREATED_NANOSECONDS
    assert first.span.end_time_unix_nano == ENDED_NANOSECONDS + asked, (
        "so that the store keeps the row with its request"
    )
    assert first.span.name == "chat claude-sonnet-4-6"
    assert not first.failed
    assert calls["second"]["loopscope.cost.usd"] == 0.0012915, "a batch costs half, whether usage says so or not"
    refused = calls["refused"]
    assert refused.failed
    assert refused.span.status.message == "max_tokens: too large"
    assert refused["error.type"] == "invalid_request_error"
    assert refused["loopscope.error.class"] == "deterministic"
    assert json.loads(refused["loopscope.response.body"]) == REFUSED
    assert [(calls[name]["error.type"], calls[name]["loopscope.error.class"]) for name in ("stopped", "late")] == [
        ("canceled", "unknown"),
        ("expired", "transient"),
    ]
    assert all(calls[name].failed and calls[name].get("loopscope.cost.usd") is None for name in ("stopped", "late"))
    assert len({call.span.trace_id for call in calls.values()}) == len(calls)


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("beta", [pytest.param(False, marks=needs("messages.batches")), True])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_each_result_is_one_llm_call(
    asynchronous: bool, beta: bool, gzip: bool, server: Server, configure: Configure
) -> None:
    server.routes[f"GET {BATCHES}/{BATCH_ID}/results"] = results(gzip=gzip)

    def download() -> list[str]:
        with anthropic.Anthropic(api_key="k", base_url=server.url) as client:
            found = batches_of(client, beta=beta).results(BATCH_ID)
            return [type(found).__qualname__, *map(repr, found)]

    async def download_async() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:
            found = await batches_of(client, beta=beta).results(BATCH_ID)
            return [type(found).__qualname__, *[repr(result) async for result in found]]

    def read() -> list[str]:
        return asyncio.run(download_async()) if asynchronous else download()

    plain = read()
    configure()
    assert read() == plain
    assert len(plain) == 6
    delivered()
    check_results(server)


@needs("messages.batches.with_raw_response.results")
@pytest.mark.parametrize("how", ["raw", "streamed lines", "streamed bytes", "streamed and parsed"])
def test_every_way_to_download(how: str, server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    batches = batches_of(client)
    if how == "raw":
        assert len(list(batches.with_raw_response.results(BATCH_ID).parse())) == 5
    else:
        with batches.with_streaming_response.results(BATCH_ID) as response:
            if how == "streamed lines":
                found = list(response.iter_lines())
                assert json.loads(found[1]) == RESULTS[1]
            elif how == "streamed bytes":
                assert b"".join(response.iter_bytes(7)) == b"".join(map(line, RESULTS))
            else:
                assert len(list(response.parse())) == 5
    delivered()
    check_results(server)


def test_what_was_asked_is_shown_when_this_process_submitted_it(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    batches_of(client).create(requests=requests(*CUSTOM_IDS))
    delivered()  # what is kept, is kept by the worker
    list(batches_of(client).results(BATCH_ID))
    delivered()
    check_results(server, asked=True)
    for custom_id, call in by_custom_id(server).items():
        assert json.loads(call["loopscope.request.body"]) == ask(f"about {custom_id}")
        assert call["gen_ai.request.model"] == "claude-sonnet-4-6"


def test_results_of_another_process_have_no_request(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    list(batches_of(client).results(BATCH_ID))
    delivered()
    check_results(server)
    assert all(call.get("loopscope.request.body") is None for call in server.calls())


def test_downloading_again_is_the_same_rows(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    list(batches_of(client).results(BATCH_ID))
    batch_results.forget()  # another process, which submitted nothing
    with loopscope.run("somewhere else"):
        list(batches_of(client).results(BATCH_ID))
    delivered()
    assert len(server.calls()) == 10
    assert len(identities(server.calls())) == 5
    assert all(call["loopscope.run.id"] == call.span.trace_id.hex() for call in server.calls())


def test_without_the_time_of_the_batch_the_day_stands_for_it(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    for _ in range(2):
        found = client.get(f"{BATCHES}/{BATCH_ID}/results", cast_to=str)
        assert found.encode() == b"".join(map(line, RESULTS))
    delivered()
    assert len(server.calls()) == 10
    starts = {call.span.start_time_unix_nano for call in server.calls()}
    assert all(start % (24 * 3600 * 10**9) == 0 for start in starts)
    assert len(identities(server.calls())) == 5 * len(starts), "midnight may pass between the two"


def test_an_abandoned_download_keeps_what_had_arrived(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    hold = threading.Event()
    server.routes[f"GET {BATCHES}/{BATCH_ID}/results"] = results(LONG, hold=hold)
    configure()
    found = batches_of(client).results(BATCH_ID)
    assert next(found).custom_id == "first"
    assert next(found).custom_id == "second"
    found.http_response.close()
    hold.set()
    delivered()
    assert sorted(by_custom_id(server)) in (["first", "second"], ["first", "second", "third"])


def test_a_download_that_breaks(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.routes[f"GET {BATCHES}/{BATCH_ID}/results"] = results(break_after=2)
    configure()
    with pytest.raises(Exception, match=r"(?i)peer|closed|incomplete"):
        list(batches_of(client).results(BATCH_ID))
    delivered()
    assert sorted(by_custom_id(server)) == ["first", "refused"]


def test_results_pass_while_the_rest_is_still_to_come(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    hold = threading.Event()
    server.routes[f"GET {BATCHES}/{BATCH_ID}/results"] = results(LONG, hold=hold)
    configure()
    seen: list[str] = []
    for result in batches_of(client).results(BATCH_ID):
        seen.append(result.custom_id)
        if len(seen) == 2:
            delivered()
            assert sorted(by_custom_id(server)) in (["first", "second"], ["first", "second", "third"])
            hold.set()
    assert seen == [result["custom_id"] for result in LONG]


def test_lines_that_are_no_results(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    """The last one has no line break either."""
    lines = [b"{}", b"", b'{"custom_id": "odd", "result": {"type": "new"}}', b'{"custom_id": 7', b'"text"', b"[]"]
    server.routes[f"GET {BATCHES}/{BATCH_ID}/results"] = Reply(body=b"\n".join(lines))
    configure()
    assert client.get(f"{BATCHES}/{BATCH_ID}/results", cast_to=str)
    delivered()
    assert len(server.calls()) == 5
    assert all(call.failed for call in server.calls())
    assert {call["error.type"] for call in server.calls()} == {"new", "unreadable_batch_result"}
    assert {call["loopscope.response.body"] for call in server.calls()} == set(filter(None, lines))


def test_content_can_be_left_out(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(capture_content=False)
    batches_of(client).create(requests=requests(*CUSTOM_IDS))
    delivered()
    list(batches_of(client).results(BATCH_ID))
    delivered()
    assert len(server.calls()) == 5
    assert not any(b"about" in sent.body or b"two" in sent.body for sent in server.traces)
    assert by_custom_id(server)["first"]["gen_ai.usage.input_tokens"] == 2121


def test_looking_at_batches_is_not_recorded(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    batches = batches_of(client)
    batches.retrieve(BATCH_ID)
    batches.with_raw_response.retrieve(BATCH_ID)
    batches.cancel(BATCH_ID)
    list(batches.list())
    server.routes[f"GET {BATCHES}/{BATCH_ID}"] = failing(404, "not_found_error")
    with pytest.raises(anthropic.NotFoundError):
        batches.results(BATCH_ID)
    delivered()
    assert server.spans() == []
    assert server.markers() == []


def test_without_configuration_nothing_listens(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    loopscope.shutdown(0.0)
    batches_of(client).create(requests=requests("first"))
    assert len(list(batches_of(client).results(BATCH_ID))) == 5
    assert server.spans() == []
    assert runtime.active() is None


def test_the_memory_is_bounded() -> None:
    memory = batch_results._Memory()  # pyright: ignore[reportPrivateUsage]
    for number in range(20):
        memory.keep("b", str(number), bytes(KEPT_REQUESTS_BYTES // 10))
    kept = [number for number in range(20) if memory.request("b", str(number)) is not None]
    assert kept == list(range(10, 20))
    memory.keep("b", "19", b"{}")
    assert memory.request("b", "19") == b"{}"
    assert memory.request("b", "11") is not None
    for number in range(batch_results.KNOWN_BATCHES + 5):
        memory.note(str(number), batch_results.Times(number, None))
    assert memory.times("4") is None
    assert memory.times("5") == batch_results.Times(5, None)


JSON = (
    st.none()
    | st.integers()
    | st.text()
    | st.lists(st.text(), max_size=3)
    | st.dictionaries(st.text(), st.floats(0, 1))
)


@given(
    st.lists(st.tuples(st.text(), st.dictionaries(st.text(), JSON, max_size=4)), max_size=6),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_requests_are_read_one_by_one(entries: list[tuple[str, dict[str, Any]]], separators: tuple[str, str]) -> None:
    body = {"requests": [{"custom_id": name, "params": params} for name, params in entries], "more": 1}
    text = json.dumps(body, separators=separators)
    assert list(requests_of(text.encode())) == entries


@given(st.binary(max_size=100), st.integers(0, 200))
def test_reading_what_is_no_submission_never_fails(noise: bytes, cut: int) -> None:
    whole = json.dumps({"requests": requests("a", "b")}).encode()
    assert len(list(requests_of(whole[:cut] + noise + whole[cut:]))) <= 3


@pytest.mark.skipif(not hasattr(os, "fork") or sys.version_info < (3, 11), reason="no fork here")
def test_a_forked_child_can_use_the_memory() -> None:
    memory = batch_results._memory  # pyright: ignore[reportPrivateUsage]
    memory._lock.acquire()  # pyright: ignore[reportPrivateUsage]
    child = os.fork()
    if child == 0:
        batch_results.remember("b", b'{"created_at": "2026-11-20T10:00:00Z"}')
        os._exit(0)
    memory._lock.release()  # pyright: ignore[reportPrivateUsage]
    assert os.waitpid(child, 0)[1] == 0
    assert guard.counts().get("internal_errors", 0) == 0

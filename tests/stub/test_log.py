"""The log: every request, byte for byte; what was answered; nobody's key."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import anthropic
import pytest

from loopscope.stub import LogEntry, StubServer, read_log, say
from loopscope.stub.log import RequestLog

ODD = "nul \x00, bell \x07, é, 👍, \u2028"


def ask(client: anthropic.Anthropic, text: str, **more: Any) -> Any:
    return client.messages.create(model="m", max_tokens=50, messages=[{"role": "user", "content": text}], **more)


def get(url: str, method: str = "GET", body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=60) as response:
        data = response.read()
    return json.loads(data) if data else None


def test_an_entry_holds_the_exact_bytes_and_the_answer(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("s", [say("hello")])
    raw = client.messages.with_raw_response.create(
        model="m",
        max_tokens=50,
        messages=[{"role": "user", "content": ODD}],
        extra_headers={"x-stub-script": "s/one"},
    )
    (entry,) = stub.log.entries()
    sent = json.dumps(entry.request, ensure_ascii=False, separators=(",", ":")).encode()
    assert entry.body == sent
    assert entry.request["messages"][0]["content"] == ODD
    assert entry.response == json.loads(raw.http_response.content)
    assert (entry.script, entry.session, entry.step) == ("s", "one", 0)
    assert (entry.method, entry.path, entry.status, entry.stream) == ("POST", "/v1/messages", 200, False)
    assert entry.request_id == raw.headers["request-id"]
    assert "sk-secret" not in json.dumps(entry.to_json())
    assert "[redacted]" in (entry.headers.get("x-api-key"), entry.headers.get("authorization"))


def test_a_message_of_ten_megabytes(stub: StubServer, client: anthropic.Anthropic) -> None:
    ask(client, "0123456789" * 1_000_000)
    (entry,) = stub.log.entries()
    assert len(entry.body) > 10_000_000
    assert entry.usage is not None
    assert entry.usage["input_tokens"] == 2_500_000 + 12


def test_over_http(stub: StubServer, client: anthropic.Anthropic) -> None:
    for number in range(3):
        ask(client, f"question {number}")
    found = get(f"{stub.url}/stub/log?since=1")
    entries = [LogEntry.from_json(entry) for entry in found["entries"]]
    assert entries == stub.log.entries(since=1)
    assert [entry.number for entry in entries] == [2, 3]
    assert get(f"{stub.url}/stub/log/2/body") == entries[0].request
    assert get(f"{stub.url}/healthz") == {"status": "ok"}
    get(f"{stub.url}/stub/log", "DELETE")
    assert get(f"{stub.url}/stub/log") == {"entries": [], "dropped": 0}


def test_a_file_gets_every_entry(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with StubServer(log_file=file) as stub, anthropic.Anthropic(base_url=stub.url, api_key="k") as client:
        ask(client, ODD)
        ask(client, "second", stream=True).close()
        kept = stub.log.entries()
    assert read_log(file)[:1] == kept[:1]


def entry(number: int, body: bytes) -> LogEntry:
    return LogEntry(
        number=number,
        at_unix_nano=1,
        method="POST",
        path="/v1/messages",
        query="",
        headers={},
        body=body,
        retry=0,
        script=None,
        session=None,
        step=None,
        status=200,
        ended="answered",
        stream=False,
        request_id="req",
        response=None,
        duration_ms=1.0,
    )


def test_memory_is_bounded_and_what_went_is_counted() -> None:
    log = RequestLog(max_bytes=50_000)
    for number in range(1, 101):
        log.append(entry(number, b"x" * 9_000))
    kept = log.entries()
    assert [one.number for one in kept] == list(range(101 - len(kept), 101))
    assert log.dropped == 100 - len(kept)
    assert 1 < len(kept) <= 5
    log.append(entry(101, b"x" * 90_000))
    assert [one.number for one in log.entries()] == [101]


def test_a_path_that_does_not_exist_is_not_found_in_the_apis_shape(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="/v1/models") as caught:
        client.models.list()
    assert caught.value.type == "not_found_error"

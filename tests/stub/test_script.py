"""Scripts: how one is chosen, how far each session is, and that the same again is the same again."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest

from loopscope.stub import Ask, StubServer, Turn, call, say
from loopscope.stub.script import fault_from_header, script_from_json

HELLO: Any = {"role": "user", "content": "hello"}


def text(client: anthropic.Anthropic, **more: Any) -> str:
    request: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [HELLO], **more}
    block = client.messages.create(**request).content[0]
    assert block.type == "text"
    return block.text


@pytest.mark.parametrize(
    "chosen",
    [
        {"extra_headers": {"x-stub-script": "greeter/a"}},
        {"metadata": {"user_id": "stub:greeter/a"}},
        {"system": "Be kind. [[stub:greeter/a]]"},
        {"system": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "[[stub:greeter/a]]"}]},
        {"messages": [{"role": "user", "content": "hello [[stub:greeter/a]]"}]},
        {"model": "greeter"},
    ],
    ids=["header", "metadata", "system", "system-blocks", "message", "model"],
)
def test_ways_to_choose(stub: StubServer, client: anthropic.Anthropic, chosen: Any) -> None:
    stub.add_script("greeter", [say("one"), say("two")])
    assert [text(client, **chosen), text(client, **chosen)] == ["one", "two"]
    with pytest.raises(anthropic.BadRequestError, match="'greeter' has 2 turns"):
        text(client, **chosen)


def test_sessions_advance_on_their_own_when_many_ask_at_once(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("counter", lambda ask: say(f"{ask.session}:{ask.step}"))

    def conversation(session: int) -> list[str]:
        return [text(client, extra_headers={"x-stub-script": f"counter/{session}"}) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(conversation, range(12)))
    assert found == [[f"{session}:{step}" for step in range(5)] for session in range(12)]


def test_a_script_sees_the_request(stub: StubServer, client: anthropic.Anthropic) -> None:
    seen: list[Ask] = []

    def script(ask: Ask) -> Turn:
        seen.append(ask)
        return call("look", where="here") if ask.step == 0 else say(ask.tool_results[0].upper())

    stub.add_script("looker", script)
    headers = {"x-stub-script": "looker"}
    first = client.messages.create(model="m", max_tokens=50, messages=[HELLO], extra_headers=headers)
    results: Any = [{"type": "tool_result", "tool_use_id": first.content[0].model_dump()["id"], "content": "a cat"}]
    messages: Any = [HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    assert text(client, messages=messages, extra_headers=headers) == "A CAT"
    assert seen[0].last_user_text == "hello"
    assert [ask.step for ask in seen] == [0, 1]


def test_a_script_that_fails_says_so(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("bad", lambda ask: [say("only")][ask.step])
    headers = {"x-stub-script": "bad"}
    assert text(client, extra_headers=headers) == "only"
    with pytest.raises(anthropic.BadRequestError, match="'bad' raised IndexError"):
        text(client, extra_headers=headers)
    with pytest.raises(anthropic.BadRequestError, match="No script named 'worse' is registered; known: bad"):
        text(client, extra_headers={"x-stub-script": "worse/1"})


def test_the_same_again_is_the_same_again_and_every_id_is_its_own() -> None:
    def play(seed: int) -> list[dict[str, Any]]:
        with StubServer(seed=seed) as stub, anthropic.Anthropic(base_url=stub.url, api_key="k") as client:
            stub.add_script("s", lambda _: call("look", "so", where="here"))
            for session in "ab":
                for _ in range(2):
                    headers = {"x-stub-script": f"s/{session}"}
                    client.messages.create(model="m", max_tokens=50, messages=[HELLO], extra_headers=headers)
            text(client)
            text(client)
            return [entry.response or {} for entry in stub.log.entries()]

    first = play(1)
    assert first == play(1)
    ids = [message["id"] for message in (*first, *play(2))]
    assert len(set(ids)) == len(ids)
    calls = [block["id"] for message in first for block in message["content"] if block["type"] == "tool_use"]
    assert len(set(calls)) == len(calls) == 4


def test_registering_a_script_again_begins_its_sessions_again(stub: StubServer, client: anthropic.Anthropic) -> None:
    for _ in range(2):
        stub.add_script("s", [say("first"), say("second")])
        assert text(client, extra_headers={"x-stub-script": "s/1"}) == "first"


def put(stub: StubServer, turns: object) -> None:
    request = urllib.request.Request(f"{stub.url}/stub/scripts/remote", json.dumps(turns).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def test_a_script_over_http(stub: StubServer, client: anthropic.Anthropic) -> None:
    turns = [
        {"text": "first", "pacing": {"latency": 0.0}, "faults": [{"status": 529, "times": 1, "retry_after": 0.01}]},
        {"tool_calls": [{"name": "look", "input": {"where": "here"}}]},
    ]
    put(stub, turns)
    headers = {"x-stub-script": "remote"}
    assert text(client.with_options(max_retries=1), extra_headers=headers) == "first"
    second = client.messages.create(model="m", max_tokens=50, messages=[HELLO], extra_headers=headers)
    assert second.stop_reason == "tool_use"
    with pytest.raises(urllib.error.HTTPError) as caught:
        put(stub, [{"txet": "x"}])
    assert "Turn has no field 'txet'" in json.loads(caught.value.read())["error"]["message"]


def test_scripts_and_faults_in_words() -> None:
    with pytest.raises(ValueError, match="non-empty list of turns"):
        script_from_json([])
    fault, after = fault_from_header("status=500; times=-1; after=3")
    assert (fault.status, fault.times, after) == (500, -1, 3)
    with pytest.raises(ValueError, match="unknown kind 'explode'"):
        fault_from_header("kind=explode")

"""One call, end to end: what the server received is what the collector got."""

import json

import anthropic
import loopscope

from .conftest import Configure, delivered
from .provider_server import Server, ok

ASK = [{"role": "user", "content": "Grüße \x00\x07 \u2028 and \U0001f600"}]


def test_a_bare_call_is_a_run_of_one_turn(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [ok("the answer")]
    configure()
    answer = client.messages.create(model="claude-sonnet-4-6", max_tokens=99, messages=ASK)
    assert answer.content[0].text == "the answer"
    delivered()
    (call,) = server.calls()
    assert call["loopscope.request.body"] == server.messages[0].body
    assert json.loads(call["loopscope.response.body"]) == json.loads(server.replies[0].body)
    assert call["loopscope.run.id"] == call.span.trace_id.hex()
    assert call["loopscope.turn"] == 1
    assert call["gen_ai.agent.name"] == "tester"
    assert call["gen_ai.request.model"] == "claude-sonnet-4-6"
    assert call["gen_ai.request.max_tokens"] == 99
    assert call["gen_ai.response.id"] == "msg_01test"
    assert call["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call["gen_ai.usage.cache_read.input_tokens"] == 1800
    assert call["gen_ai.usage.cache_write.input_tokens"] == 300
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["loopscope.cost.usd"] == 0.002583
    assert call["loopscope.cost.source"] == "computed"
    assert call["loopscope.cost.price_version"].startswith("genai-prices/")
    assert call["loopscope.http.attempts"] == 1
    assert call["http.response.status_code"] == 200
    assert call.span.kind == 3
    assert not call.failed
    assert not call.get("loopscope.partial")
    assert call.resource["service.name"] == "tester"
    assert call.resource["loopscope.process.id"]
    assert loopscope.stats()["internal_errors"] == 0

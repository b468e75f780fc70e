"""Token figures: recountable, the same every time, and a cache that splits them without losing any."""

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopscope.demo.prose import invoice_pdf, picture_png
from loopscope.stub import StubServer
from loopscope.stub.tokens import PromptCache, block_tokens, count_input

LONG = "policy " * 800
"""5,600 characters: 1,400 tokens, more than the smallest prefix that is cached."""


def request(*turns: str, ttl: str | None = "5m", at: tuple[str, ...] = ("system",)) -> dict[str, Any]:
    control = {"cache_control": {"type": "ephemeral", **({"ttl": ttl} if ttl == "1h" else {})}}
    messages: list[Any] = [
        {"role": ("user", "assistant")[n % 2], "content": [{"type": "text", "text": turn}]}
        for n, turn in enumerate(turns)
    ]
    if "last" in at:
        messages[-1]["content"][-1].update(control)
    system: list[Any] = [{"type": "text", "text": LONG, **(control if "system" in at else {})}]
    return {"model": "m", "max_tokens": 9, "system": system, "messages": messages}


def test_input_can_be_recounted_by_hand() -> None:
    body: Any = {"model": "m", "system": "12345678", "messages": [{"role": "user", "content": "123456789"}]}
    assert count_input(body) == 8 + 2 + (4 + 3)
    tool: Any = {"name": "look", "input_schema": {"type": "object"}}
    definition = json.dumps(tool, separators=(",", ":"))
    assert count_input({**body, "tools": [tool]}) == 17 + 346 + 8 + -(-len(definition) // 4)


def test_pictures_and_documents_count_by_size() -> None:
    picture = base64.b64encode(picture_png(300, 250, 1)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    assert block_tokens({"type": "image", "source": source}) == 300 * 250 // 750
    assert block_tokens({"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}) == 1_600
    pdf = base64.b64encode(invoice_pdf(1, 20_000)).decode()
    assert block_tokens({"type": "document", "source": {"type": "base64", "data": pdf}}) == 5_000
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}
    assert block_tokens(nested) == 8 + 100


def test_a_prefix_is_written_once_and_read_until_it_expires() -> None:
    cache = PromptCache()
    body = request("hello")
    prefix = 8 + 1_400
    first = cache.account(body, "key", now=0)
    assert (first.cache_write_5m, first.cache_read, first.fresh) == (prefix, 0, 4 + 2)
    second = cache.account(request("hello", "yes?", "again"), "key", now=299)
    assert (second.cache_write_5m, second.cache_read) == (0, prefix)
    # Reading it kept it alive for another five minutes.
    assert cache.account(body, "key", now=590).cache_read == prefix
    assert cache.account(body, "key", now=1_000).cache_write_5m == prefix
    assert cache.account(body, "another key", now=1_001).cache_read == 0
    assert cache.account({**body, "model": "n"}, "key", now=1_001).cache_read == 0


def test_a_breakpoint_that_moves_reads_what_was_written_before_and_writes_the_rest() -> None:
    cache = PromptCache()
    grown = ("question " * 10, "answer " * 10, "next " * 10)
    first = cache.account(request(*grown[:1], at=("system", "last"), ttl="1h"), "key", now=0)
    assert (first.cache_write_1h, first.cache_write_5m) == (count_input(request(*grown[:1])), 0)
    second = cache.account(request(*grown, at=("last",)), "key", now=60)
    assert second.cache_read == first.cache_write_1h
    assert second.cache_write_5m == count_input(request(*grown)) - second.cache_read
    assert second.fresh == 0
    assert cache.account(request(*grown, at=("last",)), "key", now=3_000).cache_read == first.cache_write_1h


def test_a_short_prefix_is_not_cached() -> None:
    cache = PromptCache()
    body = {**request("hello"), "system": [{"type": "text", "text": "short", "cache_control": {"type": "ephemeral"}}]}
    assert [cache.account(body, "key", now=0).cache_read for _ in range(2)] == [0, 0]


@given(st.lists(st.text(min_size=1, max_size=3_000), min_size=1, max_size=6), st.data())
def test_no_token_is_lost_or_counted_twice(turns: list[str], data: st.DataObject) -> None:
    cache = PromptCache()
    for upto in range(1, len(turns) + 1, 2):
        at = tuple(data.draw(st.lists(st.sampled_from(["system", "last"]), unique=True)))
        body = request(*turns[:upto], at=at, ttl=data.draw(st.sampled_from(["5m", "1h"])))
        used = cache.account(body, "key", now=float(upto))
        parts = (used.fresh, used.cache_read, used.cache_write_5m, used.cache_write_1h)
        assert sum(parts) == count_input(body)
        assert min(parts) >= 0


def test_the_clients_usage_shows_the_split(stub: StubServer) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=stub.url, api_key="k") as client:
        first, second = (client.messages.create(**request("hello", ttl="1h")).usage for _ in range(2))
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_1h_input_tokens == first.cache_creation_input_tokens == 1_408
    assert (second.cache_read_input_tokens, second.cache_creation_input_tokens, second.input_tokens) == (1_408, 0, 6)

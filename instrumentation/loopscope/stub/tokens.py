"""How many tokens a request and an answer count: an estimate from sizes, the same for the same input, always.

Also the prompt cache: which prefix of a request was seen before at a breakpoint, and what is written anew. Called by
the app for each answered request. It is not the provider's tokenizer and must not pretend to be: four characters a
token, plus small overheads, so that a person can recount it.
"""

import base64
import binascii
import hashlib
import json
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loopscope.stub.validation import content_blocks

CHARS_PER_TOKEN: Final = 4
REQUEST_OVERHEAD: Final = 8
"""Tokens of every request."""
MESSAGE_OVERHEAD: Final = 4
"""Tokens of the frame of each message."""
TOOL_OVERHEAD: Final = 8
"""Tokens of the frame of each tool definition, tool call and tool result."""
TOOLS_PREAMBLE: Final = 346
"""Tokens of the provider's own tool instructions, present with any tool."""
PIXELS_PER_TOKEN: Final = 750
MAX_IMAGE_TOKENS: Final = 1_600
MIN_CACHEABLE_TOKENS: Final = 1_024
"""A shorter prefix is not cached, whatever the request says."""
CACHE_LOOKBACK_BLOCKS: Final = 20
"""How many blocks before a breakpoint are searched for an earlier cache entry."""
CACHE_ENTRIES: Final = 50_000
"""Prefix hashes kept; the oldest make room."""
TTL_SECONDS: Final[Mapping[str, int]] = {"5m": 300, "1h": 3_600}

JsonDict = dict[str, Any]


@dataclass(frozen=True)
class Segment:
    """One block of the prompt: its identity (without cache_control), its tokens, and its breakpoint's ttl, if any."""

    identity: bytes
    tokens: int
    ttl: str | None


@dataclass(frozen=True)
class InputUsage:
    """Input tokens as the API reports them: `fresh` excludes what was read from or written to the cache."""

    fresh: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int


def text_tokens(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text) // CHARS_PER_TOKEN)


def block_tokens(block: Mapping[str, Any]) -> int:
    """Tokens of one content block of the input."""
    kind = block.get("type")
    if kind == "text":
        return text_tokens(str(block.get("text", "")))
    if kind == "thinking":
        return text_tokens(str(block.get("thinking", "")))
    if kind == "tool_use":
        return TOOL_OVERHEAD + text_tokens(str(block.get("name", "")) + _json(block.get("input", {})))
    if kind == "tool_result":
        return TOOL_OVERHEAD + sum(block_tokens(inner) for inner in content_blocks(block.get("content")))
    if kind == "image":
        return image_tokens(block.get("source") or {})
    if kind == "document":
        return document_tokens(block)
    return text_tokens(_json(_without_cache_control(block)))


def image_tokens(source: Mapping[str, Any]) -> int:
    """Tokens of an image: pixels / 750 for a PNG, at most 1,600; 1,600 where the size cannot be read."""
    data = _decoded(source)
    if data is None or not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 24:
        return MAX_IMAGE_TOKENS
    width, height = struct.unpack(">II", data[16:24])
    return max(1, min(MAX_IMAGE_TOKENS, -(-width * height // PIXELS_PER_TOKEN)))


def document_tokens(block: Mapping[str, Any]) -> int:
    """Tokens of a document: its decoded bytes / 4; of a text or content source, its text / 4."""
    source: Mapping[str, Any] = block.get("source") or {}
    head = text_tokens(str(block.get("title") or "") + str(block.get("context") or ""))
    if source.get("type") == "text":
        return head + text_tokens(str(source.get("data", "")))
    if source.get("type") == "content":
        return head + sum(block_tokens(inner) for inner in content_blocks(source.get("content")))
    data = _decoded(source)
    return head + (MAX_IMAGE_TOKENS if data is None else -(-len(data) // CHARS_PER_TOKEN))


def segments(body: Mapping[str, Any]) -> Iterator[Segment]:
    """The prompt in the order that the cache sees it: tools, system, messages."""
    tools: list[JsonDict] = body.get("tools") or []
    for position, tool in enumerate(tools):
        plain = _json(_without_cache_control(tool))
        tokens = text_tokens(plain) + TOOL_OVERHEAD + (TOOLS_PREAMBLE if position == 0 else 0)
        yield Segment(b"tool " + plain.encode(errors="surrogatepass"), tokens, _ttl(tool))
    for block in content_blocks(body.get("system")):
        yield _segment(b"system ", block, 0)
    for message in body.get("messages") or []:
        role = str(message.get("role")).encode()
        for position, block in enumerate(content_blocks(message.get("content"))):
            yield _segment(role + (b"+ " if position else b" "), block, 0 if position else MESSAGE_OVERHEAD)


def count_input(body: Mapping[str, Any]) -> int:
    """All input tokens of a request, cached or not."""
    return REQUEST_OVERHEAD + sum(segment.tokens for segment in segments(body))


def output_tokens(content: list[JsonDict]) -> tuple[int, int]:
    """(all output tokens, those of thinking) of an answer's content; at least one."""
    thinking = sum(block_tokens(block) for block in content if block["type"] == "thinking")
    other = sum(block_tokens(block) for block in content if block["type"] not in ("thinking", "redacted_thinking"))
    redacted = sum(text_tokens(str(block.get("data", ""))) for block in content if block["type"] == "redacted_thinking")
    return max(1, thinking + redacted + other), thinking + redacted


class PromptCache:
    """Prefixes seen at breakpoints, with the moment they expire. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._expires: OrderedDict[bytes, float] = OrderedDict()

    def clear(self) -> None:
        """Forget every prefix."""
        self._expires.clear()

    def account(self, body: Mapping[str, Any], scope: str, now: float) -> InputUsage:
        """What of the request is read from the cache, written to it, or neither; remembers its breakpoints."""
        parts = list(segments(body))
        if body.get("cache_control") and parts:
            last = parts[-1]
            parts[-1] = Segment(last.identity, last.tokens, last.ttl or _ttl(body))
        total = REQUEST_OVERHEAD + sum(part.tokens for part in parts)
        breakpoints = [position for position, part in enumerate(parts) if part.ttl]
        if not breakpoints:
            return InputUsage(total, 0, 0, 0)
        prefixes = _prefixes(parts, f"{scope}\0{body.get('model')}")
        hit = self._longest_hit(prefixes, breakpoints, now)
        read = prefixes[hit][1] if hit is not None else 0
        written = {"5m": 0, "1h": 0}
        upto = read
        for position in breakpoints:
            digest, tokens = prefixes[position]
            ttl = parts[position].ttl or "5m"
            if tokens < MIN_CACHEABLE_TOKENS:
                continue
            if tokens > upto:
                written[ttl] += tokens - upto
                upto = tokens
            self._remember(digest, now + TTL_SECONDS[ttl])
        if hit is not None:
            self._remember(prefixes[hit][0], max(self._expires.get(prefixes[hit][0], 0.0), now + TTL_SECONDS["5m"]))
        return InputUsage(total - upto, read, written["5m"], written["1h"])

    def _longest_hit(self, prefixes: list[tuple[bytes, int]], breakpoints: list[int], now: float) -> int | None:
        for position in reversed(breakpoints):
            for earlier in range(position, max(-1, position - CACHE_LOOKBACK_BLOCKS - 1), -1):
                if self._expires.get(prefixes[earlier][0], 0.0) > now:
                    return earlier
        return None

    def _remember(self, digest: bytes, expires: float) -> None:
        self._expires[digest] = max(expires, self._expires.get(digest, 0.0))
        self._expires.move_to_end(digest)
        while len(self._expires) > CACHE_ENTRIES:
            self._expires.popitem(last=False)


def _prefixes(parts: list[Segment], scope: str) -> list[tuple[bytes, int]]:
    running = hashlib.sha256(scope.encode(errors="surrogatepass"))
    tokens = REQUEST_OVERHEAD
    found: list[tuple[bytes, int]] = []
    for part in parts:
        running.update(len(part.identity).to_bytes(8, "big") + part.identity)
        tokens += part.tokens
        found.append((running.digest(), tokens))
    return found


def _segment(prefix: bytes, block: Mapping[str, Any], overhead: int) -> Segment:
    identity = prefix + _json(_without_cache_control(block)).encode(errors="surrogatepass")
    return Segment(identity, block_tokens(block) + overhead, _ttl(block))


def _ttl(holder: Mapping[str, Any]) -> str | None:
    control = holder.get("cache_control")
    if not isinstance(control, dict):
        return None
    return "1h" if control.get("ttl") == "1h" else "5m"


def _without_cache_control(block: Mapping[str, Any]) -> JsonDict:
    return {name: value for name, value in block.items() if name != "cache_control"}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _decoded(source: Mapping[str, Any]) -> bytes | None:
    if source.get("type") != "base64":
        return None
    try:
        return base64.b64decode(str(source.get("data", "")), validate=False)
    except (binascii.Error, ValueError):
        return None

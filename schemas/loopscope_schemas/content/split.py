"""A whole request or answer split into content blocks, prompts and one shape.

The shape of a document is its JSON text in which `["%", ...]` stands for the next content block, `["$", ...]` for the
next prompt with its shape here, `["$$"]` for the next prompt with its shape stored beside its text (tool definitions
are nearly all shape), and `["!", ["%", "#n"]]` at the top for text that is no JSON.

An agent sends its whole history with every call. A `Memo` remembers the messages of a trace's last request, so that of
a growing history only what is new is parsed: a message whose text stands unchanged at its place is recognised by one
comparison. A memo changes the cost of splitting, never shapes, hashes or texts; it also lends a tool's result the name
of a tool whose call stood in an earlier document of the trace.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_schemas.content.blocks import Blob, Block, Splitter, digest, split_block
from loopscope_schemas.content.exact_json import DECODER, InexactJsonError, Json, Pairs, Raw, dump, quote

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_INLINE_MAX_CHARS: Final = 1_024
"""A longer value outside of messages becomes a block: shapes are kept for each call, blocks once."""
_CONTENT_KEYS: Final = frozenset({"content", "parts", "tool_calls"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt or a set of tool definitions, stored once a day by hash."""

    kind: str
    """`system` or `tools`."""
    hash: bytes
    body: str
    shape: str
    """Of tool definitions; empty for a system prompt, whose shape belongs to each call."""
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a list, split."""

    role: str
    shape: str
    blocks: tuple[Block, ...]


@dataclass(slots=True)
class Split:
    """What a document was split into."""

    shape: str = ""
    blocks: list[Block] = field(default_factory=list[Block])
    """In order of appearance; the shape refers to them by position."""
    prompts: list[Prompt] = field(default_factory=list[Prompt])
    """In order of appearance."""
    messages: list[Message] = field(default_factory=list[Message])
    params: dict[str, Json] = field(default_factory=dict[str, Json])
    """The other values of the top level that are short: model, max_tokens, temperature, metadata, usage ..."""


@dataclass(slots=True)
class Memo:
    """What the last document of a trace consisted of: text of a part -> that part, split."""

    messages: list[tuple[str, Message]] = field(default_factory=list[tuple[str, Message]])
    prompts: dict[str, tuple[str, str, Prompt]] = field(default_factory=dict[str, tuple[str, str, Prompt]])
    """By kind: (text, shape in the document, prompt)."""
    tools_by_id: dict[str, str] = field(default_factory=dict[str, str])

    def size(self) -> int:
        """Characters held."""
        return sum(len(text) for text, _ in self.messages) + sum(len(text) for text, _, _ in self.prompts.values())


def split_document(body: bytes, memo: Memo | None = None, *, role: str = "assistant", prompts: bool = True) -> Split:
    """Split a provider's request or answer (a JSON object). `role` is that of a top-level `content` without a role.

    `prompts` says whether `system` and `tools` of the top level are prompts; an answer that echoes them is split
    without.

    Never raises: what is not JSON, not UTF-8 or nested too deep is kept whole as one opaque block.
    """
    try:
        return _document(body.decode(), memo if memo is not None else Memo(), role, prompts)
    except (ValueError, RecursionError):
        return split_opaque(body)


def split_messages(text: str, memo: Memo | None = None, *, role: str = "") -> Split:
    """Split a JSON array of messages, as OpenTelemetry's gen_ai.input.messages holds it. Never raises."""
    split = Split()
    try:
        start = _skip(text, 0)
        if text[start : start + 1] != "[":
            return split_opaque(text.encode("utf-8", "surrogatepass"))
        shape, end = _messages(text, start, split, memo if memo is not None else Memo(), role)
        if _skip(text, end) != len(text):
            return split_opaque(text.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return split_opaque(text.encode("utf-8", "surrogatepass"))
    split.shape = shape
    return split


def split_prompt(kind: str, value: Json) -> tuple[Prompt, str]:
    """A system prompt (`system`) or tool definitions (`tools`), and the shape to stand for it in its document."""
    splitter = Splitter()
    shape = splitter.shape(value, "", None, False, 0)
    body = "\n".join(splitter.leaves)
    blobs = tuple(splitter.blobs)
    if kind == "tools":
        return Prompt(kind, digest(kind, shape, body), body, shape, blobs), '["$$"]'
    return Prompt(kind, digest(kind, body, *(blob.hash for blob in blobs)), body, "", blobs), f'["$",{shape}]'


def split_text(role: str, kind: str, text: str, *, tool: str = "", call_id: str = "") -> Split:
    """A plain text or JSON text (a tool's arguments or result, a run's input) as one block of a kind."""
    value: Json
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        value = text
        shape_prefix = '["!",'
        shape_suffix = "]"
    else:
        shape_prefix = shape_suffix = ""
    splitter = Splitter()
    # The arguments of a call read `name: value`, like a tool_use block's input.
    label_source: Json = {"arguments": value} if kind == "tool_call" and isinstance(value, dict) else value
    try:
        shape = splitter.shape(label_source, "", None, False, 0)
    except InexactJsonError:
        return split_opaque(text.encode("utf-8", "surrogatepass"), role=role, kind=kind, tool=tool)
    if label_source is not value:
        shape = shape[len('{"arguments":') : -1]
    body = "\n".join(splitter.leaves)
    blobs = tuple(splitter.blobs)
    hash_ = digest(role, kind, call_id, body, *(blob.hash for blob in blobs))
    block = Block(hash_, role, kind, kind if kind in ("tool_call", "tool_result") else role, tool, body, blobs)
    return Split(shape=f'{shape_prefix}["%",{shape}]{shape_suffix}', blocks=[block])


def split_opaque(data: bytes, *, role: str = "other", kind: str = "opaque", tool: str = "") -> Split:
    """Bytes that are no JSON, kept whole and reversibly (bytes that are not UTF-8 as escaped surrogates)."""
    text = data.decode("utf-8", "surrogateescape")
    splitter = Splitter()
    shape = splitter.shape(text, "", None, False, 0)
    body = "\n".join(splitter.leaves)
    block = Block(digest(role, kind, "", body), role, kind, "other", tool, body)
    return Split(shape=f'["!",["%",{shape}]]', blocks=[block])


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _fail(text: str, at: int, wanted: str) -> InexactJsonError:
    return InexactJsonError(f"expected {wanted} at character {at}, found {text[at : at + 20]!r}")


def _members(text: str, at: int) -> Generator[tuple[str, int], int, None]:
    """Keys of the object at `at`, each with the place of its value; send the value's end back."""
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        yield "", -(at + 1)
        return
    while True:
        if text[at : at + 1] != '"':
            raise _fail(text, at, "a key")
        key, at = DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _fail(text, at, "':'")
        end = yield key, _skip(text, at + 1)
        at = _skip(text, end)
        closing = text[at : at + 1]
        if closing == "}":
            yield "", -(at + 1)
            return
        if closing != ",":
            raise _fail(text, at, "',' or '}'")
        at = _skip(text, at + 1)


def _document(text: str, memo: Memo, role: str, prompts: bool) -> Split:
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        raise _fail(text, start, "an object")
    split = Split()
    parts: list[str] = []
    members = _members(text, start)
    key, at = next(members)
    while at >= 0:
        if key == "messages" and text[at : at + 1] == "[":
            shape, end = _messages(text, at, split, memo, "")
        elif prompts and key in ("system", "tools"):
            shape, end = _prompt(text, at, key, split, memo)
        elif key == "content" and text[at : at + 1] in ("[", '"'):
            value, end = DECODER.raw_decode(text, at)
            stated = split.params.get("role")
            message_role = stated if isinstance(stated, str) else role
            shape, blocks = _content(message_role, value, memo)
            split.messages.append(Message(message_role, shape, tuple(blocks)))
            split.blocks.extend(blocks)
        else:
            value, end = DECODER.raw_decode(text, at)
            shape = _other(key, value, end - at, split)
        parts.append(f"{quote(key)}:{shape}")
        key, at = members.send(end)
    if _skip(text, -at) != len(text):
        raise _fail(text, -at, "the end")
    split.shape = "{" + ",".join(parts) + "}"
    return split


def _other(key: str, value: Any, chars: int, split: Split) -> str:
    if chars > _INLINE_MAX_CHARS:
        block, shape = split_block("other", value)
        split.blocks.append(block)
        return f'["%",{shape}]'
    split.params[key] = value
    return Splitter().shape(value, "", None, True, 0)


def _prompt(text: str, at: int, kind: str, split: Split, memo: Memo) -> tuple[str, int]:
    known = memo.prompts.get(kind)
    if known and known[0][:1] in '[{"' and text.startswith(known[0], at):
        known_text, shape, prompt = known
        split.prompts.append(prompt)
        return shape, at + len(known_text)
    value, end = DECODER.raw_decode(text, at)
    if not isinstance(value, (list, str)) or isinstance(value, Raw):
        return _other(kind, value, end - at, split), end
    prompt, shape = split_prompt(kind, value)
    memo.prompts[kind] = (text[at:end], shape, prompt)
    split.prompts.append(prompt)
    return shape, end


def _messages(text: str, at: int, split: Split, memo: Memo, role: str) -> tuple[str, int]:
    known = memo.messages
    kept: list[tuple[str, Message]] = []
    shapes: list[str] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        memo.messages = kept
        return "[]", at + 1
    while True:
        place = len(kept)
        if place < len(known) and known[place][0][:1] == "{" and text.startswith(known[place][0], at):
            entry = known[place]
            end = at + len(entry[0])
        else:
            value, end = DECODER.raw_decode(text, at)
            entry = (text[at:end], _message(value, memo, role))
        kept.append(entry)
        message = entry[1]
        shapes.append(message.shape)
        split.messages.append(message)
        split.blocks.extend(message.blocks)
        at = _skip(text, end)
        closing = text[at : at + 1]
        if closing == "]":
            break
        if closing != ",":
            raise _fail(text, at, "',' or ']'")
        at = _skip(text, at + 1)
    memo.messages = kept
    return "[" + ",".join(shapes) + "]", at + 1


def _message(value: Any, memo: Memo, default_role: str) -> Message:
    if not isinstance(value, dict):
        block, shape = split_block(default_role or "other", value)
        return Message(block.role, f'["%",{shape}]', (block,))
    stated = value.get("role")
    role = stated if isinstance(stated, str) and not isinstance(stated, Raw) else default_role
    call_id = value.get("tool_call_id")
    tool = memo.tools_by_id.get(call_id, "") if isinstance(call_id, str) else ""
    parts: list[str] = []
    blocks: list[Block] = []
    for key, item in value.items():
        if key in _CONTENT_KEYS and isinstance(item, (list, str)) and not isinstance(item, Raw):
            shape, found = _content(role, item, memo, tool)
            blocks.extend(found)
        elif len(text := dump(item)) > _INLINE_MAX_CHARS:
            block, inner = split_block(role, item)
            blocks.append(block)
            shape = f'["%",{inner}]'
        else:
            shape = (
                text if not isinstance(item, (str, dict, list, Pairs)) else Splitter().shape(item, "", None, True, 0)
            )
        parts.append(f"{quote(key)}:{shape}")
    return Message(role, "{" + ",".join(parts) + "}", tuple(blocks))


def _content(role: str, value: Any, memo: Memo, tool: str = "") -> tuple[str, list[Block]]:
    if isinstance(value, str):
        block, shape = split_block(role, value, tool)
        return f'["%",{shape}]', [block]
    shapes: list[str] = []
    blocks: list[Block] = []
    for item in value:
        block, shape = split_block(role, item, tool or _tool_of_result(item, memo))
        if block.tool and isinstance(item, dict) and isinstance(item.get("id"), str) and block.source == "tool_call":
            memo.tools_by_id[item["id"]] = block.tool
        shapes.append(f'["%",{shape}]')
        blocks.append(block)
    return "[" + ",".join(shapes) + "]", blocks


def _tool_of_result(item: Any, memo: Memo) -> str:
    if not isinstance(item, dict):
        return ""
    for key in ("tool_use_id", "id"):
        call_id = item.get(key)
        if isinstance(call_id, str) and call_id in memo.tools_by_id:
            return memo.tools_by_id[call_id]
    return ""

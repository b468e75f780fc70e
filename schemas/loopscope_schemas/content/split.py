"""A whole request or answer split into content blocks, prompts and one shape.

The shape of a document is its JSON text in which `["%", ...]` stands for the next content block, `["$", ...]` for the
next prompt with its shape here, `["$$"]` for the next prompt with its shape stored beside its text (tool definitions
are nearly all shape), and `["!", ["%", "#n"]]` at the top for text that is no JSON.

An agent sends its whole history with every call. A `Memo` remembers a trace's last request, so that of a growing
history only what is new is parsed: what stands before the messages, the messages known from before and what stands
behind them are each recognised by one comparison; where that fails, message by message. A memo changes the cost of
splitting, never shapes, hashes or texts; it also lends a tool's result the name of a tool whose call stood in an
earlier document of the trace.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_schemas.content.blocks import Blob, Block, Splitter, digest, literal_shape, split_block
from loopscope_schemas.content.exact_json import DECODER, InexactJsonError, Json, Pairs, Raw, dump, quote, quote_key

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SPACES: Final = frozenset(" \t\n\r")
_INLINE_MAX_CHARS: Final = 1_024
"""A longer value outside of messages becomes a block: shapes are kept for each call, blocks once."""
_SHORT_CHARS: Final = 100
"""Short enough to be inline whatever it takes to quote."""
_MOVING: Final = 4
"""Messages at the end of a known history that may have changed before all are looked at one by one."""
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


@dataclass(slots=True)
class Message:
    """One message of a list, split. Shared by all that hold it: not to be changed."""

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
    params_text: str | None = None
    """`params` as JSON text, where it is at hand."""


@dataclass(slots=True)
class _Frame:
    """What stands before or behind the messages of a document, split."""

    text: str
    parts: list[str]
    blocks: list[Block]
    prompts: list[Prompt]
    params: dict[str, Json]


@dataclass(slots=True)
class _History:
    """The messages of a document, split."""

    text: str = ""
    """From the beginning of the first to the end of the last."""
    starts: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    messages: list[Message] = field(default_factory=list[Message])
    shapes: list[str] = field(default_factory=list[str])
    blocks: list[Block] = field(default_factory=list[Block])
    block_ends: list[int] = field(default_factory=list[int])
    """Number of blocks up to and including each message."""


@dataclass(slots=True)
class Memo:
    """What the last document of a trace consisted of."""

    head: _Frame | None = None
    tail: _Frame | None = None
    """Only together with the head before it."""
    params_text: str = ""
    """Of head and tail together."""
    history: _History = field(default_factory=_History)
    prompts: dict[str, tuple[str, str, Prompt]] = field(default_factory=dict[str, tuple[str, str, Prompt]])
    """By kind: (text, shape in the document, prompt)."""
    tools_by_id: dict[str, str] = field(default_factory=dict[str, str])

    def size(self) -> int:
        """Characters held, about: the document and, apart from it, the bodies of its blocks."""
        frames = len(self.head.text) if self.head else 0
        if self.tail:
            frames += len(self.tail.text)
        return 2 * (frames + len(self.history.text))


def split_document(body: bytes, memo: Memo | None = None, *, role: str = "assistant") -> Split:
    """Split a provider's request (a JSON object). `role` is that of a top-level `content` without a role.

    Never raises: what is not JSON, not UTF-8 or nested too deep is kept whole as one opaque block.
    """
    try:
        return _document(body.decode(), memo if memo is not None else Memo(), role)
    except (ValueError, RecursionError):
        return split_opaque(body)


def split_answer(body: bytes, memo: Memo | None = None, *, role: str = "assistant") -> Split:
    """Split a provider's answer (a JSON object with `content`). `system` and `tools` that it echoes are no prompts.

    Never raises: what is not JSON, not UTF-8 or nested too deep is kept whole as one opaque block.
    """
    try:
        value = DECODER.decode(body.decode())
        if type(value) is not dict:
            return split_opaque(body)
        return _answer(value, memo if memo is not None else Memo(), role)
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
    if text[at : at + 1] not in _SPACES:
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _fail(text: str, at: int, wanted: str) -> InexactJsonError:
    return InexactJsonError(f"expected {wanted} at character {at}, found {text[at : at + 20]!r}")


def _members(text: str, at: int, *, inside: bool = False) -> Generator[tuple[str, int], int, None]:
    """Keys of the object at `at`, each with the place of its value; send the value's end back.

    With `inside`, `at` is the end of one of its values, and those behind it are meant.
    """
    at = _skip(text, at if inside else at + 1)
    if text[at : at + 1] == "}":
        yield "", -(at + 1)
        return
    if inside:
        if text[at : at + 1] != ",":
            raise _fail(text, at, "',' or '}'")
        at = _skip(text, at + 1)
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


def _document(text: str, memo: Memo, role: str) -> Split:
    head, tail = memo.head, memo.tail
    if head is None or not text.startswith(head.text):
        head, tail = _read_head(text, memo, role), None
    if head is None:
        return _without_messages(text, memo, role)
    split = Split(blocks=head.blocks.copy(), prompts=head.prompts.copy(), params=head.params.copy())
    shape, end = _messages(text, len(head.text) - 1, split, memo, "")
    if tail is None or len(text) - end != len(tail.text) or not text.endswith(tail.text):
        tail = _read_tail(text, end, split, memo, role)
    split.blocks += tail.blocks
    split.prompts += tail.prompts
    split.params |= tail.params
    split.shape = "{" + ",".join([*head.parts, f'"messages":{shape}', *tail.parts]) + "}"
    if memo.tail is not tail or not memo.params_text:
        memo.params_text = dump(split.params)
    split.params_text = memo.params_text
    memo.head, memo.tail = head, tail
    return split


def _read_head(text: str, memo: Memo, role: str) -> _Frame | None:
    """Everything before the first list of messages, its bracket included; None when there is none."""
    found = Split()
    parts: list[str] = []
    members = _members(text, _object_start(text))
    key, at = next(members)
    while at >= 0:
        if key == "messages" and text[at : at + 1] == "[":
            return _Frame(text[: at + 1], parts, found.blocks, found.prompts, found.params)
        shape, end = _member(text, at, key, found, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, at = members.send(end)
    return None


def _read_tail(text: str, at: int, head: Split, memo: Memo, role: str) -> _Frame:
    """Everything behind the list of messages that ends at `at`."""
    found = Split(params=head.params.copy())
    parts: list[str] = []
    members = _members(text, at, inside=True)
    key, place = next(members)
    while place >= 0:
        if key == "messages" and text[place : place + 1] == "[":
            shape, end = _messages(text, place, found, Memo(tools_by_id=memo.tools_by_id), "")
        else:
            shape, end = _member(text, place, key, found, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, place = members.send(end)
    _expect_end(text, -place)
    return _Frame(text[at:], parts, found.blocks, found.prompts, found.params)


def _without_messages(text: str, memo: Memo, role: str) -> Split:
    split = Split()
    parts: list[str] = []
    members = _members(text, _object_start(text))
    key, at = next(members)
    while at >= 0:
        shape, end = _member(text, at, key, split, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, at = members.send(end)
    _expect_end(text, -at)
    split.shape = "{" + ",".join(parts) + "}"
    return split


def _object_start(text: str) -> int:
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        raise _fail(text, start, "an object")
    return start


def _expect_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise _fail(text, at, "the end")


def _member(text: str, at: int, key: str, split: Split, memo: Memo, role: str) -> tuple[str, int]:
    """Shape and end of one value of the top level that is no list of messages."""
    if key in ("system", "tools"):
        return _prompt(text, at, key, split, memo)
    value, end = DECODER.raw_decode(text, at)
    if key == "content" and isinstance(value, (list, str)) and not isinstance(value, Raw):
        return _top_content(value, split, memo, role), end
    return _other(key, value, end - at, split), end


def _answer(document: dict[str, Any], memo: Memo, role: str) -> Split:
    split = Split()
    parts: list[str] = []
    for key, value in document.items():
        if key == "content" and isinstance(value, (list, str)) and not isinstance(value, Raw):
            shape = _top_content(value, split, memo, role)
        else:
            shape = literal_shape(value)
            if len(shape) > _INLINE_MAX_CHARS:
                block, shape = split_block("other", value)
                split.blocks.append(block)
                shape = f'["%",{shape}]'
            else:
                split.params[key] = value
        parts.append(f"{quote_key(key)}:{shape}")
    split.shape = "{" + ",".join(parts) + "}"
    return split


def _top_content(value: Any, split: Split, memo: Memo, role: str) -> str:
    stated = split.params.get("role")
    message_role = stated if type(stated) is str else role
    shape, blocks = _content(message_role, value, memo)
    split.messages.append(Message(message_role, shape, tuple(blocks)))
    split.blocks.extend(blocks)
    return shape


def _other(key: str, value: Any, chars: int, split: Split) -> str:
    if chars > _INLINE_MAX_CHARS:
        block, shape = split_block("other", value)
        split.blocks.append(block)
        return f'["%",{shape}]'
    split.params[key] = value
    return literal_shape(value)


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
    """Shape and end of the list at `at`."""
    first = _skip(text, at + 1)
    if text[first : first + 1] == "]":
        memo.history = _History()
        return "[]", first + 1
    known = memo.history
    same = _common(known, text, first)
    blocks_end = known.block_ends[same - 1] if same else 0
    now = _History(
        starts=known.starts[:same],
        ends=known.ends[:same],
        messages=known.messages[:same],
        shapes=known.shapes[:same],
        blocks=known.blocks[:blocks_end],
        block_ends=known.block_ends[:same],
    )
    end = first + known.ends[same - 1] if same else first
    closing = ","
    if same:
        end, closing = _separator(text, end)
    while closing == ",":
        place = len(now.starts)
        old = known.text[known.starts[place] : known.ends[place]] if place < len(known.starts) else ""
        if old[-1:] == "}" and text.startswith(old, end):
            message = known.messages[place]
            value_end = end + len(old)
        else:
            value, value_end = DECODER.raw_decode(text, end)
            message = _message(value, memo, role)
        now.starts.append(end - first)
        now.ends.append(value_end - first)
        now.messages.append(message)
        now.shapes.append(message.shape)
        now.blocks.extend(message.blocks)
        now.block_ends.append(len(now.blocks))
        end, closing = _separator(text, value_end)
    now.text = text[first : first + now.ends[-1]]
    memo.history = now
    split.messages += now.messages
    split.blocks += now.blocks
    return "[" + ",".join(now.shapes) + "]", end


def _separator(text: str, at: int) -> tuple[int, str]:
    """Behind an item: the place of the next one and a comma, or the list's end and its bracket."""
    at = _skip(text, at)
    closing = text[at : at + 1]
    if closing == ",":
        return _skip(text, at + 1), closing
    if closing != "]":
        raise _fail(text, at, "',' or ']'")
    return at + 1, closing


def _common(known: _History, text: str, first: int) -> int:
    """How many messages stand at `first` as they stood before.

    Of a growing history all do. Where a cache breakpoint moves, the last few differ: those are tried without. A
    message ends where its object ends, so no longer one can begin with its text.
    """
    for left_out in range(min(_MOVING, len(known.ends))):
        same = len(known.ends) - left_out
        end = known.ends[same - 1]
        if known.text[end - 1] == "}" and text.startswith(known.text[:end] if left_out else known.text, first):
            return same
    return 0


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
        elif type(item) is str and len(item) < _SHORT_CHARS:
            shape = quote("=" + item)
        elif len(text := dump(item)) > _INLINE_MAX_CHARS:
            block, inner = split_block(role, item)
            blocks.append(block)
            shape = f'["%",{inner}]'
        else:
            shape = text if not isinstance(item, (str, dict, list, Pairs)) else literal_shape(item)
        parts.append(f"{quote_key(key)}:{shape}")
    return Message(role, "{" + ",".join(parts) + "}", tuple(blocks))


def _content(role: str, value: Any, memo: Memo, tool: str = "") -> tuple[str, list[Block]]:
    if isinstance(value, str):
        block, shape = split_block(role, value, tool)
        return f'["%",{shape}]', [block]
    shapes: list[str] = []
    blocks: list[Block] = []
    tools = memo.tools_by_id
    for item in value:
        block, shape = split_block(role, item, tool or (_tool_of_result(item, tools) if tools else ""))
        if block.source == "tool_call" and block.tool and isinstance(item, dict) and isinstance(item.get("id"), str):
            tools[item["id"]] = block.tool
        shapes.append(f'["%",{shape}]')
        blocks.append(block)
    return "[" + ",".join(shapes) + "]", blocks


def _tool_of_result(item: Any, tools: dict[str, str]) -> str:
    if type(item) is not dict:
        return ""
    for key in ("tool_use_id", "id"):
        call_id = item.get(key)
        if isinstance(call_id, str) and call_id in tools:
            return tools[call_id]
    return ""

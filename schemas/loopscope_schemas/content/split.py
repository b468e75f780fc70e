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

from typing import Any

from loopscope_schemas.content.blocks import Block, Splitter, digest, literal_shape, split_block
from loopscope_schemas.content.exact_json import DECODER, InexactJsonError, Json, Raw, dump, quote, quote_key
from loopscope_schemas.content.history import read_content, read_messages
from loopscope_schemas.content.parts import INLINE_MAX_CHARS, Frame, Memo, Message, Prompt, Split
from loopscope_schemas.content.scan import expect_end, members_of, object_start, skip_space


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
        start = skip_space(text, 0)
        if text[start : start + 1] != "[":
            return split_opaque(text.encode("utf-8", "surrogatepass"))
        shape, end = read_messages(text, start, split, memo if memo is not None else Memo(), role)
        if skip_space(text, end) != len(text):
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


def _document(text: str, memo: Memo, role: str) -> Split:
    head, tail = memo.head, memo.tail
    if head is None or not text.startswith(head.text):
        head, tail = _read_head(text, memo, role), None
    if head is None:
        return _without_messages(text, memo, role)
    split = Split(blocks=head.blocks.copy(), prompts=head.prompts.copy(), params=head.params.copy())
    shape, end = read_messages(text, len(head.text) - 1, split, memo, "")
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


def _read_head(text: str, memo: Memo, role: str) -> Frame | None:
    """Everything before the first list of messages, its bracket included; None when there is none."""
    found = Split()
    parts: list[str] = []
    members = members_of(text, object_start(text))
    key, at = next(members)
    while at >= 0:
        if key == "messages" and text[at : at + 1] == "[":
            return Frame(text[: at + 1], parts, found.blocks, found.prompts, found.params)
        shape, end = _member(text, at, key, found, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, at = members.send(end)
    return None


def _read_tail(text: str, at: int, head: Split, memo: Memo, role: str) -> Frame:
    """Everything behind the list of messages that ends at `at`."""
    found = Split(params=head.params.copy())
    parts: list[str] = []
    members = members_of(text, at, inside=True)
    key, place = next(members)
    while place >= 0:
        if key == "messages" and text[place : place + 1] == "[":
            shape, end = read_messages(text, place, found, Memo(tools_by_id=memo.tools_by_id), "")
        else:
            shape, end = _member(text, place, key, found, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, place = members.send(end)
    expect_end(text, -place)
    return Frame(text[at:], parts, found.blocks, found.prompts, found.params)


def _without_messages(text: str, memo: Memo, role: str) -> Split:
    split = Split()
    parts: list[str] = []
    members = members_of(text, object_start(text))
    key, at = next(members)
    while at >= 0:
        shape, end = _member(text, at, key, split, memo, role)
        parts.append(f"{quote(key)}:{shape}")
        key, at = members.send(end)
    expect_end(text, -at)
    split.shape = "{" + ",".join(parts) + "}"
    return split


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
            if len(shape) > INLINE_MAX_CHARS:
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
    shape, blocks = read_content(message_role, value, memo)
    split.messages.append(Message(message_role, shape, tuple(blocks)))
    split.blocks.extend(blocks)
    return shape


def _other(key: str, value: Any, chars: int, split: Split) -> str:
    if chars > INLINE_MAX_CHARS:
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

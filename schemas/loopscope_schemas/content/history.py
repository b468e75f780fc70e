"""A list of messages split, of a growing history only what is new: what is known is recognised by comparing text."""

from typing import Any, Final

from loopscope_schemas.content.blocks import Block, literal_shape, split_block
from loopscope_schemas.content.exact_json import DECODER, Pairs, Raw, dump, quote, quote_key
from loopscope_schemas.content.parts import INLINE_MAX_CHARS, SHORT_CHARS, History, Memo, Message, Split
from loopscope_schemas.content.scan import separator, skip_space

_MOVING: Final = 4
"""Messages at the end of a known history that may have changed before all are looked at one by one."""
_CONTENT_KEYS: Final = frozenset({"content", "parts", "tool_calls"})


def read_messages(text: str, at: int, split: Split, memo: Memo, role: str) -> tuple[str, int]:
    """Shape and end of the list at `at`."""
    first = skip_space(text, at + 1)
    if text[first : first + 1] == "]":
        memo.history = History()
        return "[]", first + 1
    known = memo.history
    same = _common(known, text, first)
    blocks_end = known.block_ends[same - 1] if same else 0
    now = History(
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
        end, closing = separator(text, end)
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
        end, closing = separator(text, value_end)
    now.text = text[first : first + now.ends[-1]]
    memo.history = now
    split.messages += now.messages
    split.blocks += now.blocks
    return "[" + ",".join(now.shapes) + "]", end


def _common(known: History, text: str, first: int) -> int:
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
            shape, found = read_content(role, item, memo, tool)
            blocks.extend(found)
        elif type(item) is str and len(item) < SHORT_CHARS:
            shape = quote("=" + item)
        elif len(text := dump(item)) > INLINE_MAX_CHARS:
            block, inner = split_block(role, item)
            blocks.append(block)
            shape = f'["%",{inner}]'
        else:
            shape = text if not isinstance(item, (str, dict, list, Pairs)) else literal_shape(item)
        parts.append(f"{quote_key(key)}:{shape}")
    return Message(role, "{" + ",".join(parts) + "}", tuple(blocks))


def read_content(role: str, value: Any, memo: Memo, tool: str = "") -> tuple[str, list[Block]]:
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

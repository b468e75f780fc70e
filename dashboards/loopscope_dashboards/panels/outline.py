"""The shape of a recorded request or answer, read as messages: who says what in which order, without the texts.

A shape is the document's JSON with a marker for each content block. Pure; the texts are joined in `panels.blocks`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_schemas.content import InexactJsonError, Json, Pairs, Raw, dump, parse

_LITERAL: Final = "="


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A content block at its place in a document."""

    place: int
    """Index into the call's list of hashes."""
    shape: Any
    """The block's own shape, parsed."""


@dataclass(slots=True)
class MessageRef:
    """One message: its role and its blocks in order."""

    role: str
    blocks: list[BlockRef] = field(default_factory=list[BlockRef])


@dataclass(slots=True)
class Outline:
    """A document's messages, and the content that stands outside of messages."""

    messages: list[MessageRef] = field(default_factory=list[MessageRef])
    other: list[tuple[str, BlockRef]] = field(default_factory=list[tuple[str, BlockRef]])
    """(name of the field, block)"""
    readable: bool = True
    """False when the shape is not one that this version understands."""


def outline_of(shape: str, role: str = "assistant") -> Outline:
    """Read a shape. `role` is that of content at the top level without a role of its own. Never raises."""
    outline = Outline()
    if not shape:
        return outline
    try:
        document = parse(shape)
    except InexactJsonError:
        outline.readable = False
        return outline
    counter = _Counter()
    if isinstance(document, (dict, Pairs)):
        _top(_items(document), outline, counter, role)
    elif isinstance(document, list):
        if _is_block(document) or _is_opaque(document):
            outline.messages.append(MessageRef(role, counter.blocks(document)))
        else:
            for message in document:
                _message(message, outline, counter, role)
    return outline


class _Counter:
    """Numbers blocks in the order in which joining a document asks for them: as they stand."""

    def __init__(self) -> None:
        self._next = 0

    def blocks(self, value: Any) -> list[BlockRef]:
        """All blocks inside a value."""
        if _is_block(value):
            found = BlockRef(self._next, value[1])
            self._next += 1
            return [found]
        if isinstance(value, Pairs):
            return [block for _, item in value for block in self.blocks(item)]
        if isinstance(value, list):
            if value and value[0] in ("$", "$$"):
                return []
            return [block for item in value for block in self.blocks(item)]
        if isinstance(value, dict):
            return [block for item in value.values() for block in self.blocks(item)]
        return []


def _top(items: "list[tuple[str, Any]]", outline: Outline, counter: _Counter, role: str) -> None:
    stated = dict(items).get("role")
    for name, value in items:
        if name == "messages" and isinstance(value, list) and not _is_block(value):
            for message in value:
                _message(message, outline, counter, "other")
        elif name == "content":
            outline.messages.append(MessageRef(_literal(stated) or role, counter.blocks(value)))
        else:
            outline.other.extend((name, block) for block in counter.blocks(value))


def _message(message: Any, outline: Outline, counter: _Counter, default: str) -> None:
    role = default
    if isinstance(message, (dict, Pairs)):
        role = _literal(dict(_items(message)).get("role")) or default
    outline.messages.append(MessageRef(role, counter.blocks(message)))


def _items(value: "dict[str, Any] | Pairs") -> "list[tuple[str, Any]]":
    return list(value.items()) if isinstance(value, dict) else list(value)


def _is_block(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs) and len(value) == 2 and value[0] == "%"


def _is_opaque(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] == "!"


def _literal(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Raw) and value.startswith(_LITERAL):
        return value[1:]
    return ""


def common_prefix(before: list[str], now: list[str]) -> int:
    """How many blocks at the front of two histories are the same."""
    same = 0
    for one, other in zip(before, now, strict=False):
        if one != other:
            break
        same += 1
    return same


def pretty(value: Json, indent: int = 0) -> str:
    """JSON for reading: two spaces a level, numbers as they were written, short containers on one line."""
    flat = dump(value)
    if len(flat) + indent <= 88 or not isinstance(value, (dict, list)) or not value:
        return flat
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, (dict, Pairs)):
        lines = [f"{inner}{dump(key)}: {pretty(item, indent + 2)}" for key, item in _items(value)]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    lines = [f"{inner}{pretty(item, indent + 2)}" for item in value]
    return "[\n" + ",\n".join(lines) + f"\n{outer}]"

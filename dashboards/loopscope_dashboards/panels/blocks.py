"""Content blocks as a reader wants them: text as text, a tool call as its name and input, a result as what it says.

Pure: shapes and (cut) texts in, node trees out. Nothing is interpreted beyond the block's own JSON; a block whose text
was cut, or whose form is not known, is shown as its plain text.
"""

from dataclasses import dataclass
from typing import Any, Final

from loopscope_dashboards.panels.nodes import Child, Node, badge, node
from loopscope_dashboards.panels.outline import BlockRef, pretty
from loopscope_dashboards.queries.turn import Text
from loopscope_schemas.content import InexactJsonError, Json, Pairs, dump, join_block, parse

_BINARY: Final = "@"
_CALL_KINDS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "server_tool_call"})
_THINKING_KINDS: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})
_PRETTY_MAX_CHARS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a block: an optional caption and text to show."""

    text: str
    caption: str = ""
    kind: str = ""
    """thinking, json or empty."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A block, ready to draw."""

    kind: str
    title: str
    """The tool's name, the attachment's type ..."""
    parts: tuple[Part, ...]
    chips: tuple[str, ...] = ()
    is_error: bool = False
    cut_from: int | None = None
    """Characters of the whole text, when it was cut."""


def read_block(ref: BlockRef, text: Text | None) -> Shown:
    """What to show of a block. `text` is None when the store no longer has it."""
    kind = _kind(ref.shape)
    if text is None:
        return Shown(kind, "", (Part("The text of this block is not in the store: its retention may have ended."),))
    if text.chars > len(text.body):
        return Shown(kind, "", (Part(text.body),), cut_from=text.chars)
    try:
        value = join_block(dump(_without_binaries(ref.shape)), text.body, lambda _: b"")
    except (ValueError, InexactJsonError):
        return Shown(kind, "", (Part(text.body),))
    return read_value(value, kind)


def read_value(value: Any, kind: str = "text") -> Shown:
    """What to show of a block's JSON."""
    if isinstance(value, str):
        return Shown("text", "", (Part(value),))
    if not isinstance(value, dict):
        return Shown(kind, "", (Part(pretty(value), kind="json"),))
    chips = tuple(name for name in ("cache_control", "citations") if value.get(name))
    if kind == "text" and isinstance(value.get("text", value.get("content")), str):
        return Shown(kind, "", (Part(str(value.get("text", value.get("content")))),), chips)
    if kind in _THINKING_KINDS:
        thought = value.get("thinking", value.get("content", value.get("data", "")))
        hidden = kind == "redacted_thinking"
        return Shown(
            kind, "", (Part("(encrypted by the provider)" if hidden else str(thought), kind="thinking"),), chips
        )
    if kind in _CALL_KINDS:
        return Shown(
            kind, str(value.get("name", "")), read_arguments(value.get("input", value.get("arguments"))), chips
        )
    if kind.endswith("tool_result") or kind == "tool_call_response":
        content = value.get("content", value.get("result", value.get("response")))
        return Shown(kind, "", _result(content), chips, is_error=value.get("is_error") is True)
    source = value.get("source")
    if isinstance(source, dict):
        return Shown(kind, str(source.get("media_type", source.get("type", ""))), _attachment(value, source), chips)
    return Shown(kind, "", (Part(pretty(value), kind="json"),), chips)


def read_arguments(value: Any) -> tuple[Part, ...]:
    """A tool's input: long texts under their own names, so that their line breaks are line breaks."""
    if isinstance(value, str):
        return (_maybe_json(value),)
    if isinstance(value, dict) and any(
        isinstance(item, str) and ("\n" in item or len(item) > 100) for item in value.values()
    ):
        return tuple(
            Part(item, name) if isinstance(item, str) else Part(pretty(item), name, "json")
            for name, item in value.items()
        )
    return (Part("(no input)" if value is None else pretty(value), kind="json"),)


def read_json_text(text: str | None, chars: int) -> tuple[tuple[Part, ...], int | None]:
    """A tool span's arguments or result (JSON text, or plain): parts, and the whole length when it was cut."""
    if text is None:
        return ((), None)
    if chars > len(text):
        return ((Part(text),), chars)
    try:
        value = parse(text)
    except InexactJsonError:
        return ((Part(text),), None)
    if isinstance(value, dict):
        return (read_arguments(value), None)
    return (_result(value), None)


def _result(content: Any) -> tuple[Part, ...]:
    if content is None:
        return (Part("(nothing)"),)
    if isinstance(content, str):
        return (_maybe_json(content),)
    if isinstance(content, list) and content and all(isinstance(item, dict) and "type" in item for item in content):
        parts: list[Part] = []
        for item in content:
            shown = read_value(item, str(item["type"]))
            for part in shown.parts:
                caption = " ".join(
                    word for word in (shown.kind if shown.kind != "text" else "", shown.title, part.caption) if word
                )
                parts.append(_maybe_json(part.text, caption) if not part.kind else Part(part.text, caption, part.kind))
        return tuple(parts)
    return (Part(pretty(content), kind="json"),)


def _maybe_json(text: str, caption: str = "") -> Part:
    """Text that is a JSON object or array is indented; the record below the turn has it as it was."""
    if text[:1] in ("{", "[") and len(text) <= _PRETTY_MAX_CHARS:
        try:
            return Part(pretty(parse(text)), caption, "json")
        except InexactJsonError:
            return Part(text, caption)
    return Part(text, caption)


def _attachment(value: dict[str, Any], source: dict[str, Any]) -> tuple[Part, ...]:
    texts = [Part(str(value[name]), name) for name in ("title", "context") if isinstance(value.get(name), str)]
    if source.get("type") == "text" and isinstance(source.get("data"), str):
        return (*texts, Part(source["data"]))
    described = {name: item for name, item in source.items() if name != "data"}
    where = source.get("data")
    note = f"({where})" if isinstance(where, str) and where.startswith("binary ") else ""
    return (*texts, Part(f"{pretty(described)} {note}".strip(), kind="json"))


def _kind(shape: Any) -> str:
    if isinstance(shape, (dict, Pairs)):
        stated = dict(shape.items() if isinstance(shape, dict) else shape).get("type")
        if isinstance(stated, str) and stated.startswith("="):
            return stated[1:]
        return "object"
    return "text"


def _without_binaries(shape: Any) -> Json:
    """A shape in which binaries are named instead of fetched."""
    if isinstance(shape, dict):
        return {name: _without_binaries(item) for name, item in shape.items()}
    if isinstance(shape, Pairs):
        return Pairs((name, _without_binaries(item)) for name, item in shape)
    if isinstance(shape, list):
        return [_without_binaries(item) for item in shape]
    if isinstance(shape, str) and shape.startswith(_BINARY):
        return f"=binary {shape[3:15]}\u2026, stored apart"
    return shape


def draw_parts(parts: tuple[Part, ...], cut_from: int | None, shown_chars: int | None = None) -> list[Child]:
    """The body of a block."""
    drawn: list[Child] = [
        node(
            "div",
            node("div", node("span", part.caption, cls="mono"), cls="caption") if part.caption else None,
            node("pre", part.text or "(empty)", cls=part.kind),
            cls="part",
        )
        for part in parts
    ]
    if cut_from is not None:
        shown = shown_chars if shown_chars is not None else sum(len(part.text) for part in parts)
        drawn.append(
            node("div", f"Showing {shown:,} of {cut_from:,} characters. The whole text is a download below.", cls="cut")
        )
    return drawn


def draw_block(shown: Shown, *, role: str, cls: str, note: str = "", key: str = "") -> Node:
    """A block with its head: who, what, and what a reader should notice."""
    kind = shown.kind.replace("_", " ")
    return node(
        "div",
        node(
            "div",
            node("b", role),
            node("span", kind) if shown.kind != "text" else None,
            node("b", shown.title, cls="mono") if shown.title else None,
            badge("error", "bad") if shown.is_error else None,
            *(badge(chip.replace("_", " ")) for chip in shown.chips),
            node("span", cls="grow"),
            node("span", note) if note else None,
            cls="head",
        ),
        *draw_parts(shown.parts, shown.cut_from),
        cls=f"block {'error' if shown.is_error else cls}".strip(),
        key=key,
    )


def readable(text: str | None) -> str:
    """A JSON object or array indented; any other text as it is."""
    if not text or text[0] not in "{[":
        return text or ""
    try:
        return pretty(parse(text))
    except InexactJsonError:
        return text

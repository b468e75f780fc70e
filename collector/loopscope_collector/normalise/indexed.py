"""Messages that were flattened into numbered attributes -> JSON in the conventions' schema. Pure; used by the dialects.

`llm.input_messages.0.message.role`, `gen_ai.prompt.0.content`, ...: two dialects, one idea. Indices may have gaps and
come in any order. What is read is taken out of the map of attributes; what is not understood stays there.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

from loopscope_collector.normalise.fields import MAX_NAME_CHARS
from loopscope_collector.normalise.otlp import Value, text_of
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas.content import InexactJsonError, Json, Raw, dump, parse

_INDEX: Final = re.compile(r"([0-9]{1,6})\.(.+)", re.DOTALL)
_DATA_URL: Final = re.compile(r"data:([^;,]{0,200});base64,(.*)", re.DOTALL)

Fields = dict[str, Value]
"""What is said of one message, part or tool call, by the rest of its name."""
Columns = Mapping[str, tuple[str, Any]]
"""Attribute -> (column, reader)."""


def fill(draft: Draft, fields: Columns) -> None:
    """Read attributes into columns that are still empty. One whose column says it in other words stays in the map."""
    for key, (column, reader) in fields.items():
        value = draft.rest.get(key)
        if value is None or draft.columns.get(column) not in (None, ""):
            continue
        read = reader(value)
        if read is None:
            continue
        draft.columns[column] = read
        if read == value:
            del draft.rest[key]


def numbered(values: MutableMapping[str, Value], prefix: str) -> list[Fields]:
    """What stands under a prefix, in order of its numbers; taken out of `values`."""
    found: dict[int, Fields] = {}
    for key in [key for key in values if key.startswith(prefix)]:
        match = _INDEX.fullmatch(key, len(prefix))
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = values.pop(key)
    return [found[number] for number in sorted(found)]


def give_back(values: MutableMapping[str, Value], prefix: str, items: Iterable[Fields]) -> None:
    """Put what was not understood where it was."""
    for number, item in enumerate(items):
        for key, value in item.items():
            values[f"{prefix}{number}.{key}"] = value


def plain(value: Value) -> str:
    """Its text; nothing for nothing."""
    return "" if value is None else text_of(value)


def parsed(value: Value) -> Json:
    """JSON text as what it says; any other text as it is."""
    said = plain(value)
    if said[:1] not in ("{", "["):
        return said
    try:
        return parse(said)
    except InexactJsonError:
        return said


def text_part(value: Value) -> Json:
    """A text."""
    return {"type": "text", "content": plain(value)}


def call_part(id_: Value, name: Value, arguments: Value) -> dict[str, Json]:
    """A tool call; arguments are JSON text."""
    return {"type": "tool_call", "id": plain(id_), "name": plain(name), "arguments": parsed(arguments)}


def result_part(id_: Value, result: Value) -> Json:
    """What a tool answered."""
    return {"type": "tool_call_response", "id": plain(id_), "response": parsed(result)}


def image_part(url: Value) -> Json:
    """An image by its address, or inside of one."""
    said = plain(url)
    inline = _DATA_URL.fullmatch(said)
    if inline:
        return {"type": "blob", "modality": "image", "mime_type": inline[1], "content": inline[2]}
    return {"type": "uri", "modality": "image", "uri": said}


def messages_json(messages: list[Json]) -> str:
    """The messages as JSON text."""
    return dump(messages)


def without_system(messages: list[Json]) -> tuple[str | None, list[Json]]:
    """The system prompt that stands first among messages (JSON text of its parts), and the others."""
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") == "system":
        return dump(first["parts"]), messages[1:]
    return None, messages


def id_of(document: Json) -> str:
    """The id that a response states."""
    value = document.get("id") if isinstance(document, dict) else None
    return value if isinstance(value, str) and not isinstance(value, Raw) and len(value) <= MAX_NAME_CHARS else ""

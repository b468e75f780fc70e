"""Any Python value as JSON text (UTF-8 bytes), as exactly as JSON can hold it.

What JSON cannot hold becomes a marked object, `{"__loopscope_repr__": "<repr>", "type": "module.Class"}`. Lone
surrogates, which UTF-8 cannot hold, are escaped (`\\ud800`), so the text can be read back to the same value. Called on
the host's thread, because a mutable argument may change later; must never raise.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

_SURROGATE = re.compile("[\ud800-\udfff]")
REPR_KEY = "__loopscope_repr__"
MAX_DEPTH = 200
"""Deeper values are cut there with a mark; Python's own encoder would fail near 1,000."""


def json_text(value: object) -> bytes:
    """The JSON text of a value."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_encodable)
    except Exception:  # noqa: BLE001 - includes whatever a host's object raises; the slow path looks at each part
        text = json.dumps(_plain(value, 0, frozenset()), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return escape_surrogates(text).encode("utf-8")


def escape_surrogates(json_document: str) -> str:
    """The same JSON with each lone surrogate written as an escape; they can only stand inside its strings."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_document)


def marked(value: object) -> dict[str, str]:
    """The marked form of what JSON cannot hold."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the host's __repr__
        text = f"<{name} whose repr() fails>"
    return {REPR_KEY: text, "type": name}


def _encodable(value: object) -> object:
    """One step of turning an object into what the encoder knows. May raise: the slow path follows then."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    return marked(value)


def _plain(value: object, depth: int, above: frozenset[int]) -> object:
    """A copy made of JSON's own types, marks where a part is none of them."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else marked(value)
    if id(value) in above or depth > MAX_DEPTH:
        return {REPR_KEY: "<circular>" if id(value) in above else "<too deep>", "type": type(value).__qualname__}
    inside = above | {id(value)}
    try:
        if isinstance(value, Mapping):
            items = cast("Mapping[Any, Any]", value).items()
            return {k if isinstance(k, str) else repr(k): _plain(v, depth + 1, inside) for k, v in items}
        if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray | memoryview):
            if isinstance(value, Set):
                return marked(cast("object", value))
            return [_plain(item, depth + 1, inside) for item in cast("Sequence[Any]", value)]
        return _plain(_encodable(value), depth + 1, inside)
    except Exception:  # noqa: BLE001 - the host's object; whatever it raises, it is marked instead
        return marked(value)

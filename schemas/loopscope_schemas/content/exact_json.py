"""JSON without loss: what `json.loads` and `orjson` round, merge or refuse is kept as it was written.

Numbers stay text (`Raw`), objects with repeated keys stay lists of pairs (`Pairs`), control characters inside strings
are accepted, lone surrogates are written back as escapes. The standard library's C scanner does the scanning.
"""

import json
import re
from json.decoder import JSONDecoder
from json.encoder import encode_basestring
from typing import Any, TypeAlias

MAX_DEPTH = 150
"""Deeper documents are refused: their text is then kept whole instead. Python's own recursion limit is 1,000 frames."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class InexactJsonError(ValueError):
    """The text is not JSON, or is nested more than MAX_DEPTH deep."""


class Raw(str):
    """A number (or NaN, Infinity) as it was written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object in which a key stands more than once."""

    __slots__ = ()


Json: TypeAlias = "dict[str, Any] | Pairs | list[Any] | str | bool | None"


def _object(pairs: list[tuple[str, Any]]) -> "dict[str, Any] | Pairs":
    found = dict(pairs)
    return found if len(found) == len(pairs) else Pairs(pairs)


DECODER = JSONDecoder(object_pairs_hook=_object, parse_float=Raw, parse_int=Raw, parse_constant=Raw, strict=False)


def parse(text: str | bytes) -> Json:
    """The document, exactly. Raises InexactJsonError for what is not JSON in UTF-8 or is nested too deep."""
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise InexactJsonError(f"not JSON that can be kept exactly: {str(error)[:200]}") from error


def dump(value: Json) -> str:
    """Compact JSON text of what `parse` returned; encodable as UTF-8 whatever the strings hold."""
    pieces: list[str] = []
    _write(value, pieces, 0)
    return "".join(pieces)


def quote(text: str) -> str:
    """A JSON string literal; lone surrogates are escaped, all other characters beyond ASCII stand as they are."""
    quoted = encode_basestring(text)
    if quoted.isascii():
        return quoted
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


_KEYS_MAX = 4096
_KEY_MAX_CHARS = 64
_keys: dict[str, str] = {}


def quote_key(key: str) -> str:
    """`quote`, remembered: documents repeat few keys over and over."""
    quoted = _keys.get(key)
    if quoted is None:
        quoted = quote(key)
        if len(_keys) < _KEYS_MAX and len(key) <= _KEY_MAX_CHARS:
            _keys[key] = quoted
    return quoted


def has_surrogates(text: str) -> bool:
    """Whether the text holds a lone surrogate, which UTF-8 cannot."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def escape_surrogates(text: str) -> str:
    """Reversible: a backslash is doubled, a lone surrogate becomes `\\udXXX`."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\\", "\\\\"))


_ESCAPED = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def unescape_surrogates(text: str) -> str:
    """The inverse of `escape_surrogates`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else "\\", text)


def _write(value: Any, pieces: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InexactJsonError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Raw):
        pieces.append(value)
    elif isinstance(value, str):
        pieces.append(quote(value))
    elif value is None or isinstance(value, bool):
        pieces.append(json.dumps(value))
    elif isinstance(value, (dict, Pairs)):
        separator = "{"
        for key, item in value.items() if isinstance(value, dict) else value:
            pieces.append(f"{separator}{quote(key)}:")
            separator = ","
            _write(item, pieces, depth + 1)
        pieces.append("{}" if separator == "{" else "}")
    elif isinstance(value, list):
        separator = "["
        for item in value:
            pieces.append(separator)
            separator = ","
            _write(item, pieces, depth + 1)
        pieces.append("[]" if separator == "[" else "]")
    else:
        raise InexactJsonError(f"{type(value).__name__} is not a JSON value of exact_json.parse")

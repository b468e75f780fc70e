"""One content block of a message: its text for reading, hashing and searching, and its shape for rebuilding.

The *body* is every piece of text a person could search for, one line break between pieces, decoded (a line break is a
line break, never `\\n`). The *shape* is the block's JSON with each piece replaced by a marker string:

    "=text"      text kept here: types, ids, and everything in volatile fields
    "#12"        the next 12 characters of the body          "#5+12"  the same after skipping a label of 5
    "e12"        the same, surrogates escaped reversibly
    "r12"        the same, but a bare JSON token (a number, true, false, null)
    "n12"        the first 12 characters of the body: a tool's name that stands behind its input
    "@b:hash"    a binary, stored by hash as bytes (base64 here)     "@t:hash"  the same, stored as text

Volatile fields (`cache_control`, `citations`, `caller`) change between two occurrences of one block; they are in the
shape, never in the body or the hash.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from loopscope_schemas.content.exact_json import (
    MAX_DEPTH,
    InexactJsonError,
    Json,
    Pairs,
    Raw,
    escape_surrogates,
    has_surrogates,
    parse,
    quote,
    quote_key,
    unescape_surrogates,
)

HASH_BYTES: Final = 16
_blake2b = hashlib.blake2b
VOLATILE_KEYS: Final = frozenset({"cache_control", "citations", "caller"})
_INLINE_KEYS: Final = frozenset(
    {"type", "id", "tool_use_id", "call_id", "media_type", "mime_type", "modality", "role", "file_id"}
)
_ID_KEYS: Final = ("id", "tool_use_id", "call_id")
_INLINE_MAX_CHARS: Final = 200
_BINARY_KEYS: Final = frozenset({"data", "signature", "encrypted_content", "encrypted_index", "url", "content"})
_BINARY_MIN_CHARS: Final = 256
"""Shorter base64 costs less in the shape than a row of its own would."""
_BASE64: Final = re.compile(r"(?:data:[\w.+/-]*;base64,)?[A-Za-z0-9+/_-]{256,}={0,2}")
_INPUT_KEYS: Final = frozenset({"input", "arguments"})
_CALL_KINDS: Final = frozenset(
    {"tool_use", "tool_call", "server_tool_use", "mcp_tool_use", "function", "server_tool_call"}
)
_RESULT_KINDS: Final = frozenset({"tool_result", "tool_call_response", "server_tool_call_response"})
_THINKING_KINDS: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})
_ATTACHMENT_KINDS: Final = frozenset(
    {"image", "document", "blob", "file", "uri", "image_url", "input_audio", "container_upload"}
)


@dataclass(frozen=True, slots=True)
class Blob:
    """A binary taken out of a block: an image, a document, a signature."""

    hash: bytes
    encoding: str
    """`base64`: data are the decoded bytes; `text`: data are the text itself in UTF-8."""
    data: bytes


@dataclass(slots=True)
class Block:
    """One distinct content block. Shared by all that hold it: not to be changed."""

    hash: bytes
    """BLAKE2b-128 over role, type, ids, body and binaries; equal for a block whose volatile fields differ."""
    role: str
    kind: str
    """The block's own type: text, tool_use, tool_result, image, ..."""
    source: str
    """What fills the window: system, user, assistant, thinking, tool_call, tool_result, attachment."""
    tool: str
    """Name of the tool of a tool call or, where the call was seen, of its result; else empty."""
    body: str
    blobs: tuple[Blob, ...] = ()


def digest(*parts: str | bytes) -> bytes:
    """BLAKE2b-128 over the parts, each closed by a separator that UTF-8 text cannot contain."""
    data = [part if type(part) is bytes else part.encode("utf-8", "surrogatepass") for part in parts]  # type: ignore[union-attr]
    data.append(b"")
    return _blake2b(b"\xff".join(data), digest_size=HASH_BYTES).digest()


@lru_cache(maxsize=1024)
def source_of(role: str, kind: str) -> str:
    """The source of a block by role and type."""
    if kind in _CALL_KINDS:
        return "tool_call"
    if kind in _RESULT_KINDS or kind.endswith("_tool_result") or role == "tool":
        return "tool_result"
    if kind in _THINKING_KINDS:
        return "thinking"
    if kind in _ATTACHMENT_KINDS:
        return "attachment"
    return role if role in ("system", "user", "assistant") else "other"


def split_block(role: str, block: Json, tool: str = "") -> tuple[Block, str]:
    """A block and its shape. `tool` is the tool's name where only the caller knows it (a result names just an id).

    Raises InexactJsonError for nesting deeper than MAX_DEPTH.
    """
    plain = _split_plain(role, block, tool)
    if plain is not None:
        return plain
    kind = "text"
    ids = ""
    if isinstance(block, dict):
        stated = block.get("type")
        kind = stated if isinstance(stated, str) else "object"
        ids = "\0".join(str(block[key]) for key in _ID_KEYS if key in block)
        name = block.get("name")
        if isinstance(name, str) and kind in _CALL_KINDS:
            tool = name
        function = block.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            tool = function["name"]
    splitter = Splitter(is_blob_part=kind == "blob", name=_late_name(kind, block))
    shape = splitter.shape(block, "", None, False, 0)
    body = "\n".join(splitter.leaves)
    blobs = tuple(splitter.blobs)
    hash_ = digest(role, kind, ids, body, *(blob.hash for blob in blobs))
    return Block(hash_, role, kind, source_of(role, kind), tool, body, blobs), shape


def _late_name(kind: str, block: Json) -> str | None:
    """The name of a tool call when it stands behind the input, as a client sends back what it was given.

    It comes first in the body all the same, so that the call is one block wherever it stands.
    """
    if kind not in _CALL_KINDS or not isinstance(block, dict):
        return None
    name = block.get("name")
    if not isinstance(name, str) or isinstance(name, Raw) or not name or has_surrogates(name):
        return None
    for key in block:
        if key == "name":
            return None
        if key in _INPUT_KEYS:
            return name
    return None


def _split_plain(role: str, block: Any, tool: str) -> tuple[Block, str] | None:
    """The same, quickly, for what nearly all prompts are made of: text, tool calls, results that are text."""
    kind, ids = "text", ""
    if type(block) is str:
        body, shape = block, '"#%d"'
    elif type(block) is not dict:
        return None
    else:
        keys = tuple(block)
        if keys == ("type", "text") and block["type"] == "text":
            body, shape = block["text"], '{"type":"=text","text":"#%d"}'
        elif keys == ("type", "tool_use_id", "content") and block["type"] == "tool_result":
            kind, ids, body = "tool_result", block["tool_use_id"], block["content"]
            if type(ids) is not str or len(ids) > _INLINE_MAX_CHARS or "%" in ids:
                return None
            shape = f'{{"type":"=tool_result","tool_use_id":{quote("=" + ids)},"content":"#%d"}}'
        elif keys == ("type", "id", "name", "input") and block["type"] == "tool_use":
            return _split_call(role, block["id"], block["name"], block["input"])
        else:
            return None
    if type(body) is not str or not body or (not body.isascii() and has_surrogates(body)):
        return None
    return Block(digest(role, kind, ids, body), role, kind, source_of(role, kind), tool, body), shape % len(body)


def _split_call(role: str, call_id: Any, name: Any, arguments: Any) -> tuple[Block, str] | None:
    """A tool call whose arguments are texts, numbers, true, false and null by name."""
    if (
        type(call_id) is not str
        or len(call_id) > _INLINE_MAX_CHARS
        or type(name) is not str
        or not name
        or has_surrogates(name)
        or type(arguments) is not dict
    ):
        return None
    leaves = [name]
    shapes: list[str] = []
    for key, value in arguments.items():
        kind = type(value)
        if kind is str:
            if not value or len(value) >= _BINARY_MIN_CHARS or has_surrogates(value):
                return None
            tag, text = "#", value
        elif kind is Raw:
            tag, text = "r", value
        elif value is None or kind is bool:
            tag, text = "r", "null" if value is None else "true" if value else "false"
        else:
            return None
        if has_surrogates(key):
            return None
        shapes.append(f'{quote_key(key)}:"{tag}{len(key) + 2}+{len(text)}"')
        leaves.append(f"{key}: {text}")
    body = "\n".join(leaves)
    shape = f'{{"type":"=tool_use","id":{quote("=" + call_id)},"name":"#{len(name)}","input":{{{",".join(shapes)}}}}}'
    return Block(digest(role, "tool_use", call_id, body), role, "tool_use", "tool_call", name, body), shape


def join_block(shape: str, body: str, blob: Callable[[bytes], bytes]) -> Json:
    """The block again. `blob` answers the stored bytes of a hash."""
    return fill(parse(shape), Leaves(body), blob)


def literal_shape(value: Any, depth: int = 0) -> str:
    """The shape that holds all text itself. Raises InexactJsonError for nesting deeper than MAX_DEPTH."""
    kind = type(value)
    if kind is str:
        return quote("=" + value)
    if kind is Raw:
        return value
    if depth > MAX_DEPTH:
        raise InexactJsonError(f"nested more than {MAX_DEPTH} deep")
    if kind is dict or kind is Pairs:
        items = value.items() if kind is dict else value
        return "{" + ",".join([f"{quote_key(key)}:{literal_shape(item, depth + 1)}" for key, item in items]) + "}"
    if kind is list:
        return "[" + ",".join([literal_shape(item, depth + 1) for item in value]) + "]"
    return "null" if value is None else "true" if value else "false"


class Splitter:
    """Collects the leaves and binaries of one value while writing its shape."""

    def __init__(self, *, is_blob_part: bool = False, name: str | None = None) -> None:
        """`name` is the value's own `name` that goes before all other leaves."""
        self.leaves: list[str] = [] if name is None else [name]
        self.blobs: list[Blob] = []
        self._is_blob_part = is_blob_part
        self._name = name
        self._ahead = 0 if name is None else len(name) + 1

    def shape(self, value: Any, key: str, label: str | None, literal: bool, depth: int) -> str:
        """Shape of a value under `key`; `label` names the lines of a tool's input, `literal` keeps all text inline."""
        if depth > MAX_DEPTH:
            raise InexactJsonError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            if isinstance(value, Raw):
                return value if label is None or literal else self._leaf("r", value, label)
            return self._text(value, key, label, literal)
        if isinstance(value, (dict, Pairs)):
            return self._object(value, label, literal, depth)
        if isinstance(value, list):
            return "[" + ",".join(self.shape(item, key, label, literal, depth + 1) for item in value) + "]"
        token = "null" if value is None else "true" if value else "false"
        return token if label is None or literal else self._leaf("r", token, label)

    def _object(self, value: "dict[str, Any] | Pairs", label: str | None, literal: bool, depth: int) -> str:
        parts: list[str] = []
        for key, item in value.items() if isinstance(value, dict) else value:
            if depth == 0 and self._name is not None and key == "name":
                parts.append(f'"name":"n{len(self._name)}"')
                continue
            inner = label
            if label is not None or (key in _INPUT_KEYS and isinstance(item, (dict, list))):
                # A tool's input reads `order_id: W-1`, so that a search for what a person would type finds it.
                inner = escape_surrogates(key) if has_surrogates(key) else key
            # Inside a tool's input these names are the tool's own, not the provider's.
            volatile = literal or (label is None and key in VOLATILE_KEYS)
            parts.append(f"{quote_key(key)}:{self.shape(item, key, inner, volatile, depth + 1)}")
        return "{" + ",".join(parts) + "}"

    def _text(self, value: str, key: str, label: str | None, literal: bool) -> str:
        if literal or not value or (key in _INLINE_KEYS and label is None and len(value) <= _INLINE_MAX_CHARS):
            return quote("=" + value)
        if key in _BINARY_KEYS and len(value) >= _BINARY_MIN_CHARS and self._is_binary(value, key):
            return self._binary(value)
        if has_surrogates(value):
            return self._leaf("e", escape_surrogates(value), label)
        return self._leaf("#", value, label)

    def _leaf(self, tag: str, text: str, label: str | None) -> str:
        skip, self._ahead = self._ahead, 0
        if label is not None:
            skip += len(label) + 2
        self.leaves.append(text if label is None else f"{label}: {text}")
        return f'"{tag}{skip}+{len(text)}"' if skip else f'"{tag}{len(text)}"'

    def _is_binary(self, value: str, key: str) -> bool:
        if key == "content" and not self._is_blob_part:
            return False
        if key == "url" and not value.startswith("data:"):
            return False
        return _BASE64.fullmatch(value) is not None

    def _binary(self, value: str) -> str:
        text = value.encode()
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        encoding = "base64" if data and base64.b64encode(data) == text else "text"
        stored = data if encoding == "base64" else text
        blob = Blob(digest(encoding, stored), encoding, stored)
        self.blobs.append(blob)
        return f'"@{encoding[0]}:{blob.hash.hex()}"'


class Leaves:
    """A cursor over a body: hands out its pieces in order."""

    def __init__(self, body: str) -> None:
        self._body = body
        self._at = 0

    def first(self, length: int) -> str:
        """The beginning of the body; the cursor stays where it is."""
        return self._body[:length]

    def take(self, marker: str) -> str:
        """The piece that a marker (without its tag) stands for; raises ValueError when the body is too short."""
        skip, plus, length = marker.partition("+")
        start = self._at + (int(skip) if plus else 0)
        end = start + int(length if plus else skip)
        if end > len(self._body):
            raise ValueError(f"the body ends at {len(self._body)} characters, its shape asks for {end}")
        self._at = end + 1
        return self._body[start:end]


_TOKENS: Final = {"true": True, "false": False, "null": None}


def fill(shape: Any, leaves: Leaves, blob: Callable[[bytes], bytes]) -> Any:
    """A parsed shape with its markers replaced by what they stand for."""
    if isinstance(shape, dict):
        return {key: fill(item, leaves, blob) for key, item in shape.items()}
    if isinstance(shape, Pairs):
        return Pairs((key, fill(item, leaves, blob)) for key, item in shape)
    if isinstance(shape, list):
        return [fill(item, leaves, blob) for item in shape]
    if not isinstance(shape, str) or isinstance(shape, Raw):
        return shape
    tag, rest = shape[0], shape[1:]
    if tag == "=":
        return rest
    if tag == "#":
        return leaves.take(rest)
    if tag == "n":
        return leaves.first(int(rest))
    if tag == "e":
        return unescape_surrogates(leaves.take(rest))
    if tag == "r":
        token = leaves.take(rest)
        return _TOKENS[token] if token in _TOKENS else Raw(token)
    if tag == "@":
        data = blob(bytes.fromhex(rest[2:]))
        return base64.b64encode(data).decode() if rest[0] == "b" else data.decode()
    raise ValueError(f"{shape[:40]!r} is not a marker of a shape")

"""Messages told apart at the cost of a few microseconds: digests of what a message says, whatever form it has.

The same assistant message comes back from the host as text, as dictionaries or as the SDK's own objects; all have one
digest. Runs on the host's thread: a long text counts by its length and its two ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

SAMPLE_CHARS = 2_048
"""Of a longer text the first and last half of these and its length: what differs only in the middle of a document is
told apart by the messages that follow."""
_IDS = ("id", "tool_use_id")


def field_of(item: Any, name: str) -> Any:
    """A field of a dictionary or of an SDK object."""
    if isinstance(item, dict):
        return cast("dict[str, Any]", item).get(name)
    return getattr(item, name, None)


def blocks_of(message: Any) -> Sequence[Any]:
    """The content blocks of a message; a plain text is none."""
    content = field_of(message, "content")
    return cast("Sequence[Any]", content) if isinstance(content, list | tuple) else ()


def digest_of(message: Any) -> bytes:
    """Digest of a message's role, texts and ids of tool calls."""
    return digest_of_content(field_of(message, "role"), field_of(message, "content"))


def digest_of_content(role: Any, content: Any) -> bytes:
    """As `digest_of`, from the parts."""
    found = hashlib.blake2b(str(role).encode("utf-8", "replace"), digest_size=16)
    if isinstance(content, str):
        found.update(_sample(content))
    elif isinstance(content, list | tuple):
        for block in cast("Sequence[Any]", content):
            text = block if isinstance(block, str) else field_of(block, "text")
            if isinstance(text, str):
                found.update(_sample(text))
            for name in _IDS:
                if isinstance(given := field_of(block, name), str):
                    found.update(given.encode("utf-8", "surrogatepass"))
            if isinstance(inner := field_of(block, "content"), str):
                found.update(_sample(inner))
    return found.digest()


def _sample(text: str) -> bytes:
    text = text.strip()  # hosts strip answers before they send them back
    if len(text) > SAMPLE_CHARS:
        half = SAMPLE_CHARS // 2
        text = f"{len(text)}:{text[:half]}{text[-half:]}"
    return text.encode("utf-8", "surrogatepass")

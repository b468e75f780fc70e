"""Text that a protobuf string cannot hold, written so that it stays text.

Lone surrogates (a JavaScript string cut through an emoji) and bytes that are no UTF-8 occur in what agents record. JSON
text gets them as the escapes that JSON has for them, which leaves its meaning exactly as it was; in other text they are
written out as `\\ud83d` and `\\xff`. Text that holds such sequences already is left to the caller, who keeps its bytes.
Pure. Used by `protobuf` and `otlp_json`.
"""

import re
from typing import Final

_LONE: Final = re.compile("[\ud800-\udfff]")
_WRITTEN_OUT: Final = re.compile(r"\\(?:x[0-9a-f]{2}|u[dD][0-9a-fA-F]{3})")


def of_bytes(raw: bytes) -> str | None:
    """Text of bytes that are no UTF-8; None when only the bytes say what it was."""
    try:
        return of_text(raw.decode("utf-8", "surrogatepass"), marked_bytes=False)
    except UnicodeDecodeError:
        return of_text(raw.decode("utf-8", "surrogateescape"), marked_bytes=True)


def of_text(text: str, *, marked_bytes: bool) -> str | None:
    """Text without lone surrogates; None when only the original says what it was.

    `marked_bytes`: U+DC80 to U+DCFF stand for bytes that are no UTF-8.
    """
    if text.lstrip()[:1] in ("{", "[", '"'):
        return _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    if _WRITTEN_OUT.search(text):
        return None
    return written_out(text, marked_bytes=marked_bytes)


def written_out(text: str, *, marked_bytes: bool) -> str:
    """Text with its lone surrogates written out."""

    def write(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if marked_bytes and 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return _LONE.sub(write, text)


def raw(text: str, *, marked_bytes: bool) -> bytes:
    """UTF-8 in which a lone surrogate is three bytes, and a marked byte is that byte."""
    if not marked_bytes:
        return text.encode("utf-8", "surrogatepass")
    pieces = (
        bytes((ord(char) - 0xDC00,)) if "\udc80" <= char <= "\udcff" else char.encode("utf-8", "surrogatepass")
        for char in text
    )
    return b"".join(pieces)

"""Request bodies decompressed within a bound: a small body that unfolds to gigabytes stops at the bound.

Pure. Used by `requests`.
"""

import zlib
from typing import Final

GZIP: Final = "gzip"
IDENTITY: Final = "identity"
ACCEPTED: Final = (GZIP, IDENTITY)

_INPUT_STEP: Final = 64 * 1024
_OUTPUT_STEP: Final = 1024 * 1024
"""Decompressed at a time, so that the bound is noticed early."""


class BadCompressionError(ValueError):
    """The body is not what its Content-Encoding says."""


class TooLargeError(ValueError):
    """The body is larger than the bound once decompressed."""


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """Decompress all members of a gzip body. Raises BadCompressionError, TooLargeError."""
    out: list[bytes] = []
    size = at = 0
    member = zlib.decompressobj(wbits=31)
    while at < len(body) or not member.eof:
        if member.eof:
            if not body[at:].strip(b"\0"):
                break  # padding behind the last member
            member = zlib.decompressobj(wbits=31)
        data = body[at : at + _INPUT_STEP]
        try:
            piece = member.decompress(data, _OUTPUT_STEP)
        except zlib.error as error:
            raise BadCompressionError(str(error)) from error
        if not piece and not data and not member.eof:
            raise BadCompressionError("the gzip data breaks off before its end")
        at += len(data) - len(member.unconsumed_tail) - len(member.unused_data)
        size += len(piece)
        if size > max_bytes:
            raise TooLargeError(f"more than {max_bytes} bytes after decompression")
        out.append(piece)
    return out[0] if len(out) == 1 else b"".join(out)

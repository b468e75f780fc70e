"""Content encodings of request and answer bodies: gzip, deflate, zstd, lz4 (frame format).

Pure byte streams, used from worker threads by `reads` and `inserts`; lz4 and zstd are there when their packages are.
"""

import zlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from loopscope_collector.engine.errors import CANNOT_DECOMPRESS, NOT_IMPLEMENTED, ClickHouseError

try:
    import lz4.frame as _lz4  # pyright: ignore[reportMissingTypeStubs]
except ImportError:  # pragma: no cover - an optional speed-up
    _lz4 = None
try:
    from compression import zstd as _zstd  # pyright: ignore
except ImportError:
    try:
        from backports import zstd as _zstd
    except ImportError:  # pragma: no cover - an optional speed-up
        _zstd = None


class Encoder(Protocol):
    """Compresses one answer."""

    def compress(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Identity:
    def compress(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Flushing:
    """zlib and zstd: `flush()` ends the stream."""

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def compress(self, data: bytes) -> bytes:
        return cast(bytes, self._compressor.compress(data))

    def finish(self) -> bytes:
        return cast(bytes, self._compressor.flush())


class _Lz4:
    def __init__(self) -> None:
        self._compressor = cast(Any, _lz4).LZ4FrameCompressor()
        self._head: bytes = self._compressor.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + cast(bytes, self._compressor.compress(data))

    def finish(self) -> bytes:
        head, self._head = self._head, b""
        return head + cast(bytes, self._compressor.flush())


_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "gzip": lambda: _Flushing(zlib.compressobj(1, wbits=31)),
    "deflate": lambda: _Flushing(zlib.compressobj(1)),
}
if _zstd is not None:
    _ENCODERS["zstd"] = lambda: _Flushing(cast(Any, _zstd).ZstdCompressor(level=1))
if _lz4 is not None:
    _ENCODERS["lz4"] = _Lz4


def choose_encoding(accept: str) -> str:
    """The first encoding of an Accept-Encoding header that can be made here; "" for none."""
    for part in accept.split(","):
        name, _, weight = part.strip().lower().partition(";")
        if name.strip() in _ENCODERS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip()
    return ""


def encoder(encoding: str) -> Encoder:
    """An encoder for what `choose_encoding` returned."""
    return _ENCODERS[encoding]() if encoding else _Identity()


class Decoder:
    """Decompresses one request body, piece by piece; `bound` is the most one piece may grow to at a time."""

    def __init__(self, encoding: str, *, bound: int = 4 * 1024 * 1024) -> None:
        """Raises ClickHouseError for an encoding that is not known here."""
        self._bound = bound
        self._encoding = encoding
        self._decoder: Any = self._make()
        self._begun = False

    def _make(self) -> Any:
        match self._encoding:
            case "" | "identity":
                return None
            case "gzip":
                return zlib.decompressobj(wbits=31)
            case "deflate":
                return zlib.decompressobj()
            case "zstd" if _zstd is not None:
                return cast(Any, _zstd).ZstdDecompressor()
            case "lz4" if _lz4 is not None:
                return cast(Any, _lz4).LZ4FrameDecompressor()
            case _:
                message = (
                    f"Content-Encoding {self._encoding[:40]!r} is not known; send identity, gzip, deflate, zstd or lz4"
                )
                raise ClickHouseError(NOT_IMPLEMENTED, message)

    def pieces(self, data: bytes) -> list[bytes]:
        """Plain bytes of the next piece of the body. Raises ClickHouseError when it is damaged."""
        if self._decoder is None:
            return [data] if data else []
        found: list[bytes] = []
        try:
            while data:
                if self._decoder.eof:
                    # Several frames one after another are one body: compressors that work block by block send these.
                    self._decoder = self._make()
                self._begun = True
                data = self._step(data, found)
        except (zlib.error, RuntimeError, EOFError, ValueError, OSError) as error:
            raise ClickHouseError(CANNOT_DECOMPRESS, f"the {self._encoding} body is damaged: {error}") from error
        except Exception as error:
            # The zstd error class has a different home in each Python version.
            if type(error).__name__ != "ZstdError":
                raise
            raise ClickHouseError(CANNOT_DECOMPRESS, f"the {self._encoding} body is damaged: {error}") from error
        return found

    def _step(self, data: bytes, found: list[bytes]) -> bytes:
        """Decode some of `data` into `found`; returns what is left."""
        if self._encoding in ("gzip", "deflate"):
            found.append(cast(bytes, self._decoder.decompress(data, self._bound)))
            return cast(bytes, self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail)
        found.append(cast(bytes, self._decoder.decompress(data, self._bound)))
        while not self._decoder.eof and not self._decoder.needs_input:
            found.append(cast(bytes, self._decoder.decompress(b"", self._bound)))
        return cast(bytes, self._decoder.unused_data or b"") if self._decoder.eof else b""

    def check_complete(self) -> None:
        """Raises ClickHouseError when the body ended in the middle of a compressed frame."""
        if self._decoder is not None and self._begun and not self._decoder.eof:
            raise ClickHouseError(CANNOT_DECOMPRESS, f"the {self._encoding} body ends in the middle")

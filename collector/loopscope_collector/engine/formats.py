"""Joining the engine's chunks into one document.

`Handle.stream` yields each block as a document of its own. Formats without head and foot can be written one after the
other; for those with a head it is cut off from all but the first chunk; the rest (JSON, Parquet, Pretty ...) is asked
for whole. Pure; used by `reads`.
"""

from collections.abc import Callable

_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_PLAIN = frozenset(
    """Native TabSeparated TSV TabSeparatedRaw TSVRaw Raw CSV RowBinary JSONEachRow JSONLines NDJSON JSONStringsEachRow
    JSONCompactEachRow JSONCompactStringsEachRow LineAsString RawBLOB Null""".lower().split()
)
_HEAD_LINES = {
    "tabseparatedwithnames": 1,
    "tsvwithnames": 1,
    "tabseparatedwithnamesandtypes": 2,
    "tsvwithnamesandtypes": 2,
    "jsoncompacteachrowwithnames": 1,
    "jsoncompacteachrowwithnamesandtypes": 2,
    "jsoncompactstringseachrowwithnames": 1,
    "jsoncompactstringseachrowwithnamesandtypes": 2,
}
_HEAD_RECORDS = {"csvwithnames": 1, "csvwithnamesandtypes": 2}

CONTENT_TYPES = {
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsonstrings": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "arrowstream": "application/vnd.apache.arrow.stream",
    "arrow": "application/vnd.apache.arrow.file",
    "parquet": "application/vnd.apache.parquet",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
}


def content_type(output_format: str) -> str:
    """The media type of an answer in this format."""
    return CONTENT_TYPES.get(output_format.lower(), "text/plain; charset=UTF-8")


class Joiner:
    """Joins the chunks of one answer. `head_length` measures the head that each chunk carries."""

    def __init__(self, head_length: Callable[[bytes], int] | None, foot: bytes = b"") -> None:
        self._head_length = head_length
        self._foot = foot
        self._first = True

    @property
    def empty_needs_head(self) -> bool:
        """Whether an answer without chunks is not an empty body: the head must then be asked for."""
        return self._head_length is not None and self._first

    def join(self, chunk: bytes) -> bytes:
        """The part of this chunk that belongs into the document."""
        if self._head_length is None:
            return chunk
        start = 0 if self._first else self._head_length(chunk)
        self._first = False
        end = len(chunk) - len(self._foot) if self._foot and chunk.endswith(self._foot) else len(chunk)
        return chunk[start:end]

    def end(self) -> bytes:
        """What follows the last chunk."""
        return b"" if self._first else self._foot


def joiner(output_format: str) -> Joiner | None:
    """How chunks of this format are joined; None when the answer must be asked for whole."""
    name = output_format.lower()
    if name in _PLAIN:
        return Joiner(None)
    if name in _HEAD_LINES:
        lines = _HEAD_LINES[name]
        return Joiner(lambda chunk: _after_lines(chunk, lines))
    if name in _HEAD_RECORDS:
        records = _HEAD_RECORDS[name]
        return Joiner(lambda chunk: _after_csv_records(chunk, records))
    if name == "arrowstream":
        return Joiner(_after_arrow_schema, _ARROW_END)
    if name in ("rowbinarywithnames", "rowbinarywithnamesandtypes"):
        strings = 2 if name.endswith("types") else 1
        return Joiner(lambda chunk: _after_row_binary_head(chunk, strings))
    return None


def _after_lines(chunk: bytes, lines: int) -> int:
    position = 0
    for _ in range(lines):
        position = chunk.index(b"\n", position) + 1
    return position


def _after_csv_records(chunk: bytes, records: int) -> int:
    """A line end inside quotes belongs to a column's name."""
    position = 0
    for _ in range(records):
        while True:
            end = chunk.index(b"\n", position)
            if chunk.count(b'"', 0, end) % 2 == 0:
                break
            position = end + 1
        position = end + 1
    return position


def _after_arrow_schema(chunk: bytes) -> int:
    """The schema is the stream's first message and has no body: marker, length of the metadata, metadata."""
    return 8 + int.from_bytes(chunk[4:8], "little")


def _after_row_binary_head(chunk: bytes, strings: int) -> int:
    columns, position = _varint(chunk, 0)
    for _ in range(columns * strings):
        length, position = _varint(chunk, position)
        position += length
    return position


def _varint(chunk: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = chunk[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position

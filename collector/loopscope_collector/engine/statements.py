"""Reading the outside of a statement: is it an INSERT, where does its data begin, which format does it ask for.

Pure; used by `server` to choose the way a statement runs. It decides nothing about safety: that is the guard's work, by
the engine's own parser. A wrong answer here can only end in the engine's own error.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
    (?P<space>\s+|--[^\n]*(?:\n|\Z)|\#[ !][^\n]*(?:\n|\Z)|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    |(?P<word>[A-Za-z_0-9$.\x80-\xff]+)
    |(?P<open>[(\[{])
    |(?P<close>[)\]}])
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*\Z", re.IGNORECASE)

HEAD_BOUND = 256 * 1024
"""The statement of an INSERT must end within this many bytes; data follows."""

_STREAMED = re.compile(rb"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*INSERT\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class InsertHead:
    """The statement part of an INSERT whose data follows it."""

    sql: str
    """Up to, and without, the FORMAT clause."""
    input_format: str
    data_start: int
    """Offset of the first data byte in the text that was given."""


def begins_with_insert(text: bytes) -> bool:
    """Whether the first word is INSERT, comments aside."""
    return _STREAMED.match(text[:HEAD_BOUND]) is not None


def insert_head(text: bytes) -> InsertHead | None:
    """Split `INSERT INTO t (...) FORMAT F <data>`; None for VALUES, INSERT ... SELECT and everything else."""
    if not begins_with_insert(text):
        return None
    depth = 0
    position = 0
    text = text if len(text) <= HEAD_BOUND else text[:HEAD_BOUND]
    format_at = -1
    while token := _TOKEN.match(text, position):
        position = token.end()
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "word" and format_at >= 0:
            return InsertHead(
                sql=text[:format_at].decode("utf-8", "replace").strip(),
                input_format=token.group().decode("ascii", "replace"),
                data_start=_skip_line_end(text, token.end()),
            )
        elif kind == "word" and depth == 0:
            word = token.group().upper()
            if word == b"FORMAT":
                format_at = token.start()
            elif word in (b"VALUES", b"SELECT", b"WITH", b"WATCH", b"FROM", b"INFILE"):
                return None
    return None


def _skip_line_end(text: bytes, position: int) -> int:
    """Data begins after the blanks and one line end that follow the format's name, as the server reads it."""
    while position < len(text) and text[position : position + 1] in (b" ", b"\t", b"\r"):
        position += 1
    if text[position : position + 1] == b"\n":
        position += 1
    return position


def trailing_format(sql: str) -> str | None:
    """The name in a FORMAT clause at the end of a statement."""
    match = _TRAILING_FORMAT.search(sql[-4096:])
    return match.group(1) if match else None


def first_word(sql: str) -> str:
    """The first word in capitals, comments skipped; an opening bracket counts as a word."""
    text = sql.encode("utf-8", "replace")[:HEAD_BOUND]
    position = 0
    while token := _TOKEN.match(text, position):
        if token.lastgroup != "space":
            return token.group().decode("utf-8", "replace").upper()
        position = token.end()
    return ""


def without_format(sql: str) -> str:
    """The statement without its last FORMAT clause; the name goes, a SETTINGS clause behind it stays."""
    text = sql.encode("utf-8")
    position = 0
    words: list[tuple[bytes, int, int]] = []
    while token := _TOKEN.match(text, position):
        if token.lastgroup != "space":
            words.append((token.group(), token.start(), token.end()))
        position = token.end()
    for index in range(len(words) - 2, -1, -1):
        if words[index][0].upper() == b"FORMAT":
            return (text[: words[index][1]] + b" " + text[words[index + 1][2] :]).decode("utf-8")
    return sql

"""Looking for what the rules name, in the text as the model reads it.

`RuleSet.find` is called by `redaction` on the worker's thread. A rule sees each string of a JSON document with its
escapes undone, never two strings at once, so a placeholder can break no JSON; where it matches inside a number, the
number becomes a string. Bytes that are no JSON are searched as plain text from there on.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import cast

from .rules import Compiled, RedactionRule, compiled, placeholder

SLICE_CHARS = 16 * 1024
"""One search runs over so much and the rule's longest match more, so that the host's threads get their turn."""
CHECKPOINT_BYTES = 8 * 1024
BINARY_MIN_BYTES = 1024
"""A string of at least so many characters of base64 without a space is an image or a file; it is not searched."""
_BETWEEN = re.compile(rb"[\s{}\[\]:,]*+")
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+\-]*+")
_WORD = re.compile(rb"true|false|null|NaN|-?Infinity")
_BASE64 = re.compile(rb"(?:data:[^,]{0,200};base64,)?[A-Za-z0-9+/_\-]+={0,2}")
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]+", re.DOTALL
)

Found = tuple[int, int, bytes]
"""(start, end, what to write instead) of one find, in bytes."""


class RuleSet:
    """All rules in force."""

    def __init__(self, rules: Sequence[RedactionRule] = (), pii: Sequence[str] = ()) -> None:
        self._rules = [compiled(rule) for rule in rules]
        if pii:
            from .pii import FORMS

            self._rules += [
                Compiled(placeholder(kind).encode(), form.pattern, form.width, form.literal, form.accept)
                for kind, forms in FORMS.items()
                if kind in pii
                for form in forms
            ]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def find_in_text(self, text: str) -> list[tuple[int, int, bytes]]:
        """Finds in a plain text, in characters; they may overlap."""
        found: list[tuple[int, int, bytes]] = []
        for rule in self._rules:
            if rule.literal and rule.literal not in text:
                continue
            at, size = 0, len(text)
            while at < size:
                stop = min(at + SLICE_CHARS, size)
                match = rule.pattern.search(text, at, min(stop + rule.width, size))
                if match is None or match.start() >= stop:
                    at = stop
                    continue
                span = match.span() if rule.accept is None else rule.accept(match)
                at = match.start() + 1
                if span is not None:
                    at = max(at, span[1])
                    begin, end = _around_escapes(text, *span)
                    if begin < end:
                        found.append((begin, end, rule.placeholder))
        return found

    def find(self, data: bytes, start: int = 0) -> tuple[list[Found], list[int]]:
        """(finds in JSON bytes from `start` on, places between its values where a later search may begin)."""
        found: list[Found] = []
        checkpoints: list[int] = []
        at, size, next_checkpoint = start, len(data), start
        while (at := cast("re.Match[bytes]", _BETWEEN.match(data, at)).end()) < size:
            if at >= next_checkpoint:
                checkpoints.append(at)
                next_checkpoint = at + CHECKPOINT_BYTES
            if data[at] == 0x22:
                end = _string_end(data, at + 1)
                self._in_string(data, at + 1, end, found)
                at = end + 1
            elif number := _NUMBER.match(data, at):
                if finds := self.find_in_text(number[0].decode()):
                    found.append((*number.span(), b'"' + finds[0][2] + b'"'))
                at = number.end()
            elif word := _WORD.match(data, at):
                at = word.end()
            else:  # an error page, a text: no JSON
                self._in_plain(data, at, found)
                break
        return found, checkpoints

    def _in_plain(self, data: bytes, start: int, found: list[Found]) -> None:
        text, encoding = _decoded(data[start:])
        found += _in_bytes(self.find_in_text(text), text, encoding, start, escaped=False)

    def _in_string(self, data: bytes, start: int, end: int, found: list[Found]) -> None:
        if end - start >= BINARY_MIN_BYTES and _is_binary(data, start, end):
            return
        raw, encoding = _decoded(data[start:end])
        text, escaped = raw, False
        if "\\" in raw:
            with contextlib.suppress(ValueError):  # broken off inside an escape: searched as it stands
                text, escaped = json.loads(f'"{raw}"', strict=False), True
        found += _in_bytes(self.find_in_text(text), raw, encoding, start, escaped=escaped)


def _string_end(data: bytes, start: int) -> int:
    """Where a string's closing quote stands; the end of the data when it broke off."""
    quote = data.find(b'"', start)
    quote = len(data) if quote < 0 else quote
    if data.find(b"\\", start, quote) < 0:
        return quote
    return min(cast("re.Match[bytes]", _REST_OF_STRING.match(data, start)).end(), len(data))


def _is_binary(data: bytes, start: int, end: int) -> bool:
    return (
        data.find(b" ", start, end) < 0
        and _BASE64.fullmatch(data, start, start + BINARY_MIN_BYTES) is not None
        and _BASE64.fullmatch(data, end - 64, end) is not None
    )


def _decoded(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "latin-1"  # broken bytes: one character each


def _in_bytes(
    finds: list[tuple[int, int, bytes]], raw: str, encoding: str, offset: int, *, escaped: bool
) -> list[Found]:
    """Finds in characters of the decoded text as finds in bytes of the document."""
    if not finds:
        return []
    if not escaped and (raw.isascii() or encoding == "latin-1"):
        return [(offset + begin, offset + end, instead) for begin, end, instead in finds]
    places = sorted({place for begin, end, _ in finds for place in (begin, end)})
    where: dict[int, int] = {}
    chars = length = 0
    for unit in _UNIT.findall(raw) if escaped else [raw]:
        plain = not escaped or unit[0] != "\\"
        size = len(unit) if plain else 1
        while places and places[0] < chars + size:
            inside = len(unit[: places[0] - chars].encode(encoding)) if plain else 0
            where[places.pop(0)] = offset + length + inside
        chars += size
        length += len(unit.encode(encoding))
    where |= dict.fromkeys(places, offset + length)
    return [(where[begin], where[end], instead) for begin, end, instead in finds]


def _around_escapes(text: str, begin: int, end: int) -> tuple[int, int]:
    r"""A span that cuts no escape of a JSON text inside this text: `\nbob@example.com` begins at the b."""
    if "\\" not in text:
        return begin, end
    for back in range(6):  # of `\u00e9` five characters may stand before or after the cut
        at = begin - back
        if at >= 0 and (size := _escape_at(text, at)) > back:
            begin += size - back if back else 0
            break
    for back in range(1, 6):
        at = end - back
        if at >= 0 and _escape_at(text, at) > back:
            end = at
            break
    return begin, end


def _escape_at(text: str, at: int) -> int:
    """Length of the JSON escape that begins at `at`; 0 when none does."""
    if text[at : at + 1] != "\\":
        return 0
    before = at
    while before > 0 and text[before - 1] == "\\":
        before -= 1
    if (at - before) % 2:
        return 0
    following = text[at + 1 : at + 2]
    if following == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", text[at + 2 : at + 6]):
        return 6
    return 2 if following and following in '"\\/bfnrt' else 0

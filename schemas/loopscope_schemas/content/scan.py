"""Walking JSON text without parsing what is already known: spaces, keys, separators. Used by `split` and `history`."""

import re
from collections.abc import Generator
from typing import Final

from loopscope_schemas.content.exact_json import DECODER, InexactJsonError

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SPACES: Final = frozenset(" \t\n\r")


def skip_space(text: str, at: int) -> int:
    if text[at : at + 1] not in _SPACES:
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


def unexpected(text: str, at: int, wanted: str) -> InexactJsonError:
    return InexactJsonError(f"expected {wanted} at character {at}, found {text[at : at + 20]!r}")


def members_of(text: str, at: int, *, inside: bool = False) -> Generator[tuple[str, int], int, None]:
    """Keys of the object at `at`, each with the place of its value; send the value's end back.

    With `inside`, `at` is the end of one of its values, and those behind it are meant.
    """
    at = skip_space(text, at if inside else at + 1)
    if text[at : at + 1] == "}":
        yield "", -(at + 1)
        return
    if inside:
        if text[at : at + 1] != ",":
            raise unexpected(text, at, "',' or '}'")
        at = skip_space(text, at + 1)
    while True:
        if text[at : at + 1] != '"':
            raise unexpected(text, at, "a key")
        key, at = DECODER.raw_decode(text, at)
        at = skip_space(text, at)
        if text[at : at + 1] != ":":
            raise unexpected(text, at, "':'")
        end = yield key, skip_space(text, at + 1)
        at = skip_space(text, end)
        closing = text[at : at + 1]
        if closing == "}":
            yield "", -(at + 1)
            return
        if closing != ",":
            raise unexpected(text, at, "',' or '}'")
        at = skip_space(text, at + 1)


def object_start(text: str) -> int:
    start = skip_space(text, 0)
    if text[start : start + 1] != "{":
        raise unexpected(text, start, "an object")
    return start


def expect_end(text: str, at: int) -> None:
    if skip_space(text, at) != len(text):
        raise unexpected(text, at, "the end")


def separator(text: str, at: int) -> tuple[int, str]:
    """Behind an item: the place of the next one and a comma, or the list's end and its bracket."""
    at = skip_space(text, at)
    closing = text[at : at + 1]
    if closing == ",":
        return skip_space(text, at + 1), closing
    if closing != "]":
        raise unexpected(text, at, "',' or ']'")
    return at + 1, closing

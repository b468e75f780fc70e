"""A user's regular expression made safe to run over every prompt: bounded in what it matches and in how long it takes.

Called when a rule is made, never while recording. Python's engine backtracks and holds the interpreter while it does,
so a pattern such as `(a+)+b` would stop the host for ever. Hence `+`, `*` and `{n,}` repeat at most MAX_REPEAT times,
and a pattern is refused when the number of ways in which it may match one piece of text can exceed MAX_WAYS. The
estimate looks at what may follow each repetition, so that `(?:[a-z]+\\.)+` is accepted and `(?:[a-z]+\\.?)+` is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue] - the standard library's own parser
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

MAX_REPEAT = 256
LONGEST_MATCH = 70_000
"""Characters; room for two nested repetitions of MAX_REPEAT."""
MAX_WAYS = 1_000
_WORD, _SPACE, _OTHER = 256, 257, 258
"""Stand for all letters, all spaces and all else beyond Latin-1."""
_BEYOND = frozenset({_WORD, _SPACE, _OTHER})
_EVERYTHING = frozenset(range(256)) | _BEYOND
_OPEN_END = re.compile(r"\{(\d*),\}")
_CLOSED = re.compile(r"\{\d*(?:,\d+)?\}")
_CATEGORIES = {
    sre.CATEGORY_DIGIT: (r"\d", {_WORD}),
    sre.CATEGORY_NOT_DIGIT: (r"\D", {_WORD, _SPACE, _OTHER}),
    sre.CATEGORY_SPACE: (r"\s", {_SPACE}),
    sre.CATEGORY_NOT_SPACE: (r"\S", {_WORD, _OTHER}),
    sre.CATEGORY_WORD: (r"\w", {_WORD}),
    sre.CATEGORY_NOT_WORD: (r"\W", {_SPACE, _OTHER}),
}

Chars = frozenset[int]


class PatternError(ValueError):
    """The pattern cannot be used; the message says why and what to write instead."""


def safe_pattern(pattern: str, flags: int = 0) -> tuple[re.Pattern[str], int]:
    """(the compiled pattern with bounded repetitions, the most characters that it matches).

    Raises PatternError.
    """
    text = bounded(pattern)
    try:
        compiled = re.compile(text, flags)
        tree: Any = _parser.parse(text, flags)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise PatternError(f"it is no regular expression: {error}") from error
    if compiled.flags & re.VERBOSE:
        raise PatternError("the VERBOSE flag cannot be used here; leave out its spaces and comments")
    least, most = map(int, tree.getwidth())
    if least == 0:
        raise PatternError("it matches the empty text; make a part of it mandatory")
    if most > LONGEST_MATCH:
        raise PatternError(f"it may match {most} characters and at most {LONGEST_MATCH} are allowed; use {{1,64}}")
    ways, _ = _analyse(tree, frozenset(), bool(compiled.flags & re.IGNORECASE))
    if ways > MAX_WAYS:
        raise PatternError(
            "it can take very long, since its repetitions may share the same text in too many ways; put something"
            " between them that they cannot match themselves, or bound them, as in {1,20}"
        )
    return compiled, most


def bounded(pattern: str) -> str:
    """The pattern with each open repetition bounded by MAX_REPEAT."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        step = _next(pattern, at)
        piece = pattern[at : at + step]
        at += step
        low = _open_low(piece)
        out.append(piece if low is None else f"{{{low},{max(low, MAX_REPEAT)}}}")
        if (low is not None or piece == "?" or _CLOSED.fullmatch(piece)) and pattern[at : at + 1] in ("?", "+"):
            out.append(pattern[at])  # lazy or possessive: part of the quantifier
            at += 1
    return "".join(out)


def _open_low(piece: str) -> int | None:
    if piece in ("*", "+"):
        return int(piece == "+")
    found = _OPEN_END.fullmatch(piece)
    return int(found[1] or 0) if found else None


def _next(pattern: str, at: int) -> int:
    """Length of the piece at `at`: an escape, a class, a group's opening, a quantifier, or one character."""
    if pattern[at] == "\\":
        return 2
    if pattern.startswith("(?#", at):
        return max(pattern.find(")", at) + 1 - at, 3)
    if pattern.startswith("(?", at):
        return 2
    if pattern[at] == "[":
        end = at + 1
        end += pattern.startswith("^", end)
        end += pattern.startswith("]", end)
        while end < len(pattern) and pattern[end] != "]":
            end += 2 if pattern[end] == "\\" else 1
        return end + 1 - at
    found = _OPEN_END.match(pattern, at) or _CLOSED.match(pattern, at)
    return len(found[0]) if found else 1


def _analyse(items: Iterable[Any], after: Chars, fold: bool) -> tuple[float, Chars]:
    """(in how many ways the items may match one text, what they may begin with), when `after` may follow them.

    An empty `after`: the pattern ends there, so that nothing makes the engine try another way.
    """
    ways: float = 1
    for op, value in reversed(list(items)):
        if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            after = _chars(op, value, fold)
        elif op is sre.AT:
            after = after or _EVERYTHING  # what fails after a repetition makes it give back what it took
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            inside, _ = _analyse(value[1], frozenset(), fold)
            ways *= inside
            after = after or _EVERYTHING
        elif op is sre.SUBPATTERN:
            inside, after = _analyse(value[3], after, fold)
            ways *= inside
        elif op is sre.ATOMIC_GROUP:
            inside, after = _analyse(value, after, fold)
            ways *= inside
        elif op is sre.BRANCH:
            parts = [_analyse(part, after, fold) for part in value[1]]
            firsts = [first for _, first in parts]
            apart = sum(map(len, firsts)) == len(frozenset().union(*firsts))
            ways *= max(w for w, _ in parts) if apart else sum(w for w, _ in parts)
            after = frozenset().union(*firsts)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            inside, after = _repeat(value, after, fold)
            ways *= inside
        elif op is sre.GROUPREF:
            after = _EVERYTHING
        else:
            raise PatternError(f"it uses {str(op).lower()}, which is not supported here")
        ways = min(ways, 1e30)
    return ways, after


def _repeat(value: Any, after: Chars, fold: bool) -> tuple[float, Chars]:
    low, high, body = int(value[0]), int(value[1]), value[2]
    _, first = _analyse(body, frozenset(), fold)
    last, _ = _analyse(body, after, fold)
    ways = last
    if high > 1:
        between, _ = _analyse(body, first, fold)
        if body.getwidth()[0] == 0:
            between *= 2
        ways = min(ways * between ** min(high, 100), 1e30) if between > 1 else ways
    if low != high and first & after:
        ways *= high - low + 1
    return ways, first | (after if low == 0 else frozenset())


def _chars(op: Any, value: Any, fold: bool) -> Chars:
    if op is sre.ANY:
        return _EVERYTHING
    if op is sre.LITERAL:
        return _of(value, fold)
    if op is sre.NOT_LITERAL:
        return _EVERYTHING - (_of(value, fold) - _BEYOND)
    found: set[int] = set()
    whole: set[int] = set()
    """Of the stands-for characters those that a category covers entirely."""
    negated = False
    for kind, item in value:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            found |= _of(item, fold)
        elif kind is sre.RANGE:
            for code in range(item[0], min(item[1], 255) + 1):
                found |= _of(code, fold)
            if item[1] > 255:
                found |= _BEYOND
        elif kind is sre.CATEGORY:
            category, beyond = _CATEGORIES[item]
            found |= {code for code in range(256) if re.match(category, chr(code))} | beyond
            if item not in (sre.CATEGORY_DIGIT, sre.CATEGORY_NOT_DIGIT):
                whole |= beyond
    if negated:
        return _EVERYTHING - ({code for code in found if code < 256} | whole)
    return frozenset(found)


def _of(code: int, fold: bool) -> Chars:
    cases = {code}
    if fold:
        cases |= {ord(c) for c in (chr(code).lower(), chr(code).upper()) if len(c) == 1}
    return frozenset(_stands_for(c) for c in cases)


def _stands_for(code: int) -> int:
    if code < 256:
        return code
    char = chr(code)
    return _WORD if char.isalnum() else _SPACE if char.isspace() else _OTHER

"""What is scrubbed beside credentials, as the user says it: rules of their own, and kinds of personal data.

`config` reads them with this, `rule_search` looks for them. Nothing here runs while an agent is recorded; imported with
`loopscope`, so light: `patterns` and `pii` are imported when there is a rule or a kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from loopscope.exceptions import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.ASCII


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """A rule of your own: what `pattern` matches is recorded as `[redacted:<name>]`.

    `name` has letters, digits, `_`, `.` and `-`, at most 64. `pattern` is a regular expression (text, or compiled from
    text) that is searched in each recorded string. `+`, `*` and `{n,}` repeat at most 256 times; a pattern that can
    match nothing, or that could take very long, is refused.

    Raises ConfigurationError, naming the rule.
    """

    name: str
    pattern: str | re.Pattern[str]

    def __post_init__(self) -> None:
        compiled(self)


class Compiled(NamedTuple):
    """A rule ready to search with. `width` is the most characters that it matches."""

    placeholder: bytes
    pattern: re.Pattern[str]
    width: int
    literal: str
    """Stands in every match; empty when nothing does."""
    accept: Callable[[re.Match[str]], tuple[int, int] | None] | None
    """Which part of a match it is; None: it is none."""


def placeholder(name: str) -> str:
    return f"[redacted:{name}]"


def compiled(rule: RedactionRule) -> Compiled:
    name, pattern = cast("Any", rule.name), cast("Any", rule.pattern)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"redaction rule {name!r}: a name has 1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit"
        )
    from .patterns import PatternError, safe_pattern

    flags = 0
    if isinstance(pattern, re.Pattern):
        flags, pattern = pattern.flags & (_FLAGS | re.VERBOSE), pattern.pattern
    if not isinstance(pattern, str) or not pattern:
        raise ConfigurationError(f"redaction rule {name!r}: expected a regular expression of text, got {pattern!r}")
    try:
        made, width = safe_pattern(pattern, flags)
    except PatternError as error:
        raise ConfigurationError(f"redaction rule {name!r}, pattern {pattern!r}: {error}") from error
    if made.search(placeholder(name)):
        raise ConfigurationError(
            f"redaction rule {name!r}, pattern {pattern!r}: it matches {placeholder(name)}, which stands for what it"
            " found; make it narrower or rename it"
        )
    return Compiled(placeholder(name).encode(), made, width, "", None)


def rules_of(given: object, source: str) -> tuple[RedactionRule, ...]:
    """Rules as a user writes them: a mapping of name to pattern, or several RedactionRule. `source` names the setting.

    Raises ConfigurationError.
    """
    if isinstance(given, Mapping):
        items = cast("Mapping[Any, Any]", given).items()
        return tuple(RedactionRule(name, pattern) for name, pattern in items)
    if isinstance(given, RedactionRule):
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        rules: list[RedactionRule] = []
        for item in cast("Iterable[object]", given):
            rules += rules_of(item, source) if isinstance(item, Mapping | RedactionRule) else [_no_rule(item, source)]
        return tuple(rules)
    return (_no_rule(given, source),)


def _no_rule(given: object, source: str) -> RedactionRule:
    raise ConfigurationError(
        f"{source}: expected a mapping of name to regular expression, or loopscope.RedactionRule, got {given!r}"
    )


def pii_kinds(given: object, source: str) -> tuple[str, ...]:
    """Kinds of personal data as a user writes them: True for all, or their names. Raises ConfigurationError."""
    if given is None or given is False:
        return ()
    from .pii import FORMS

    if given is True:
        return tuple(FORMS)
    names: Sequence[object] = [given] if isinstance(given, str) else list(cast("Iterable[object]", _iterable(given)))
    for name in names:
        if name not in FORMS:
            raise ConfigurationError(f"{source}: {name!r} is none of {', '.join(sorted(FORMS))}")
    return tuple(kind for kind in FORMS if kind in names)


def _iterable(given: object) -> object:
    return given if isinstance(given, Iterable) else [given]

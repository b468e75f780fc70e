"""Credentials, and what the user's rules name, out of recorded text: each find becomes `[redacted:<kind>]`.

Called by the recording worker for every body and text. Bytes in, bytes out: a placeholder is plain ASCII inside the
string that held the find, nothing else changes, JSON stays JSON; a body without finds is returned as the same object.
The forms of credentials are in `credentials`, rules and personal data in `rules`.

Cost: plain substring searches first (a regular expression runs only where one of its literals stands), in windows small
enough to let the host's threads run; and of a history that grows only the new part is looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .credentials import BEFORE_SECRET, FORMS, LONGEST_CREDENTIAL, REACH, RUN, TOKEN_CHARS, Form

if TYPE_CHECKING:
    from .rule_search import RuleSet

WINDOW_BYTES = 128 * 1024
"""One search holds the interpreter for well below a millisecond."""
HISTORY_MAX_ENTRIES = 64
HISTORY_MAX_BYTES = 32 * 1024 * 1024
"""Earlier bodies kept to compare with, by reference; beyond it the oldest are forgotten and searched again."""

_EVERYWHERE = tuple(form for form in FORMS if form.everywhere)
_IN_TOKENS = tuple(form for form in FORMS if not form.everywhere)
_TOKEN_MARKS = bytes(0x78 if code in TOKEN_CHARS else 0x20 for code in range(256))
"""Each byte as `x` or a space."""
_RUN = b"x" * RUN

Found = tuple[int, int, bytes]
"""(start, end, what to write instead) of one find."""


def find_credentials(data: bytes, start: int = 0) -> list[Found]:
    """Credentials in `data` whose literal stands at `start` or later, in order, none overlapping another."""
    found: list[Found] = []
    end = len(data)
    for window in range(start, end, WINDOW_BYTES):
        # A literal may straddle two windows; the longest has 25 bytes.
        stop = min(window + WINDOW_BYTES + 32, end)
        _search(_EVERYWHERE, data, window, stop, found)
        for begin, finish in _token_regions(data, window, stop):
            _search(_IN_TOKENS, data, begin, finish, found)
    return _disjoint(found)


def _search(forms: Sequence[Form], data: bytes, start: int, stop: int, found: list[Found]) -> None:
    for form in forms:
        for literal in form.literals:
            at = data.find(literal, start, stop)
            while at >= 0:
                match = form.pattern.match(data, at - form.back) if at >= form.back else None
                if match is None:
                    at = data.find(literal, at + 1, stop)
                    continue
                begin, finish = match.span("secret") if "secret" in form.pattern.groupindex else match.span()
                found.append((begin, finish, form.placeholder))
                at = data.find(literal, max(match.end(), at + 1), stop)


def _token_regions(data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Where between `start` and `stop` the literal of a credential may stand: about words too long for prose.

    Prose and most code have few, and eighty literals need not be looked for in what is left.
    """
    marks = data[start : stop + REACH + RUN].translate(_TOKEN_MARKS)
    regions: list[tuple[int, int]] = []
    at = marks.find(_RUN)
    while at >= 0:
        finish = marks.find(b" ", at)
        finish = len(marks) if finish < 0 else finish
        begin, last = start + max(at - REACH, 0), min(start + finish, stop)
        if regions and begin <= regions[-1][1]:
            begin, _ = regions.pop()
        if begin < last:
            regions.append((begin, last))
        at = marks.find(_RUN, finish)
    return regions


def _disjoint(found: list[Found]) -> list[Found]:
    """Of overlapping finds the one that begins first stays, and of those the longest."""
    result: list[Found] = []
    for item in sorted(set(found), key=lambda f: (f[0], -f[1], f[2])):
        if not result or item[0] >= result[-1][1]:
            result.append(item)
    return result


def replace(data: bytes, found: list[Found]) -> bytes:
    """`data` with each find replaced by its placeholder; the same object when there is none."""
    if not found:
        return data
    parts: list[bytes | memoryview] = []
    view, position = memoryview(data), 0
    for begin, end, instead in found:
        parts += (view[position:begin], instead)
        position = end
    parts.append(view[position:])
    return b"".join(parts)


def _merged(found: list[Found]) -> list[Found]:
    """Finds of several sources in order; one that reaches beyond the end of another gives up what they share."""
    result: list[Found] = []
    for begin, end, instead in sorted(found, key=lambda f: (f[0], -f[1], f[2])):
        last = result[-1][1] if result else 0
        if end > last:
            result.append((max(begin, last), end, instead))
    return result


class _Earlier(NamedTuple):
    data: bytes
    credentials: list[Found]
    by_rules: list[Found]
    checkpoints: list[int]


class Scrubber:
    """What is scrubbed in this process, and the histories that were scrubbed before.

    A history is a body that grows from call to call: what it shares with its earlier state is not searched again. Used
    by one thread.
    """

    def __init__(self, *, credentials: bool = True, rules: RuleSet | None = None) -> None:
        self._credentials = credentials
        self._rules = rules or None
        self._histories: OrderedDict[str | bytes, _Earlier] = OrderedDict()
        self._bytes = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look for."""
        return not self._credentials and self._rules is None

    def scrub(self, data: bytes) -> tuple[bytes, int]:
        """(the JSON text without finds, how many there were)."""
        found = self._found_by_both(find_credentials(data) if self._credentials else [], self._by_rules(data, 0)[0])
        return replace(data, found), len(found)

    def scrub_texts(self, texts: list[str], names: Collection[str] = ()) -> tuple[dict[str, str], int]:
        """Of many short plain texts those with finds, each with what it becomes, and how many finds.

        In those that are `names` (of runs, models, hosts: what other records refer to) only credentials are looked for.
        """
        changed: dict[str, str] = {}
        total = 0
        joined = "\n".join(texts).encode("utf-8", "surrogatepass")
        suspected = bool(self._credentials and find_credentials(joined))
        if not suspected and self._rules is None:
            return changed, total
        for text in texts:
            clean, found = self._scrub_text(text, suspected=suspected, rules=None if text in names else self._rules)
            if found:
                changed[text] = clean
                total += found
        return changed, total

    def _scrub_text(self, text: str, *, suspected: bool, rules: RuleSet | None) -> tuple[str, int]:
        data = text.encode("utf-8", "surrogatepass")
        found = find_credentials(data) if suspected else []
        if rules is not None and (finds := rules.find_in_text(text)):
            found = _merged(found + _in_bytes(text, finds))
        return (replace(data, found).decode("utf-8", "surrogatepass"), len(found)) if found else (text, 0)

    def scrub_history(self, data: bytes, *keys: str | bytes) -> tuple[bytes, int]:
        """As `scrub`. The keys name the history that this body continues, the surest first.

        It is found under the first key that is known, and remembered under all: a run's second call knows its first,
        and the first call of a run that takes up where another ended knows that one's last.
        """
        known = [self._histories[key] for key in keys if key in self._histories]
        earlier = known[0] if known else None
        shared = common_prefix(earlier.data, data) if earlier is not None else 0
        credentials = self._credentials_since(earlier, shared, data) if self._credentials else []
        start, kept, checkpoints = 0, [], []
        if earlier is not None and self._rules is not None:
            checkpoints = [at for at in earlier.checkpoints if at < shared]
            # What lies before the last place between two values that both share is as it was.
            start = checkpoints.pop() if checkpoints else 0
            kept = [item for item in earlier.by_rules if item[1] <= start]
        by_rules, further = self._by_rules(data, start)
        by_rules = kept + by_rules
        self._remember(keys, _Earlier(data, credentials, by_rules, checkpoints + further))
        found = self._found_by_both(credentials, by_rules)
        return replace(data, found), len(found)

    @staticmethod
    def _credentials_since(earlier: _Earlier | None, shared: int, data: bytes) -> list[Found]:
        # A credential reaches no further back than the last quote: a secret holds none, and what stands before it is
        # short.
        quote = data.rfind(b'"', max(shared - LONGEST_CREDENTIAL, 0), shared)
        start = max(quote - BEFORE_SECRET, shared - LONGEST_CREDENTIAL, 0)
        if earlier is None or not start:
            return find_credentials(data)
        for item in earlier.credentials:
            if item[0] < start < item[1]:
                start = item[0]  # a credential across the border is searched as a whole
        kept = [item for item in earlier.credentials if item[1] <= start]
        return _disjoint(kept + find_credentials(data, max(start - 32, 0)))

    def _by_rules(self, data: bytes, start: int) -> tuple[list[Found], list[int]]:
        return self._rules.find(data, start) if self._rules is not None else ([], [])

    def _found_by_both(self, credentials: list[Found], by_rules: list[Found]) -> list[Found]:
        return _merged(credentials + by_rules) if by_rules else credentials

    def _remember(self, keys: Sequence[str | bytes], state: _Earlier) -> None:
        """Bytes are counted once for each key: that two keys share them only makes the bound stricter."""
        for key in keys:
            if (old := self._histories.pop(key, None)) is not None:
                self._bytes -= len(old.data)
        if len(state.data) > HISTORY_MAX_BYTES // 2:
            return
        for key in keys:
            self._histories[key] = state
            self._bytes += len(state.data)
        while len(self._histories) > HISTORY_MAX_ENTRIES or self._bytes > HISTORY_MAX_BYTES:
            _, old = self._histories.popitem(last=False)
            self._bytes -= len(old.data)


def _in_bytes(text: str, finds: list[Found]) -> list[Found]:
    """Places in characters as places in the text's UTF-8."""

    def place(at: int) -> int:
        return at if text.isascii() else len(text[:at].encode("utf-8", "surrogatepass"))

    return [(place(begin), place(end), instead) for begin, end, instead in finds]


def common_prefix(a: bytes, b: bytes) -> int:
    """Length of what two texts begin with alike, without copying either."""
    low, high = 0, min(len(a), len(b))
    view = memoryview(a)
    step = WINDOW_BYTES
    while low < high:
        width = min(step, high - low)
        if b.startswith(view[low : low + width], low):
            low += width
        elif width == 1:
            break
        else:
            step = width // 2
    return low

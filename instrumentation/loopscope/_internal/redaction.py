"""Credentials out of recorded text: bytes in, bytes out, each credential replaced by `[redacted:<kind>]`.

Called by the recording worker for every body and text. Works on JSON bytes as they are: a placeholder is plain ASCII
inside the string that held the credential, nothing else changes, and a body without credentials is returned as the same
object. Only well-known, unmistakable forms are looked for; guessing by key names would eat ordinary prose.

Cost: plain substring searches first (a regular expression runs only where one of its literals stands), in windows small
enough to let the host's threads run; and of a history that grows only the new part is looked at.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass

WINDOW_BYTES = 128 * 1024
"""One search holds the interpreter for well below a millisecond."""
LONGEST_CREDENTIAL = 16 * 1024
"""Bound of every pattern below, and so of how far back a changed end can reach into what was already searched."""
HISTORY_MAX_ENTRIES = 64
HISTORY_MAX_BYTES = 32 * 1024 * 1024
"""Earlier bodies kept to compare with, by reference; beyond it the oldest are forgotten and searched again."""

# A credential begins at a word's edge; in JSON text, the letter of an escape (`\n`, `\u00e9`) is no part of a word.
_EDGE = rb"(?:(?<![A-Za-z0-9_\-])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
# As above, and not inside base64 either (where `=` only ever ends it: `KEY=AKIA...` is an edge).
_EDGE64 = rb"(?:(?<![A-Za-z0-9_\-+/])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
_END = rb"(?![A-Za-z0-9_\-+/=])"


@dataclass(frozen=True, slots=True)
class _Form:
    kind: bytes
    literals: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    """Matched where a literal stands; what group `secret` holds is replaced, or all of it."""
    back: int = 0
    """How far before the literal the match begins."""


def _form(kind: str, literals: str | tuple[str, ...], pattern: bytes, back: int = 0) -> _Form:
    texts = (literals,) if isinstance(literals, str) else literals
    return _Form(kind.encode(), tuple(text.encode() for text in texts), re.compile(pattern), back)


_FORMS = (
    _form("anthropic-api-key", "sk-ant-", _EDGE + rb"sk-ant-[A-Za-z0-9_\-]{20,400}"),
    _form(
        "openai-api-key",
        "sk-",
        _EDGE + rb"(?:sk-(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_\-]{24,400}|sk-[A-Za-z0-9]{32,200}(?![A-Za-z0-9_\-]))",
    ),
    _form("aws-access-key-id", ("AKIA", "ASIA"), _EDGE64 + rb"(?:AKIA|ASIA)[A-Z0-9]{16}" + _END),
    _form(
        "aws-secret-access-key",
        ("ecret_access_key", "ecretAccessKey", "ECRET_ACCESS_KEY"),
        rb"(?i:ecret_?access_?key)[\s\"'\\:=]{1,12}(?P<secret>[A-Za-z0-9/+]{40})" + _END,
    ),
    _form("github-token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _EDGE + rb"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _form("github-token", "github_pat_", _EDGE + rb"github_pat_[A-Za-z0-9_]{40,255}"),
    _form("gitlab-token", "glpat-", _EDGE + rb"glpat-[A-Za-z0-9_\-]{20,200}"),
    _form("slack-token", "xox", _EDGE + rb"xox[abeoprs]-[A-Za-z0-9\-]{10,400}"),
    _form("slack-token", "xapp-", _EDGE + rb"xapp-[0-9]-[A-Za-z0-9\-]{20,400}"),
    _form(
        "slack-webhook",
        "hooks.slack.com/services/",
        rb"hooks\.slack\.com/services/(?P<secret>T[A-Za-z0-9]{6,20}/B[A-Za-z0-9]{6,20}/[A-Za-z0-9]{16,64})",
    ),
    _form("google-api-key", "AIza", _EDGE64 + rb"AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-+/=])"),
    _form("google-access-token", "ya29.", _EDGE + rb"ya29\.[A-Za-z0-9_\-]{20,2000}"),
    _form("stripe-api-key", ("k_live_", "k_test_"), _EDGE + rb"[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}", back=1),
    _form("stripe-webhook-secret", "whsec_", _EDGE + rb"whsec_[A-Za-z0-9+/]{24,200}={0,2}"),
    _form("huggingface-token", "hf_", _EDGE + rb"hf_[A-Za-z0-9]{34,64}(?![A-Za-z0-9_\-])"),
    _form("npm-token", "npm_", _EDGE + rb"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_\-])"),
    _form("pypi-token", "pypi-AgE", _EDGE + rb"pypi-AgE[A-Za-z0-9_\-]{40,1000}"),
    _form("sendgrid-api-key", "SG.", _EDGE + rb"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}(?![A-Za-z0-9_\-])"),
    _form(
        "jwt",
        "eyJ",
        _EDGE64 + rb"eyJ[A-Za-z0-9_\-]{10,4096}\.eyJ[A-Za-z0-9_\-]{10,8192}\.[A-Za-z0-9_\-]{0,2048}",
    ),
    _form(
        "bearer-token",
        ("earer ", "EARER "),
        rb"(?i:earer) {1,4}(?=[A-Za-z0-9._~+/\-]*[0-9])(?P<secret>[A-Za-z0-9._~+/\-]{20,4096}={0,2})",
    ),
    _form(
        "private-key",
        "-----BEGIN ",
        # Up to the end mark, or, where the text was cut, as far as it looks like a key. Never ends inside an escape.
        rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        rb"(?:(?:[A-Za-z0-9+/=,.:() \r\n\t]|-(?!-)|\\+[nrt]|\\/){0,15000}"
        rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"|(?:[A-Za-z0-9+/= \r\n\t]|\\+[nrt]|\\/){0,15000})",
    ),
    _form("url-password", "://", rb"://[^\s/:@\"'\\<>\[\]{}]{0,200}:(?P<secret>(?![\[{$<*%])[^\s/@\"'\\<>]{1,256})@"),
)

Found = tuple[int, int, bytes]
"""(start, end, kind) of one credential."""


def find_credentials(data: bytes, start: int = 0) -> list[Found]:
    """Credentials in `data` whose literal stands at `start` or later, in order, none overlapping another."""
    found: list[Found] = []
    end = len(data)
    for window in range(start, end, WINDOW_BYTES):
        # A literal may straddle two windows; the longest has 25 bytes.
        stop = min(window + WINDOW_BYTES + 32, end)
        for form in _FORMS:
            for literal in form.literals:
                at = data.find(literal, window, stop)
                while at >= 0:
                    match = form.pattern.match(data, at - form.back) if at >= form.back else None
                    if match is None:
                        at = data.find(literal, at + 1, stop)
                        continue
                    begin, finish = match.span("secret") if "secret" in form.pattern.groupindex else match.span()
                    found.append((begin, finish, form.kind))
                    at = data.find(literal, max(match.end(), at + 1), stop)
    return _disjoint(found)


def _disjoint(found: list[Found]) -> list[Found]:
    """Of overlapping finds the one that begins first stays, and of those the longest."""
    result: list[Found] = []
    for item in sorted(set(found), key=lambda f: (f[0], -f[1])):
        if not result or item[0] >= result[-1][1]:
            result.append(item)
    return result


def replace(data: bytes, found: list[Found]) -> bytes:
    """`data` with each find replaced by its placeholder; the same object when there is none."""
    if not found:
        return data
    parts: list[bytes | memoryview] = []
    view, position = memoryview(data), 0
    for begin, end, kind in found:
        parts += (view[position:begin], b"[redacted:", kind, b"]")
        position = end
    parts.append(view[position:])
    return b"".join(parts)


def scrub(data: bytes) -> tuple[bytes, int]:
    """(the text without credentials, how many there were)."""
    found = find_credentials(data)
    return replace(data, found), len(found)


def scrub_texts(texts: list[str]) -> tuple[dict[str, str], int]:
    """Of many short texts those that hold a credential, each with what it becomes, and how many credentials."""
    joined = "\n".join(texts).encode("utf-8", "surrogatepass")
    if not find_credentials(joined):
        return {}, 0
    changed: dict[str, str] = {}
    total = 0
    for text in texts:
        clean, found = scrub(text.encode("utf-8", "surrogatepass"))
        if found:
            changed[text] = clean.decode("utf-8", "surrogatepass")
            total += found
    return changed, total


class HistoryScrubber:
    """Scrubs bodies that grow from call to call: what it shares with the run's earlier body is not searched again.

    Used by one thread.
    """

    def __init__(self) -> None:
        self._earlier: OrderedDict[str | bytes, tuple[bytes, list[Found]]] = OrderedDict()
        self._bytes = 0

    def scrub(self, key: str | bytes, data: bytes) -> tuple[bytes, int]:
        """As `scrub`. `key` names the history that this body continues."""
        earlier = self._earlier.pop(key, None)
        found: list[Found] = []
        start = 0
        if earlier is not None:
            self._bytes -= len(earlier[0])
            start = max(common_prefix(earlier[0], data) - LONGEST_CREDENTIAL, 0)
            for item in earlier[1]:
                if item[0] < start < item[1]:
                    start = item[0]  # a credential across the border is searched as a whole
            found = [item for item in earlier[1] if item[1] <= start]
        found = _disjoint(found + find_credentials(data, max(start - 32, 0))) if start else find_credentials(data)
        self._remember(key, data, found)
        return replace(data, found), len(found)

    def _remember(self, key: str | bytes, data: bytes, found: list[Found]) -> None:
        if len(data) > HISTORY_MAX_BYTES // 2:
            return
        self._earlier[key] = (data, found)
        self._bytes += len(data)
        while len(self._earlier) > HISTORY_MAX_ENTRIES or self._bytes > HISTORY_MAX_BYTES:
            _, (old, _) = self._earlier.popitem(last=False)
            self._bytes -= len(old)

    def forget(self, key: str | bytes) -> None:
        """The run of this key is over."""
        if (entry := self._earlier.pop(key, None)) is not None:
            self._bytes -= len(entry[0])


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

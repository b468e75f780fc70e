"""Personal data that has a form of its own: e-mail addresses, phone numbers, IBANs, payment cards, US social security
numbers, IP addresses. Off unless configured (`redact_pii`); used by `rules`.

A form says where such a thing stands, and where it has a check digit, length or range, that decides. What has no form
(names, addresses, a phone number without its country or punctuation) cannot be found this way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

Span = tuple[int, int]


class Form(NamedTuple):
    pattern: re.Pattern[str]
    width: int
    """The most characters that it matches."""
    literal: str
    """Stands in every match; empty when nothing does."""
    accept: Callable[[re.Match[str]], Span | None] | None = None
    """Which part of a match it is; None: it is none."""


# A pattern begins with the characters it may begin with, which the engine finds quickly, and looks back from there
# whether that is an edge. In JSON inside JSON the letter of an escape (`\n`, `\u00e9`) is no part of a word.
_ESCAPE = r"(?<=\\[nrtbf].)|(?<=\\u[0-9a-fA-F]{4}.)"
_EDGE = rf"(?:(?<![\w+/=].)|{_ESCAPE})"
_DIGIT_EDGE = rf"(?:(?<![\w+/.\-].)|{_ESCAPE})"
_ADDRESS_EDGE = rf"(?:(?<![\w.+\-].)|{_ESCAPE})"
_SEPARATORS = str.maketrans("", "", " -")

IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL OM SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "PT ST LY", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB PL SV NI", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
        32: "LC", 33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip
"""Country -> length of its account numbers, by the registry of ISO 13616."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def iban_checks(account: str) -> bool:
    """Whether the two digits after the country are the check digits of the rest (ISO 7064, mod 97)."""
    return int("".join(str(int(char, 36)) for char in account[4:] + account[:4])) % 97 == 1


def _prefix(match: re.Match[str], length: int) -> Span | None:
    """The span of the first `length` characters of a match, separators aside, when it ends where a word does."""
    seen = 0
    text = match.string
    for at in range(match.start(), match.end()):
        seen += text[at] not in " -"
        if seen == length:
            return None if text[at + 1 : at + 2].isalnum() else (match.start(), at + 1)
    return None


def _card(match: re.Match[str]) -> Span | None:
    digits = match[0].translate(_SEPARATORS)
    for length in range(len(digits), 12, -1):
        if luhn(digits[:length]) and len(set(digits[:length])) > 1 and (span := _prefix(match, length)):
            return span
    return None


def _iban(match: re.Match[str]) -> Span | None:
    account = match[0].translate(_SEPARATORS)
    length = IBAN_LENGTHS.get(account[:2], 0)
    if not length or len(account) < length or not iban_checks(account[:length]):
        return None
    return _prefix(match, length)


def _address(match: re.Match[str]) -> Span | None:
    return match.span() if _is_address(match[0]) else None


def _around(match: re.Match[str]) -> Span | None:
    """The IPv6 address about two colons, or about the first of seven."""
    text = match.string
    before = _HEX_END.search(text, max(match.start() - 40, 0), match.start())
    after = _HEX.match(text, match.start())
    if before is None or after is None or (text[after.end() : after.end() + 1].isalnum()):
        return None
    begin, end = before.start(), after.end()
    address = text[begin:end]
    edge = begin == 0 or not (text[begin - 1].isalnum() or text[begin - 1] in "_.+-")
    # `abc::def` is a name in many languages.
    if edge and any(map(str.isdigit, address)) and len([part for part in address.split(":") if part]) > 1:
        return (begin, end) if _is_address(address) else None
    return None


_HEX = re.compile(r"[0-9A-Fa-f:]*")
_HEX_END = re.compile(r"[0-9A-Fa-f:]*\Z")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


FORMS: dict[str, tuple[Form, ...]] = {
    "email": (Form(re.compile(r"[\w.%+\-]{1,64}@(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"), 601, "@"),),
    "phone": (
        Form(re.compile(rf"\+{_DIGIT_EDGE}[1-9](?:[ .\-()/]{{0,2}}\d){{7,14}}(?!\d)"), 46, "+"),
        Form(re.compile(rf"\({_DIGIT_EDGE}[2-9]\d{{2}}\) ?[2-9]\d{{2}}[\-. ]\d{{4}}(?![\w\-])"), 15, "("),
        Form(re.compile(rf"[2-9]{_DIGIT_EDGE}\d{{2}}([\-.])[2-9]\d{{2}}\1\d{{4}}(?![\w\-])"), 13, ""),
    ),
    "iban": (Form(re.compile(rf"[A-Z]{_EDGE}[A-Z]\d{{2}}(?:[ \-]?[A-Z0-9]){{11,30}}"), 64, "", _iban),),
    "credit_card": (Form(re.compile(rf"[2-6]{_DIGIT_EDGE}(?:[ \-]?\d){{12,18}}(?!\d)"), 37, "", _card),),
    "ssn": (
        Form(re.compile(rf"[0-8]{_DIGIT_EDGE}\d{{2}}(?<!000|666)-(?!00)\d{{2}}-(?!0000)\d{{4}}(?![\w\-])"), 11, "-"),
    ),
    "ip": (
        Form(re.compile(rf"[0-9]{_ADDRESS_EDGE}\d{{0,2}}(?:\.\d{{1,3}}){{3}}(?!\w|\.\d)"), 15, ".", _address),
        Form(re.compile(r"::|:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){6}"), 40, ":", _around),
    ),
}
"""Kind -> its forms. `git@github.com` is an address, a version of four numbers is an IP address: forms cannot know."""

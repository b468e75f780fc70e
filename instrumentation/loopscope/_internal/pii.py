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


# In JSON inside JSON the letter of an escape (`\n`, `\u00e9`) is no part of a word.
_ESCAPE = r"(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})"
_EDGE = rf"(?:(?<![\w+/=])|{_ESCAPE})"
_DIGIT_EDGE = rf"(?:(?<![\w+/.\-])|{_ESCAPE})"
_ADDRESS_EDGE = rf"(?:(?<![\w.:+\-])|{_ESCAPE})"
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
    text = match[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6 and not (any(map(str.isdigit, text)) and len([p for p in text.split(":") if p]) > 1):
        return None  # `abc::def` is a name in many languages
    return match.span()


FORMS: dict[str, Form] = {
    "email": Form(re.compile(r"[\w.%+\-]{1,64}@(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"), 601, "@"),
    "phone": Form(
        re.compile(
            _DIGIT_EDGE + r"(?:\+[1-9](?:[ .\-()/]{0,2}\d){7,14}(?!\d)"
            r"|\([2-9]\d{2}\) ?[2-9]\d{2}[\-. ]\d{4}(?![\w\-])"
            r"|[2-9]\d{2}([\-.])[2-9]\d{2}\1\d{4}(?![\w\-]))"
        ),
        46,
        "",
    ),
    "iban": Form(re.compile(_EDGE + r"[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]){11,30}"), 64, "", _iban),
    "credit_card": Form(re.compile(_DIGIT_EDGE + r"[2-6](?:[ \-]?\d){12,18}(?!\d)"), 37, "", _card),
    "ssn": Form(
        re.compile(_DIGIT_EDGE + r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w\-])"), 11, "-"
    ),
    "ip": Form(
        re.compile(
            _ADDRESS_EDGE
            + r"(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]))"
        ),
        40,
        "",
        _address,
    ),
}  # fmt: skip
"""Kind -> its form. `git@github.com` is an address, a version of four numbers is an IP address: forms cannot know."""

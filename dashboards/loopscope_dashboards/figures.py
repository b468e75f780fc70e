"""Numbers as people read them: money, tokens, durations, times, sizes. Unknown is "unknown", never zero."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

UNKNOWN: Final = "unknown"
NONE: Final = "\u2013"


def count(value: float | None) -> str:
    """1,234"""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """1,234 below ten thousand, then 12.3k, 4.56M"""
    if value is None:
        return UNKNOWN
    if value < 10_000:
        return f"{value:,.0f}"
    if value < 999_500:
        return f"{value / 1e3:.1f}k" if value < 99_950 else f"{value / 1e3:.0f}k"
    return f"{value / 1e6:.2f}M" if value < 999_500_000 else f"{value / 1e9:.2f}B"


def money(value: Decimal | float | None) -> str:
    """$0.0123; small amounts keep two digits that say something, large ones whole cents."""
    if value is None:
        return UNKNOWN
    amount = Decimal(value)
    size = abs(amount)
    sign = "-" if amount < 0 else ""
    if size == 0:
        return "$0"
    if size >= 100:
        return f"{sign}${size:,.2f}" if size < 10_000 else f"{sign}${size:,.0f}"
    if size >= 1:
        return f"{sign}${size:.2f}"
    if size >= Decimal("0.001"):
        return f"{sign}${size:.4f}"
    digits = min(12, 1 - size.adjusted())
    return f"{sign}${size:.{digits}f}"


def cost(known: Decimal | float | None, unknown_calls: int, calls: int) -> str:
    """Cost of several calls: the known part, and how many are not known."""
    if calls == 0:
        return NONE
    if known is None or unknown_calls >= calls:
        return UNKNOWN
    return money(known) if not unknown_calls else f"{money(known)} + {unknown_calls} unknown"


def duration(milliseconds: float | None) -> str:
    """820 ms, 2.3 s, 4 min 05 s, 2 h 03 min"""
    if milliseconds is None:
        return NONE
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(chars: int) -> str:
    """Bytes: 640 B, 12.3 kB, 10.5 MB"""
    if chars < 1000:
        return f"{chars} B"
    return f"{chars / 1e3:.1f} kB" if chars < 1e6 else f"{chars / 1e6:.1f} MB"


def percent(share: float | None) -> str:
    """12 %, 0.4 %, < 0.1 %"""
    if share is None:
        return UNKNOWN
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def clock(at: datetime | None) -> str:
    """14:03:22 UTC"""
    return NONE if at is None else f"{_utc(at):%H:%M:%S} UTC"


def moment(at: datetime | None, now: datetime) -> str:
    """14:03:22 today, 21 Nov 14:03:22 this year, 2025-11-21 14:03 before (UTC)"""
    if at is None:
        return NONE
    at, now = _utc(at), _utc(now)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    return f"{at.day} {at:%b %H:%M:%S}" if at.year == now.year else f"{at:%Y-%m-%d %H:%M}"


def full_moment(at: datetime | None) -> str:
    """2026-11-21 14:03:22.123 UTC"""
    return NONE if at is None else f"{_utc(at):%Y-%m-%d %H:%M:%S.}{at.microsecond // 1000:03d} UTC"


def ago(at: datetime, now: datetime) -> str:
    """How long since: 5 s ago"""
    return f"{duration(max(timedelta(0), now - at) / timedelta(milliseconds=1))} ago"


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

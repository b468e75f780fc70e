"""Numbers as people read them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from loopscope_dashboards import figures


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unknown"),
        (Decimal(0), "$0"),
        (Decimal("0.0123456"), "$0.0123"),
        (Decimal("0.00001234"), "$0.000012"),
        (Decimal("0.000000000001"), "$0.000000000001"),
        (Decimal("1.5"), "$1.50"),
        (Decimal("47.304"), "$47.30"),
        (Decimal("1234.5"), "$1,234.50"),
        (Decimal("123456.7"), "$123,457"),
        (Decimal("-0.02"), "-$0.0200"),
    ],
)
def test_money(amount: Decimal | None, shown: str) -> None:
    assert figures.money(amount) == shown


def test_unknown_cost_is_never_zero() -> None:
    assert figures.cost(None, 3, 3) == "unknown"
    assert figures.cost(Decimal(0), 3, 3) == "unknown"
    assert figures.cost(Decimal("0.5"), 2, 3) == "$0.5000 + 2 unknown"
    assert figures.cost(Decimal("0.5"), 0, 3) == "$0.5000"
    assert figures.cost(None, 0, 0) == "\u2013"


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (None, "\u2013"),
        (0.25, "0.25 ms"),
        (820, "820 ms"),
        (999.7, "1.0 s"),
        (2_300, "2.3 s"),
        (59_960, "1 min 00 s"),
        (245_000, "4 min 05 s"),
        (7_380_000, "2 h 03 min"),
        (200_000_000, "2 d 7 h"),
    ],
)
def test_durations(milliseconds: float | None, shown: str) -> None:
    assert figures.duration(milliseconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "unknown"), (0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (123_456, "123k"), (1_500_000, "1.50M")],
)
def test_short_counts(value: int | None, shown: str) -> None:
    assert figures.short_count(value) == shown


def test_times() -> None:
    now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    at = datetime(2026, 11, 21, 14, 3, 22, 123_000, tzinfo=UTC)
    assert figures.clock(at) == "14:03:22 UTC"
    assert figures.moment(at, now) == "21 Nov 14:03:22"
    assert figures.moment(now, now) == "09:00:00"
    assert figures.moment(datetime(2025, 1, 2, tzinfo=UTC), now) == "2025-01-02 00:00"
    assert figures.full_moment(at) == "2026-11-21 14:03:22.123 UTC"

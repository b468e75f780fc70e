"""Times: Unix nanoseconds, as the store has them, to datetimes, and the clock of the pages."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


def at(nanoseconds: int) -> datetime:
    """A moment of Unix nanoseconds, to the microsecond; out of range becomes the nearest that a datetime can hold."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if nanoseconds > 0 else datetime.min.replace(tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    """Unix nanoseconds of a moment."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000

"""Rows of one table cut into inserts, each with its deduplication token. Pure; used by `writer`.

A token names the segment, the table, the place and a digest of what the rows are. The first three make a replay the
same insert. The digest is there because not every cut can be repeated: which content blocks of a segment are inserted
depends on what the store holds already. Had a changed cut the token of an earlier one, the store would drop its rows
without a word. With the digest it is another insert, and repeats of a content block are harmless.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_DAYS: Final = 50
"""Partitions in one insert: a server refuses more than 100, and each day of it is a file set of its own."""
MAX_ROWS: Final = 50_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""An insert stays one block of the store (256 MiB) with a wide margin, and so visible at once or not at all."""


@dataclass(frozen=True, slots=True)
class Part:
    """One insert."""

    rows: Sequence[Any]
    token: str


def cut(
    rows: Sequence[Any],
    *,
    segment_id: str,
    table: str,
    key: Callable[[Any], str],
    size: Callable[[Any], int],
) -> Iterator[Part]:
    """Inserts in order of day. `key` identifies a row, `size` is about its bytes."""
    days: set[int] = set()
    waiting: list[Any] = []
    waiting_bytes = number = 0
    for row in sorted(rows, key=_day):
        row_bytes = size(row)
        is_full = (
            len(waiting) >= MAX_ROWS
            or waiting_bytes + row_bytes > MAX_BYTES
            or (len(days) >= MAX_DAYS and row.day not in days)
        )
        if waiting and is_full:
            yield _part(waiting, segment_id, table, number, key)
            number += 1
            waiting, waiting_bytes = [], 0
            days.clear()
        waiting.append(row)
        waiting_bytes += row_bytes
        days.add(row.day)
    if waiting:
        yield _part(waiting, segment_id, table, number, key)


def halves(part: Part, key: Callable[[Any], str]) -> tuple[Part, Part]:
    """A refused insert as two smaller ones, to find the row that the store refuses."""
    middle = len(part.rows) // 2
    first, second = part.rows[:middle], part.rows[middle:]
    return Part(first, f"{part.token}.0.{_digest(first, key)}"), Part(second, f"{part.token}.1.{_digest(second, key)}")


def _part(rows: list[Any], segment_id: str, table: str, number: int, key: Callable[[Any], str]) -> Part:
    return Part(rows, f"{segment_id}/{table}/{number}/{_digest(rows, key)}")


def _digest(rows: Sequence[Any], key: Callable[[Any], str]) -> str:
    return hashlib.blake2b("\n".join(map(key, rows)).encode(), digest_size=16).hexdigest()


def _day(row: Any) -> int:
    return row.day

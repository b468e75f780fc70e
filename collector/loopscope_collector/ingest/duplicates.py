"""Calls that several instrumentations recorded: one of the spans counts, the others are flagged. Called by the writer.

A computation over the store, repeated for what a batch touched, like run states: after spans are inserted, whoever may
be of the same call is read, compared and flagged. Of two collectors that take in the two spans at the same time, the
one that inserts last sees both; both write the same flags. Nothing is remembered between batches.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_collector.ingest import duplicate_queries
from loopscope_collector.ingest.duplicate_match import LATEST_START_NS, LOOPSCOPE, Recording, SpanKey, groups
from loopscope_collector.ingest.duplicate_queries import LEFT_ALONE, MAX_ID_CHARS
from loopscope_collector.store import Store
from loopscope_schemas.rows import SpanRow

IDS_AT_ONCE: Final = 800
"""Ids in one statement: with the longest of them it stays below what a server reads (256 KiB)."""
FLAGS_AT_ONCE: Final = 500
DAYS_AT_ONCE: Final = 50
"""Partitions in one insert."""
SLACK_NS: Final = 600 * 1_000_000_000
"""Recordings of one call begin about together; this allows for clocks and for hooks that wait."""
NEAR_NS: Final = 2 * 3_600 * 1_000_000_000
"""Calls further apart than this are asked for apart: an old span does not widen all scans."""
_MAX_NS: Final = 2**63 - 1


@dataclass(slots=True)
class Suspects:
    """Calls of about the same time that may have been recorded more than once."""

    since: int
    until: int
    response_ids: set[str] = field(default_factory=set[str])
    call_ids: set[str] = field(default_factory=set[str])
    trace_ids: set[str] = field(default_factory=set[str])
    failures: list[int] = field(default_factory=list[int])
    """When calls began that failed before there was an id."""
    is_ours: bool = True
    """Whether Loopscope recorded them all."""

    def add(self, row: SpanRow) -> None:
        """A finished call."""
        self.until = max(self.until, row.start_time)
        self.is_ours = self.is_ours and row.dialect == LOOPSCOPE
        if row.kind == "tool":
            if _is_id(row.call_id):
                self.call_ids.add(row.call_id)
            return
        if _is_id(row.response_id):
            self.response_ids.add(row.response_id)
        elif row.status == "error":
            self.failures.append(row.start_time)
        # With an id as well: the other recording may be the one without.
        self.trace_ids.add(row.trace_id)


class Duplicates:
    """Finds and flags duplicates."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recompute(self, rows: Iterable[SpanRow]) -> dict[str, int]:
        """Flag what is a duplicate among the calls of some inserted spans; answers the runs that must be recomputed.

        By run id the earliest start that is known, in Unix ns. They are answered although nothing changed: it may have
        been changed by a process that died before it came to them. Raises StoreUnavailable, StoreRefused.
        """
        runs: dict[str, int] = {}
        for suspects in _near(rows):
            if self._has_others(suspects):
                self._settle(suspects, runs)
        return runs

    def rebuild(self) -> dict[str, int]:
        """The same for everything in the store."""
        runs: dict[str, int] = {}
        found = self._store.query(duplicate_queries.suspects(self._store.database))
        current: Suspects | None = None
        for what, text, first, last in found:
            if current is None or int(first) - current.since > NEAR_NS:
                if current is not None:
                    self._settle(current, runs)
                current = Suspects(int(first), int(last))
            current.until = max(current.until, int(last))
            if what == "trace":
                current.trace_ids.add(text)
            elif what == "failure":
                current.failures += [int(first), int(last)]
            elif _is_id(text):
                (current.response_ids if what == "response" else current.call_ids).add(text)
        if current is not None:
            self._settle(current, runs)
        return runs

    def _has_others(self, suspects: Suspects) -> bool:
        """Whether anybody else recorded calls at that time: where nobody did, nothing more is asked."""
        since, until = _window(suspects)
        sql = duplicate_queries.sources(self._store.database, since, until, but=LOOPSCOPE if suspects.is_ours else "")
        return len(self._store.query(sql)) > (0 if suspects.is_ours else 1)

    def _settle(self, suspects: Suspects, runs: dict[str, int]) -> None:
        since, until = _window(suspects)
        found = self._load(
            since, until, suspects.response_ids, call_ids=suspects.call_ids, trace_ids=suspects.trace_ids
        )
        if suspects.failures:
            first, last = min(suspects.failures) - LATEST_START_NS, max(suspects.failures) + LATEST_START_NS
            found |= self._read(duplicate_queries.failures(self._store.database, max(0, first), min(_MAX_NS, last)))
        # Those of the traces have ids of their own, under which others may be known.
        more = {item.provider_id for item in found.values() if item.kind == "llm" and _is_id(item.provider_id)}
        found |= self._load(since, until, more - suspects.response_ids)
        traces = {item.trace_id for item in found.values() if item.kind == "llm" and not item.provider_id}
        changes: dict[SpanKey, tuple[str, str]] = {}
        days: dict[SpanKey, int] = {}
        for group in groups(list(found.values()), self._parents(since, until, traces)):
            if len(group) > 1:
                for item in group:
                    runs[item.run_id] = min(item.start, runs.get(item.run_id, item.start))
            for item, wanted in _wanted(group, found):
                if wanted != (item.duplicate_of, item.duplicate_of_run):
                    changes[item.key] = wanted
                    days[item.key] = item.day
                    runs[item.run_id] = min(item.start, runs.get(item.run_id, item.start))
        self._flag(changes, days)

    def _load(
        self,
        since: int,
        until: int,
        response_ids: Iterable[str],
        *,
        call_ids: Iterable[str] = (),
        trace_ids: Iterable[str] = (),
    ) -> dict[SpanKey, Recording]:
        found: dict[SpanKey, Recording] = {}
        for name, ids in (("response_ids", response_ids), ("call_ids", call_ids), ("trace_ids", trace_ids)):
            doubled = [
                row[0]
                for chunk in _chunks(sorted(ids))
                for row in self._store.query(duplicate_queries.doubled(self._store.database, since, until, name, chunk))
            ]
            for chunk in _chunks(doubled):
                found |= self._read(duplicate_queries.recordings(self._store.database, since, until, **{name: chunk}))
        return found

    def _read(self, sql: str) -> dict[SpanKey, Recording]:
        return {item.key: item for item in map(_recording, self._store.query(sql))}

    def _parents(self, since: int, until: int, trace_ids: Iterable[str]) -> dict[SpanKey, str]:
        found: dict[SpanKey, str] = {}
        for chunk in _chunks(sorted(trace_ids)):
            for trace, span, parent in self._store.query(
                duplicate_queries.parents(self._store.database, since, until, chunk)
            ):
                found[trace, span] = parent
        return found

    def _flag(self, changes: Mapping[SpanKey, tuple[str, str]], days: Mapping[SpanKey, int]) -> None:
        waiting: dict[SpanKey, tuple[str, str]] = {}
        touched: set[int] = set()
        for key in sorted(changes, key=lambda key: (days[key], key)):
            if len(waiting) >= FLAGS_AT_ONCE or (len(touched) >= DAYS_AT_ONCE and days[key] not in touched):
                self._store.command(duplicate_queries.flag(self._store.database, waiting, sorted(touched)))
                waiting, touched = {}, set()
            waiting[key] = changes[key]
            touched.add(days[key])
        if waiting:
            self._store.command(duplicate_queries.flag(self._store.database, waiting, sorted(touched)))


def _wanted(
    group: Sequence[Recording], found: Mapping[SpanKey, Recording]
) -> Iterable[tuple[Recording, tuple[str, str]]]:
    """What the flags of a group's spans should be."""
    first, *others = group
    # Its flag may rest on a span that was not read now: only one that was tells that it counts again.
    known = {item.span_id for item in found.values()}
    if first.duplicate_of in known:
        yield first, ("", "")
    for item in others:
        yield item, (first.span_id, first.run_id)


def _recording(row: Sequence[Any]) -> Recording:
    trace, span, parent, run, kind, dialect, scope, id_, asked, answered, day, start, end, *facts = row
    content, usage, is_error, pid, duplicate_of, duplicate_of_run = facts[:6]
    return Recording(
        trace_id=trace,
        span_id=span,
        parent_span_id=parent,
        run_id=run,
        kind=kind,
        dialect=dialect,
        scope=scope,
        provider_id=id_,
        models=frozenset({asked, answered} - {""}),
        day=int(day),
        start=int(start),
        end=int(end),
        has_content=bool(content),
        has_usage=bool(usage),
        is_error=bool(is_error),
        pid=pid,
        duplicate_of=duplicate_of,
        duplicate_of_run=duplicate_of_run,
    )


def _is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_CHARS


def _window(suspects: Suspects) -> tuple[int, int]:
    return max(0, suspects.since - SLACK_NS), min(_MAX_NS, suspects.until + SLACK_NS)


def _near(rows: Iterable[SpanRow]) -> Iterable[Suspects]:
    """Finished calls in groups of about the same time."""
    calls = [
        row for row in rows if row.kind in ("llm", "tool") and row.end_time is not None and row.dialect != LEFT_ALONE
    ]
    current: Suspects | None = None
    for row in sorted(calls, key=lambda row: row.start_time):
        if current is None or row.start_time - current.since > NEAR_NS:
            if current is not None:
                yield current
            current = Suspects(row.start_time, row.start_time)
        current.add(row)
    if current is not None:
        yield current


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for begin in range(0, len(ids), IDS_AT_ONCE):
        yield ids[begin : begin + IDS_AT_ONCE]

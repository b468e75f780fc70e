"""One sealed segment -> inserts, in the order that makes a replay safe.

    binaries, prompts, content blocks, events, then spans: a span never refers to text that is not there
    which of them are duplicates, or have some
    run states of the runs it touched
    only then are its blocks marked as seen
    (the caller then forgets the segment)

Whatever the step at which the process dies, the segment is still there, and writing it again gives the same spans under
the same tokens, and at least those blocks that the store does not hold. Marking earlier would lose text: the mark would
outlive an insert that never happened.
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_collector.arrow import to_table
from loopscope_collector.ingest import run_queries
from loopscope_collector.ingest.duplicates import Duplicates
from loopscope_collector.ingest.parts import Part, cut, halves
from loopscope_collector.ingest.run_state import RunStates
from loopscope_collector.ingest.seen import SeenCache
from loopscope_collector.ingest.tables import BLOBS, EVENTS, MESSAGES, PROMPTS, SPANS, TableRules
from loopscope_collector.metrics import Metrics
from loopscope_collector.normalise import Batch, Context, NotTelemetryError, normalise, single_spans
from loopscope_collector.queue import Record, Segment
from loopscope_collector.store import Store, StoreRefused
from loopscope_schemas.rows import RunStateRow

TRACES_AT_ONCE: Final = 2_000
MAX_REFUSED_IN_A_ROW: Final = 32
"""So many rows refused and none accepted: it is not the rows."""

TraceDay = tuple[str, int]


@dataclass(slots=True)
class WriteResult:
    """What became of a segment."""

    spans: int = 0
    messages: int = 0
    runs: list[RunStateRow] = field(default_factory=list[RunStateRow])
    set_aside: int = 0


@dataclass(slots=True)
class _Pending:
    """A segment, normalised: kept while the store is away, so that trying again costs nothing."""

    segment_id: str
    batch: Batch
    aside: list[tuple[Record, str]]


class Writer:
    """Writes segments, one at a time."""

    def __init__(self, store: Store, context: Context, metrics: Metrics) -> None:
        self._store = store
        self._context = context
        self._metrics = metrics
        self._states = RunStates(store)
        self._duplicates = Duplicates(store)
        self._pending: _Pending | None = None
        self._blocks: SeenCache[TraceDay] = SeenCache(lambda groups: self._stored(MESSAGES, groups))
        self._blobs: SeenCache[TraceDay] = SeenCache(lambda groups: self._stored(BLOBS, groups))
        self._prompts: SeenCache[TraceDay] = SeenCache(self._stored_prompts)

    def write(self, segment: Segment, set_aside: Callable[[Record, str], None]) -> WriteResult:
        """Write a segment. Raises StoreUnavailable: try again with the same segment; StoreRefused: see the message."""
        pending = self._pending
        if pending is None or pending.segment_id != segment.id:
            pending = self._pending = self._normalise(segment)
        batch = pending.batch
        blobs = _new(batch.blobs, self._blobs, lambda row: (row.trace_id, row.day), lambda row: row.hash)
        prompts = _new(batch.prompts, self._prompts, lambda row: (row.agent, row.day), lambda row: row.hash)
        blocks = _new(batch.messages, self._blocks, lambda row: (row.trace_id, row.day), lambda row: row.hash)
        refused: list[tuple[TableRules, Any, str]] = []
        for rules, rows in (
            (BLOBS, blobs),
            (PROMPTS, prompts),
            (MESSAGES, blocks),
            (EVENTS, batch.events),
            (SPANS, batch.spans),
        ):
            refused.extend(self._insert(segment.id, rules, rows))
        runs = self._recompute(batch)
        self._mark(blobs, prompts, blocks, {id(row) for _, row, _ in refused})
        aside = [*pending.aside, *self._refused_records(segment, batch, refused)]
        for record, reason in aside:
            set_aside(record, reason)
        self._pending = None
        self._count(batch, len(blocks), len(aside))
        return WriteResult(len(batch.spans), len(blocks), runs, len(aside))

    def forget_content(self) -> None:
        """Ask the store again what it holds. To be called when content was deleted from it."""
        for cache in (self._blocks, self._blobs, self._prompts):
            cache.forget_all()

    def _normalise(self, segment: Segment) -> _Pending:
        started = time.perf_counter()
        # Hundreds of thousands of rows and blocks come into being, none of them in a cycle: looking for cycles among
        # them again and again takes a tenth to a fifth of the time.
        collects = gc.isenabled()
        gc.disable()
        try:
            return self._normalised(segment)
        finally:
            if collects:
                gc.enable()
            self._metrics.observe("normalise_seconds", time.perf_counter() - started)

    def _normalised(self, segment: Segment) -> _Pending:
        batch = Batch()
        aside: list[tuple[Record, str]] = []
        for record in segment.records():
            before = len(batch.refused)
            try:
                normalise(record, context=self._context, into=batch)
            except NotTelemetryError as error:
                aside.append((record, str(error)))
            aside.extend(
                (Record(record.kind, "protobuf", record.received_at, item.body), item.reason)
                for item in batch.refused[before:]
            )
        return _Pending(segment.id, batch, aside)

    def _insert(self, segment_id: str, rules: TableRules, rows: Sequence[Any]) -> list[tuple[TableRules, Any, str]]:
        """Insert rows; answers those that the store refuses, with its reason."""
        refused: list[tuple[TableRules, Any, str]] = []
        accepted = 0
        parts = list(cut(rows, segment_id=segment_id, table=rules.name, key=rules.key, size=rules.size))
        parts.reverse()
        while parts:
            part = parts.pop()
            try:
                self._insert_part(rules, part)
                accepted += 1
            except (StoreRefused, ValueError) as error:
                if len(part.rows) > 1:
                    parts.extend(reversed(halves(part, rules.key)))
                    continue
                refused.append((rules, part.rows[0], f"{rules.name} refuses a row of this span: {error}"))
                if not accepted and len(refused) >= MAX_REFUSED_IN_A_ROW:
                    raise StoreRefused(
                        f"the store refused {len(refused)} rows of {rules.name} and accepted none: the schema of the "
                        f"database and this version of Loopscope do not agree. Last reason: {error}"
                    ) from error
        return refused

    def _insert_part(self, rules: TableRules, part: Part) -> None:
        started = time.perf_counter()
        table = to_table(rules.row_type, part.rows)
        self._store.insert(rules.name, table, part.token)
        self._metrics.observe("insert_seconds", time.perf_counter() - started, table=rules.name)

    def _recompute(self, batch: Batch) -> list[RunStateRow]:
        starts: dict[str, int] = {}
        for row in batch.spans:
            known = starts.get(row.run_id)
            if known is None or row.start_time < known:
                starts[row.run_id] = row.start_time
        started = time.perf_counter()
        for run_id, start in self._duplicates.recompute(batch.spans).items():
            starts[run_id] = min(start, starts.get(run_id, start))
        self._metrics.observe("duplicates_seconds", time.perf_counter() - started)
        started = time.perf_counter()
        runs = self._states.recompute(starts)
        self._metrics.observe("run_state_seconds", time.perf_counter() - started)
        return runs

    def _mark(self, blobs: Sequence[Any], prompts: Sequence[Any], blocks: Sequence[Any], refused: set[int]) -> None:
        self._blobs.mark(((row.trace_id, row.day), row.hash) for row in blobs if id(row) not in refused)
        self._prompts.mark(((row.agent, row.day), row.hash) for row in prompts if id(row) not in refused)
        self._blocks.mark(((row.trace_id, row.day), row.hash) for row in blocks if id(row) not in refused)

    def _refused_records(
        self, segment: Segment, batch: Batch, refused: Sequence[tuple[TableRules, Any, str]]
    ) -> Iterable[tuple[Record, str]]:
        """The spans that refused rows were made of, each as a record of its own."""
        if not refused:
            return
        wanted: dict[tuple[str, str], str] = {}
        for rules, row, reason in refused:
            for owner in rules.owners(row, batch):
                wanted.setdefault(owner, reason)
        for record in segment.records():
            for trace_id, span_id, body in single_spans(record):
                reason = wanted.get((trace_id, span_id))
                if reason is not None:
                    yield Record(record.kind, "protobuf", record.received_at, body), reason

    def _stored(self, rules: TableRules, groups: Sequence[TraceDay]) -> Iterable[tuple[TraceDay, bytes]]:
        for begin in range(0, len(groups), TRACES_AT_ONCE):
            some = groups[begin : begin + TRACES_AT_ONCE]
            sql = run_queries.stored_hashes(
                self._store.database, rules.name, {trace for trace, _ in some}, {day for _, day in some}
            )
            found = self._store.query_arrow(sql).to_pydict()
            trace_ids, days, hashes = found.values()
            yield from zip(zip(trace_ids, days, strict=True), hashes, strict=True)

    def _stored_prompts(self, groups: Sequence[TraceDay]) -> Iterable[tuple[TraceDay, bytes]]:
        days = sorted({day for _, day in groups})
        found = self._store.query_arrow(run_queries.stored_prompts(self._store.database, days)).to_pydict()
        agents, found_days, hashes = found.values()
        yield from zip(zip(agents, found_days, strict=True), hashes, strict=True)

    def _count(self, batch: Batch, blocks: int, aside: int) -> None:
        metrics = self._metrics
        metrics.count("spans_written", len(batch.spans))
        metrics.count("messages_written", blocks)
        metrics.count("spans_set_aside", aside)
        for name, number in batch.counts.items():
            metrics.count(name, number)


def _new(
    rows: Sequence[Any],
    cache: SeenCache[TraceDay],
    group: Callable[[Any], TraceDay],
    hash_: Callable[[Any], bytes],
) -> list[Any]:
    """Rows that the store does not hold, as far as is known."""
    known = cache.known({group(row) for row in rows})
    return [row for row in rows if hash_(row) not in known[group(row)]]

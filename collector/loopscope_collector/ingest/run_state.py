"""Run states: one row a run, recomputed from its spans, never incremented. Called by `Ingest` after spans are inserted.

A run's totals are those of its own spans: a sub-agent is a run of its own. A run has ended when its `invoke_agent` span
has; where no instrumentation sends one, when none of its spans is open. Versions come from the clock of the store, so
that of two collectors the one that looked last wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from loopscope_collector.arrow import to_table
from loopscope_collector.ingest import run_queries
from loopscope_collector.normalise.batch import storable
from loopscope_collector.store import Store
from loopscope_schemas.content import InexactJsonError, parse
from loopscope_schemas.rows import Day, Nanoseconds, RunStateRow

RUNS_AT_ONCE: Final = 2_000
"""Runs in one query: their ids stay far below the longest statement that a server reads (256 KiB)."""
SLACK_NS: Final = 3_600 * 1_000_000_000
"""Spans this much older than a run's known start are looked for as well: another collector may hold an earlier one."""
FAR_NS: Final = 6 * SLACK_NS
"""Runs whose starts lie further apart than this are asked for apart, so that an old run does not widen all scans."""
HASHES_AT_ONCE: Final = 2_000
LONGEST_TEXT: Final = 65_536
"""Characters of an input or answer that was found in messages; one that the run itself stated is kept in full."""
OUTCOMES: Final = frozenset({"completed", "partial", "limit", "failed", "escalated"})
Texts: TypeAlias = "dict[tuple[str, int, str], tuple[str, str]]"
"""By trace, day and hash in hex: source and text."""


@dataclass(frozen=True, slots=True)
class Known:
    """The row that a run has now."""

    day: int
    started_ns: int
    version: int


class RunStates:
    """Recomputes run states."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recompute(self, starts: Mapping[str, int]) -> list[RunStateRow]:
        """Recompute the runs; `starts` gives the earliest start of each that the caller knows, in Unix ns.

        Raises StoreUnavailable, StoreRefused. Answers the rows written, without those that only mark a deletion.
        """
        written: list[RunStateRow] = []
        ids = sorted(starts, key=starts.__getitem__)
        for begin in range(0, len(ids), RUNS_AT_ONCE):
            chunk = ids[begin : begin + RUNS_AT_ONCE]
            known = self._known(chunk)
            since = {
                run_id: min(starts[run_id], known[run_id].started_ns if run_id in known else starts[run_id])
                for run_id in chunk
            }
            rows: list[RunStateRow] = []
            for group in _near(since):
                rows.extend(self._rows(group, since[group[0]], known))
            moved = [row for row in map(_tombstone, rows, (known.get(row.run_id) for row in rows)) if row is not None]
            if rows:
                newest = max(row.version for row in rows)
                token = f"run_state/{rows[0].run_id}/{len(rows)}/{newest}"
                self._store.insert(RunStateRow.TABLE, to_table(RunStateRow, rows + moved), token)
            written.extend(rows)
        return written

    def delete(self, run_ids: Sequence[str]) -> None:
        """Delete the states of runs that have no spans any more."""
        for begin in range(0, len(run_ids), RUNS_AT_ONCE):
            chunk = run_ids[begin : begin + RUNS_AT_ONCE]
            self._store.command(run_queries.delete(self._store.database, chunk))

    def _known(self, run_ids: Sequence[str]) -> dict[str, Known]:
        found = self._store.query(run_queries.states(self._store.database, run_ids))
        return {row[0]: Known(int(row[2]), int(row[3]), int(row[4])) for row in found}

    def _rows(self, run_ids: Sequence[str], since_ns: int, known: Mapping[str, Known]) -> list[RunStateRow]:
        hour = SLACK_NS
        since = max(0, since_ns // hour * hour - SLACK_NS)
        names = run_queries.TOTALS.keys()
        found = [
            Totals(dict(zip(names, row, strict=True)))
            for row in self._store.query(run_queries.totals(self._store.database, run_ids, since))
        ]
        # A count of tokens, or a batch handed in, outside of any run is nobody's run.
        found = [item for item in found if item.row["beside"] < item.row["spans"]]
        places = self._places([item.run_id for item in found if item.needs_text], since)
        texts = self._texts(places.values())
        return [state_of(item, places.get(item.run_id), texts, known.get(item.run_id)) for item in found]

    def _places(self, run_ids: Sequence[str], since_ns: int) -> dict[str, "Places"]:
        if not run_ids:
            return {}
        rows = self._store.query(run_queries.places(self._store.database, run_ids, since_ns))
        return {
            row[0]: Places(Place(row[1], int(row[2]), tuple(row[3])), Place(row[4], int(row[5]), tuple(row[6])))
            for row in rows
        }

    def _texts(self, places: Iterable["Places"]) -> Texts:
        """Source and text of the blocks that stand for a missing input or final answer."""
        wanted = [place for pair in places for place in (pair.question, pair.answer) if place.hashes]
        hashes = sorted({hash_ for place in wanted for hash_ in place.hashes})
        traces, days = {place.trace_id for place in wanted}, {place.day for place in wanted}
        texts: Texts = {}
        for begin in range(0, len(hashes), HASHES_AT_ONCE):
            some = hashes[begin : begin + HASHES_AT_ONCE]
            sql = run_queries.texts(self._store.database, sorted(traces), sorted(days), some, LONGEST_TEXT)
            for trace_id, day, hash_, source, text, length in self._store.query(sql):
                shown = text if length <= LONGEST_TEXT else f"{text}... [{length} characters]"
                texts[trace_id, int(day), hash_] = (source, shown)
        return texts


@dataclass(frozen=True, slots=True)
class Place:
    """Where the text of some content blocks is."""

    trace_id: str
    day: int
    hashes: tuple[str, ...]
    """In hex."""


@dataclass(frozen=True, slots=True)
class Places:
    """The blocks that say what a run was asked and what it answered."""

    question: Place
    answer: Place


class Totals:
    """One row of `run_queries.totals`."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.run_id: str = row["run_id"]
        self.has_root: bool = row["roots"] > 0

    @property
    def ended_ns(self) -> int | None:
        """When the run ended; None while it is open."""
        row = self.row
        if self.has_root:
            ended = row["root_end"] or None
            # Nobody declared where an inferred run ends: whatever came after the end last stated says that it went on.
            return None if ended and row["root_inferred"] and ended < row["last_other_event"] else ended
        return None if row["open_spans"] else row["last_event"]

    @property
    def outcome(self) -> str:
        """How it ended, `running` while it is open."""
        row = self.row
        if self.ended_ns is None:
            return "running"
        if self.has_root:
            if row["root_outcome"] in OUTCOMES:
                return row["root_outcome"]
            if row["root_limit_hit"] or row["limit_hit"]:
                return "limit"
            return "failed" if row["root_status"] == "error" else "completed"
        if row["limit_hit"]:
            return "limit"
        if row["last_status"] == "error":
            return "failed"
        return "partial" if row["last_partial"] else "completed"

    @property
    def error(self) -> tuple[str, str]:
        """Class and type of the error that the run ended with."""
        row = self.row
        if self.has_root and (row["root_error_type"] or row["root_status"] != "error"):
            return row["root_error_class"], row["root_error_type"]
        is_failed = row["last_status"] == "error" and self.ended_ns is not None
        return (row["last_error_class"], row["last_error_type"]) if is_failed else ("", "")

    @property
    def needs_text(self) -> bool:
        """Whether nobody stated the input, or the answer of a run that ended, and its calls may tell."""
        row = self.row
        asks = not row["root_input_text"] or (not row["root_output_text"] and self.ended_ns is not None)
        return asks and row["done_calls"] > 0


def state_of(item: Totals, places: Places | None, texts: Texts, known: Known | None) -> RunStateRow:
    """The run's row, as its spans tell it now."""
    row = item.row
    error_class, error_type = item.error
    ended = item.ended_ns
    question, answer = _plain(row["root_input_text"]), _plain(row["root_output_text"])
    if places is not None:
        question = question or _text(texts, places.question, "user", last=True)
        if ended is not None:
            answer = answer or _text(texts, places.answer, "assistant")
    hash_ = row["system_hash"]
    return RunStateRow(
        day=Day(row["day"]),
        run_id=item.run_id,
        version=max(row["now"], known.version + 1 if known else 0),
        trace_id=row["root_trace_id"] or row["first_trace"],
        parent_run_id=row["parent_run"],
        agent=row["root_agent"] or row["agent"],
        agent_version=row["root_agent_version"] or row["agent_version"],
        prompt_version=row["root_prompt_version"] or row["prompt_version"] or (hash_.strip("0") and hash_[:12]),
        environment=row["environment"],
        user_id=row["user_id"],
        conversation_id=row["conversation_id"],
        task_id=row["task_id"],
        process_id=row["root_process_id"] or row["process_id"],
        started_at=Nanoseconds(row["started"]),
        ended_at=None if ended is None else Nanoseconds(ended),
        last_event_at=Nanoseconds(row["last_event"]),
        last_seen_at=Nanoseconds(row["last_seen"]),
        outcome=item.outcome,
        error_class=error_class,
        error_type=error_type,
        input=question,
        final_answer=answer,
        turns=max(row["last_turn"], row["llm_calls"]),
        llm_calls=row["llm_calls"],
        tool_calls=row["tool_calls"],
        errors=row["errors"],
        spans=row["spans"],
        input_tokens=row["input_tokens"],
        cache_read_tokens=row["cache_read_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        output_tokens=row["output_tokens"],
        thinking_tokens=row["thinking_tokens"],
        cost_usd=row["cost"],
        cost_unknown_calls=row["unknown_costs"],
        models=list(row["models"]),
        max_context_tokens=row["max_context"],
        context_window=row["window"],
        limits=row["root_limits"],
        limit_hit=row["root_limit_hit"] or row["limit_hit"],
        config=row["root_config"],
        inferred=bool(row["inferred"]),
        duplicate_of="" if row["counted"] else row["duplicate_of"],
    )


def _plain(text: str) -> str:
    """A JSON string as the text it says; any other JSON as it is."""
    if not text.startswith('"'):
        return text
    try:
        value = parse(text)
    except InexactJsonError:
        return text
    return storable(value) if isinstance(value, str) else text


def _text(texts: Texts, place: Place, source: str, *, last: bool = False) -> str:
    """The text of a source among the blocks of a call: all of it, or its last block."""
    found = [texts.get((place.trace_id, place.day, hash_), ("", "")) for hash_ in place.hashes]
    said = [text for found_source, text in found if found_source == source and text]
    return (said[-1] if last else "\n".join(said)) if said else ""


def _near(since: Mapping[str, int]) -> Iterable[list[str]]:
    """Runs in groups of about the same start, oldest first."""
    group: list[str] = []
    for run_id in sorted(since, key=since.__getitem__):
        if group and since[run_id] - since[group[0]] > FAR_NS:
            yield group
            group = []
        group.append(run_id)
    if group:
        yield group


def _tombstone(row: RunStateRow, known: Known | None) -> RunStateRow | None:
    """The deletion of the row under the start that the run was thought to have, where that is another key now."""
    hour = SLACK_NS
    if known is None or (known.day, known.started_ns // hour) == (row.day, row.started_at // hour):
        return None
    return RunStateRow(
        day=Day(known.day),
        run_id=row.run_id,
        version=row.version,
        started_at=Nanoseconds(known.started_ns),
        last_event_at=row.last_event_at,
        last_seen_at=row.last_seen_at,
        is_deleted=True,
    )

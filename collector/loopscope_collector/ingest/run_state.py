"""Run states: one row a run, recomputed from its spans, never incremented. Called by `Ingest` after spans are inserted.

A run's totals are those of its own spans: a sub-agent is a run of its own. A run has ended when its `invoke_agent` span
has; where no instrumentation sends one, when none of its spans is open. Versions come from the clock of the store, so
that of two collectors the one that looked last wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from loopscope_collector.arrow import to_table
from loopscope_collector.ingest import run_queries
from loopscope_collector.normalise.batch import storable
from loopscope_collector.store import Store
from loopscope_schemas.content import InexactJsonError, parse
from loopscope_schemas.rows import NO_HASH, Day, Nanoseconds, RunStateRow

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
_ROOT_NAMES: Final = (
    "end",
    "status",
    "outcome",
    "input",
    "answer",
    "config",
    "limits",
    "limit_hit",
    "error_class",
    "error_type",
    "agent",
    "agent_version",
    "prompt_version",
    "trace_id",
    "process_id",
)
"""Names here of `run_queries.ROOT`."""
Texts: TypeAlias = "dict[tuple[str, int, bytes], tuple[str, str]]"
"""By trace, day and hash: source and text."""


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
        table = self._store.query_arrow(run_queries.totals(self._store.database, run_ids, since))
        found = [Totals(row) for row in table.to_pylist()]
        texts = self._texts(found)
        return [state_of(item, texts, known.get(item.run_id)) for item in found]

    def _texts(self, found: Iterable["Totals"]) -> Texts:
        """Source and text of the blocks that stand for a missing input or final answer."""
        traces: set[str] = set()
        days: set[int] = set()
        hashes: set[bytes] = set()
        for item in found:
            for place, wanted in ((item.input_place, item.needs_input), (item.answer_place, item.needs_answer)):
                if wanted and place.hashes:
                    traces.add(place.trace_id)
                    days.add(place.day)
                    hashes.update(place.hashes)
        texts: Texts = {}
        wanted_hashes = sorted(hashes)
        for begin in range(0, len(wanted_hashes), HASHES_AT_ONCE):
            some = wanted_hashes[begin : begin + HASHES_AT_ONCE]
            sql = run_queries.texts(self._store.database, sorted(traces), sorted(days), some, LONGEST_TEXT)
            for row in self._store.query_arrow(sql).to_pylist():
                trace_id, day, hash_, source, text, length = row.values()
                shown = text if length <= LONGEST_TEXT else f"{text}... [{length} characters]"
                texts[trace_id, int(day), bytes(hash_)] = (source, shown)
        return texts


@dataclass(frozen=True, slots=True)
class Place:
    """Where the text of some content blocks is."""

    trace_id: str
    day: int
    hashes: tuple[bytes, ...]


class Totals:
    """One row of `run_queries.totals`."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.run_id: str = row["run_id"]
        self.has_root: bool = row["roots"] > 0
        self.root = dict(zip(_ROOT_NAMES, row["root"].values(), strict=True))
        first = tuple(row["first_call"].values())
        last = tuple(row["last_call"].values())
        self.input_place = Place(first[0], first[1], tuple(first[3]))
        self.answer_place = Place(last[0], last[1], tuple(last[2]))
        self.system_hash: bytes = first[2]
        self.prompt_version: str = self.root["prompt_version"] or first[4]
        self.last_status, self.last_is_partial, self.last_error_class, self.last_error_type = last[3:7]

    @property
    def ended_ns(self) -> int | None:
        """When the run ended; None while it is open."""
        if self.has_root:
            return self.root["end"]
        return None if self.row["open_spans"] else self.row["last_event_ns"]

    @property
    def outcome(self) -> str:
        """How it ended, `running` while it is open."""
        if self.ended_ns is None:
            return "running"
        if self.has_root:
            stated = self.root["outcome"]
            return stated if stated in OUTCOMES else "failed" if self.root["status"] == "error" else "completed"
        if self.last_status == "error":
            return "failed"
        return "partial" if self.last_is_partial else "completed"

    @property
    def error(self) -> tuple[str, str]:
        """Class and type of the error that the run ended with."""
        if self.has_root and (self.root["error_type"] or self.root["status"] != "error"):
            return self.root["error_class"], self.root["error_type"]
        is_failed = self.last_status == "error" and self.ended_ns is not None
        return (self.last_error_class, self.last_error_type) if is_failed else ("", "")

    @property
    def needs_input(self) -> bool:
        """Whether nobody stated the run's input."""
        return not self.root["input"]

    @property
    def needs_answer(self) -> bool:
        """Whether the run ended and nobody stated its answer."""
        return not self.root["answer"] and self.ended_ns is not None


def state_of(item: Totals, texts: Texts, known: Known | None) -> RunStateRow:
    """The run's row, as its spans tell it now."""
    row, root = item.row, item.root
    cost = row["sum_cost"]
    error_class, error_type = item.error
    has_prompt = item.system_hash != NO_HASH
    return RunStateRow(
        day=Day(row["first_day"]),
        run_id=item.run_id,
        version=max(row["now_ns"], known.version + 1 if known else 0),
        trace_id=root["trace_id"] or row["first_trace"],
        parent_run_id=row["parent_run"],
        agent=root["agent"] or row["any_agent"],
        agent_version=root["agent_version"] or row["any_agent_version"],
        prompt_version=item.prompt_version or (item.system_hash.hex()[:12] if has_prompt else ""),
        environment=row["any_environment"],
        user_id=row["any_user"],
        conversation_id=row["any_conversation"],
        task_id=row["any_task"],
        process_id=root["process_id"] or row["any_process"],
        started_at=Nanoseconds(row["started_ns"]),
        ended_at=None if item.ended_ns is None else Nanoseconds(item.ended_ns),
        last_event_at=Nanoseconds(row["last_event_ns"]),
        last_seen_at=Nanoseconds(row["last_seen_ns"]),
        outcome=item.outcome,
        error_class=error_class,
        error_type=error_type,
        input=_plain(root["input"]) or _text(texts, item.input_place, "user", last=True),
        final_answer=_plain(root["answer"])
        or (_text(texts, item.answer_place, "assistant") if item.needs_answer else ""),
        turns=max(row["last_turn"], row["llm_calls"]),
        llm_calls=row["llm_calls"],
        tool_calls=row["tool_calls"],
        errors=row["errors"],
        spans=row["spans"],
        input_tokens=row["sum_input"],
        cache_read_tokens=row["sum_cache_read"],
        cache_write_tokens=row["sum_cache_write"],
        output_tokens=row["sum_output"],
        thinking_tokens=row["sum_thinking"],
        cost_usd=None if cost is None else Decimal(cost),
        cost_unknown_calls=row["unknown_costs"],
        models=row["all_models"],
        max_context_tokens=row["max_context"],
        context_window=row["window"],
        limits=root["limits"],
        limit_hit=root["limit_hit"],
        config=root["config"],
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

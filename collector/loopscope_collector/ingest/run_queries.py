"""The SQL of run states: what the spans of some runs add up to. Statements only; used by `run_state`.

Run ids are hex digits (normalising sees to it) and are checked again here before they become part of a statement: lists
of a thousand do not fit into an address.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_HEX: Final = re.compile(r"[0-9a-f]{1,64}")


_COUNTS: Final = "duplicate_of = ''"
"""A span that is not another recording of a call that counts already."""
_IS_CALL: Final = f"kind = 'llm' AND {_COUNTS}"
_HAS_USAGE: Final = f"kind IN ('llm', 'usage') AND {_COUNTS}"
"""Calls, and what an agent's framework reports beyond the calls that it tells of."""
_IS_DONE_CALL: Final = f"{_IS_CALL} AND end_time IS NOT NULL"
_LAST_MOMENT: Final = "greatest(start_time, ifNull(end_time, start_time), ifNull(heartbeat_at, start_time))"
# Every argMin has a plain number as its key and a plain column as its value: tuples are ten times as slow.
TOTALS: Final[Mapping[str, str]] = {
    "run_id": "run_id",
    "now": "toUnixTimestamp64Nano(now64(9))",
    "day": "argMin(toUInt16(day), start_time)",
    "started": "toUnixTimestamp64Nano(min(start_time))",
    "last_event": f"toUnixTimestamp64Nano(max({_LAST_MOMENT}))",
    "last_other_event": f"toUnixTimestamp64Nano(maxIf({_LAST_MOMENT}, kind != 'run' AND dialect = 'loopscope'))",
    "last_seen": "toUnixTimestamp64Nano(max(received_at))",
    "roots": "countIf(kind = 'run')",
    **{
        f"root_{name}": f"argMinIf({name}, start_time, kind = 'run')"
        for name in (
            "status",
            "outcome",
            "input_text",
            "output_text",
            "config",
            "limits",
            "limit_hit",
            "inferred",
            "error_class",
            "error_type",
            "agent",
            "agent_version",
            "prompt_version",
            "trace_id",
            "process_id",
        )
    },
    "root_end": "argMinIf(ifNull(toUnixTimestamp64Nano(end_time), 0), start_time, kind = 'run')",
    "system_hash": f"argMinIf(lower(hex(system_hash)), start_time, {_IS_CALL} AND notEmpty(input_shape))",
    "prompt_version": "max(prompt_version)",
    "last_status": f"argMaxIf(status, start_time, {_IS_DONE_CALL})",
    "last_partial": f"argMaxIf(partial, start_time, {_IS_DONE_CALL})",
    "last_error_class": f"argMaxIf(error_class, start_time, {_IS_DONE_CALL})",
    "last_error_type": f"argMaxIf(error_type, start_time, {_IS_DONE_CALL})",
    "done_calls": f"countIf({_IS_DONE_CALL})",
    "first_trace": "argMin(trace_id, start_time)",
    "parent_run": "max(parent_run_id)",
    **{
        name: f"max({name})"
        for name in ("agent", "agent_version", "environment", "user_id", "conversation_id", "task_id", "process_id")
    },
    "last_turn": "ifNull(maxIf(turn, kind IN ('llm', 'tool')), 0)",
    "llm_calls": f"countIf({_IS_CALL})",
    "tool_calls": f"countIf(kind = 'tool' AND {_COUNTS})",
    "errors": f"countIf(status = 'error' AND kind IN ('llm', 'tool') AND {_COUNTS})",
    "inferred": "max(inferred AND kind IN ('llm', 'run'))",
    "limit_hit": "argMaxIf(limit_hit, start_time, kind = 'limit')",
    "counted": f"countIf({_COUNTS} AND (kind IN ('llm', 'tool') OR dialect = 'loopscope'))",
    "duplicate_of": "argMinIf(duplicate_of_run, start_time, duplicate_of_run NOT IN ('', run_id))",
    "beside": "countIf(kind IN ('count', 'batch'))",
    "open_spans": "countIf(end_time IS NULL)",
    "spans": "count()",
    **{
        name: f"sumIf({name}, {_HAS_USAGE})"
        for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "thinking_tokens")
    },
    "cost": f"sumIf(cost_usd, {_HAS_USAGE})",
    "unknown_costs": f"countIf({_IS_DONE_CALL} AND cost_usd IS NULL AND cost_source != 'summary' AND NOT "
    "(status = 'error' AND input_tokens IS NULL AND output_tokens IS NULL AND NOT partial))"
    # Calls whose cost is told by a summary: unknown until that has come, as long as the run is open or when it broke.
    f" + if(countIf(kind = 'usage') = 0, countIf({_IS_DONE_CALL} AND cost_source = 'summary'), 0)",
    "models": f"arraySort(groupUniqArrayIf(if(model = '', request_model, model), {_IS_CALL} "
    "AND (model != '' OR request_model != '')))",
    "max_context": f"maxIf(input_tokens, {_IS_CALL})",
    "window": f"argMaxIf(context_window, start_time, {_IS_CALL})",
}
"""What the spans of a run are asked for: name -> expression."""


def literals(ids: Iterable[str]) -> str:
    """Hex ids as a list of SQL strings. Raises ValueError for anything else."""
    checked: list[str] = []
    for item in ids:
        if not _HEX.fullmatch(item):
            raise ValueError(f"{item[:80]!r} is no id of hex digits")
        checked.append(f"'{item}'")
    return ",".join(checked)


def states(database: str, run_ids: Sequence[str]) -> str:
    """The rows that some runs have now: run id, day, start, last event, version."""
    return f"""
SELECT
    run_id,
    argMax(tuple(toUInt16(day), toUnixTimestamp64Nano(started_at), version), version) AS row,
    row.1, row.2, row.3
FROM {database}.run_state_data
WHERE run_id IN ({literals(run_ids)}) AND is_deleted = 0
GROUP BY run_id"""  # noqa: S608  (checked ids and a checked database name)


def totals(database: str, run_ids: Sequence[str], since_ns: int) -> str:
    """One row a run: what its spans that start at `since_ns` or later add up to. Columns are those of TOTALS.

    All versions of a span have the same run id, so it can be looked at before FINAL picks the newest, and before the
    texts of all the other spans are read.
    """
    columns = ", ".join(f"{expression} AS r_{name}" for name, expression in TOTALS.items())
    return f"SELECT {columns} {_spans_of(database, run_ids, since_ns)} GROUP BY run_id"


def places(database: str, run_ids: Sequence[str], since_ns: int) -> str:
    """Where some runs' texts are: run id; trace, day and blocks of the first request; the same of the last answer."""
    first, last = f"{_IS_CALL} AND notEmpty(input_shape)", _IS_DONE_CALL
    columns = ", ".join(
        [
            "run_id",
            f"argMinIf(trace_id, start_time, {first})",
            f"argMinIf(toUInt16(day), start_time, {first})",
            f"argMinIf(arrayMap(h -> hex(h), input_hashes), start_time, {first})",
            f"argMaxIf(trace_id, start_time, {last})",
            f"argMaxIf(toUInt16(day), start_time, {last})",
            f"argMaxIf(arrayMap(h -> hex(h), output_hashes), start_time, {last})",
        ]
    )
    return f"SELECT {columns} {_spans_of(database, run_ids, since_ns)} GROUP BY run_id"


def _spans_of(database: str, run_ids: Sequence[str], since_ns: int) -> str:
    return (
        f"FROM {database}.spans_data FINAL PREWHERE run_id IN ({literals(run_ids)}) "
        f"WHERE start_time >= fromUnixTimestamp64Nano(toInt64({int(since_ns)}))"
    )


def texts(database: str, trace_ids: Iterable[str], days: Iterable[int], hashes: Iterable[str], chars: int) -> str:
    """Text of some content blocks: trace, day, hash, source, the first characters, the length."""
    hashes_sql = ",".join(f"unhex('{hash_}')" for hash_ in hashes)
    return f"""
SELECT trace_id, toUInt16(day), hex(hash), any(source), substringUTF8(any(body), 1, {int(chars)}), lengthUTF8(any(body))
FROM {database}.messages_data
WHERE trace_id IN ({literals(trace_ids)}) AND day IN ({_days(days)}) AND hash IN ({hashes_sql})
GROUP BY trace_id, day, messages_data.hash"""  # noqa: S608  (checked ids, numbers and our own hex)


def crash(database: str, run_ids: Sequence[str], silent_since_ns: int) -> str:
    """Mark those of the runs as crashed that still run and were silent since then.

    The condition stands in a query of its own: beside the replaced `outcome` it would compare that one.
    """
    return f"""
INSERT INTO {database}.run_state_data
SELECT * REPLACE ('crashed' AS outcome, greatest(version + 1, toUInt64(toUnixTimestamp64Nano(now64(9)))) AS version)
FROM (SELECT * {_silent(database, run_ids, silent_since_ns)})"""  # noqa: S608  (checked ids and a checked name)


def silent(database: str, run_ids: Sequence[str], silent_since_ns: int) -> str:
    """How many of the runs still run and were silent since then."""
    return f"SELECT count() {_silent(database, run_ids, silent_since_ns)}"


def _silent(database: str, run_ids: Sequence[str], silent_since_ns: int) -> str:
    # The table's name before the columns: what the statement puts in their place has the same names.
    return f"""FROM {database}.run_state_data AS s FINAL
WHERE s.run_id IN ({literals(run_ids)}) AND s.outcome = 'running'
    AND s.last_seen_at < fromUnixTimestamp64Nano(toInt64({int(silent_since_ns)}))"""


def stored_hashes(database: str, table: str, trace_ids: Iterable[str], days: Iterable[int]) -> str:
    """What a table of content holds of some traces: trace, day, hash."""
    return f"""
SELECT trace_id, toUInt16(day), hash FROM {database}.{table}
WHERE trace_id IN ({_trace_literals(trace_ids)}) AND day IN ({_days(days)})"""  # noqa: S608


def stored_prompts(database: str, days: Iterable[int]) -> str:
    """The prompts of some days: agent, day, hash."""
    return f"SELECT agent, toUInt16(day), hash FROM {database}.prompts_data WHERE day IN ({_days(days)})"  # noqa: S608


def _days(days: Iterable[int]) -> str:
    return ",".join(f"toDate({int(day)})" for day in days)


def _trace_literals(trace_ids: Iterable[str]) -> str:
    ids = set(trace_ids)
    # Binaries of prompts belong to no trace.
    shared = "''" if "" in ids else ""
    return ",".join(item for item in (shared, literals(ids - {""})) if item)


def running(database: str) -> str:
    """Runs that have no end: run id, last seen."""
    return (
        f"SELECT run_id, toUnixTimestamp64Nano(last_seen_at) FROM {database}.run_state_data FINAL "  # noqa: S608
        "WHERE outcome = 'running'"
    )


def bounds(database: str) -> str:
    """Every run that has spans, with its first start."""
    return (
        f"SELECT run_id, toUnixTimestamp64Nano(min(start_time)) AS started FROM {database}.spans_data "  # noqa: S608
        "WHERE run_id != '' GROUP BY run_id ORDER BY started, run_id"
    )


def orphans(database: str) -> str:
    """Runs that have a state but no spans."""
    return (
        f"SELECT run_id FROM {database}.run_state_data FINAL "  # noqa: S608
        f"WHERE run_id NOT IN (SELECT run_id FROM {database}.spans_data)"
    )


def delete(database: str, run_ids: Sequence[str]) -> str:
    """Mark the rows of some runs as deleted."""
    return f"""
INSERT INTO {database}.run_state_data
SELECT * REPLACE (1 AS is_deleted, greatest(version + 1, toUInt64(toUnixTimestamp64Nano(now64(9)))) AS version)
FROM {database}.run_state_data FINAL WHERE run_id IN ({literals(run_ids)})"""  # noqa: S608

"""The SQL of run states: what the spans of some runs add up to. Statements only; used by `run_state`.

Run ids are hex digits (normalising sees to it) and are checked again here before they become part of a statement: lists
of a thousand do not fit into an address.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_HEX: Final = re.compile(r"[0-9a-f]{1,64}")
_KEY: Final = "(start_time, span_id)"


ROOT: Final = (
    "toUnixTimestamp64Nano(end_time)",
    "status",
    "outcome",
    "input_text",
    "output_text",
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
"""What is asked of a run's first `invoke_agent` span."""
FIRST_CALL: Final = ("trace_id", "toUInt16(day)", "system_hash", "input_hashes", "prompt_version")
"""What is asked of a run's first LLM call that has a request."""
LAST_CALL: Final = (
    "trace_id",
    "toUInt16(day)",
    "output_hashes",
    "status",
    "partial",
    "error_class",
    "error_type",
)
"""What is asked of a run's last LLM call that ended."""


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
    """One row a run: what its spans that start at `since_ns` or later add up to. Columns as `run_state` reads them.

    All versions of a span have the same run id, so it can be looked at before FINAL picks the newest, and before the
    texts of all the other spans are read.
    """
    root, first, last = (f"tuple({', '.join(columns)})" for columns in (ROOT, FIRST_CALL, LAST_CALL))
    is_done_call = "kind = 'llm' AND end_time IS NOT NULL"
    return f"""
SELECT
    run_id,
    toUnixTimestamp64Nano(now64(9)) AS now_ns,
    argMin(toUInt16(day), {_KEY}) AS first_day,
    toUnixTimestamp64Nano(min(start_time)) AS started_ns,
    toUnixTimestamp64Nano(max(greatest(start_time, ifNull(end_time, start_time), ifNull(heartbeat_at, start_time)))) AS last_event_ns,
    toUnixTimestamp64Nano(max(received_at)) AS last_seen_ns,
    countIf(kind = 'run') AS roots,
    argMinIf({root}, {_KEY}, kind = 'run') AS root,
    countIf({is_done_call}) AS done_calls,
    argMinIf({first}, {_KEY}, kind = 'llm' AND notEmpty(input_shape)) AS first_call,
    argMaxIf({last}, {_KEY}, {is_done_call}) AS last_call,
    argMinIf(parent_run_id, {_KEY}, parent_run_id != '') AS parent_run,
    argMinIf(trace_id, {_KEY}, true) AS first_trace,
    argMinIf(agent, {_KEY}, agent != '') AS any_agent,
    argMinIf(agent_version, {_KEY}, agent_version != '') AS any_agent_version,
    argMinIf(environment, {_KEY}, environment != '') AS any_environment,
    argMinIf(user_id, {_KEY}, user_id != '') AS any_user,
    argMinIf(conversation_id, {_KEY}, conversation_id != '') AS any_conversation,
    argMinIf(task_id, {_KEY}, task_id != '') AS any_task,
    argMinIf(process_id, {_KEY}, process_id != '') AS any_process,
    ifNull(max(turn), 0) AS last_turn,
    countIf(kind = 'llm') AS llm_calls,
    countIf(kind = 'tool') AS tool_calls,
    countIf(status = 'error' AND kind IN ('llm', 'tool')) AS errors,
    countIf(end_time IS NULL) AS open_spans,
    count() AS spans,
    sumIf(input_tokens, kind = 'llm') AS sum_input,
    sumIf(cache_read_tokens, kind = 'llm') AS sum_cache_read,
    sumIf(cache_write_tokens, kind = 'llm') AS sum_cache_write,
    sumIf(output_tokens, kind = 'llm') AS sum_output,
    sumIf(thinking_tokens, kind = 'llm') AS sum_thinking,
    toString(sumIf(cost_usd, kind = 'llm')) AS sum_cost,
    countIf({is_done_call} AND cost_usd IS NULL
        AND NOT (status = 'error' AND input_tokens IS NULL AND output_tokens IS NULL AND NOT partial)) AS unknown_costs,
    arraySort(groupUniqArrayIf(if(model = '', request_model, model), kind = 'llm' AND (model != '' OR request_model != ''))) AS all_models,
    maxIf(input_tokens, kind = 'llm') AS max_context,
    argMaxIf(context_window, {_KEY}, kind = 'llm' AND context_window IS NOT NULL) AS window
FROM {database}.spans_data FINAL
PREWHERE run_id IN ({literals(run_ids)})
WHERE start_time >= fromUnixTimestamp64Nano(toInt64({int(since_ns)}))
GROUP BY run_id"""  # noqa: S608, E501  (checked ids and a checked database name)


def texts(database: str, trace_ids: Iterable[str], days: Iterable[int], hashes: Iterable[bytes], chars: int) -> str:
    """Text of some content blocks: trace, day, hash, source, the first characters, the length."""
    hashes_sql = ",".join(f"unhex('{hash_.hex()}')" for hash_ in hashes)
    return f"""
SELECT trace_id, toUInt16(day), hash, any(source), substringUTF8(any(body), 1, {int(chars)}), lengthUTF8(any(body))
FROM {database}.messages_data
WHERE trace_id IN ({literals(trace_ids)}) AND day IN ({_days(days)}) AND hash IN ({hashes_sql})
GROUP BY trace_id, day, hash"""  # noqa: S608  (checked ids, numbers and our own hex)


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

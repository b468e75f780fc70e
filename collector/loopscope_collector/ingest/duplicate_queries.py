"""The SQL of duplicates: recordings that may be of the same call, and flagging. Statements only; used by `duplicates`.

Ids of a provider are other people's text: what is more than letters, digits and dashes stands in statements as hex,
which takes the store twice as long to read. All statements name the time of the calls, by which the store is sorted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from loopscope_collector.ingest.duplicate_match import LOOPSCOPE
from loopscope_collector.ingest.run_queries import literals
from loopscope_schemas import attributes as at

LEFT_ALONE: Final = "claude_code"
"""A dialect whose response id is that of the request: it would never meet another's, and is no call of the SDK."""
MAX_ID_CHARS: Final = 128
"""No provider's id is as long; longer ones are not compared, so that a statement stays short."""
MAX_ROWS: Final = 200_000
"""A trace with more spans than a person could have made is not read to its end."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_IS_RECORDING: Final = f"kind IN ('llm', 'tool') AND end_time IS NOT NULL AND dialect != '{LEFT_ALONE}'"
_COLUMNS: Final = """trace_id, span_id, parent_span_id, run_id, kind, dialect, scope,
    if(kind = 'llm', response_id, call_id) AS provider_id, request_model, model, toUInt16(day) AS day_number,
    toUnixTimestamp64Nano(start_time) AS start, ifNull(toUnixTimestamp64Nano(end_time), 0) AS ended,
    input_shape != '' OR output_shape != '' OR input_text != '' OR output_text != '' AS has_content,
    input_tokens IS NOT NULL OR output_tokens IS NOT NULL AS has_usage,
    status = 'error' AS is_error, PID AS pid,
    duplicate_of, duplicate_of_run"""


def sources(database: str, since_ns: int, until_ns: int, *, but: str = "") -> str:
    """Scopes that recorded calls in a time, two at most; `but` leaves out a dialect."""
    without = f" AND dialect != '{but}'" if but else ""
    return (
        f"SELECT DISTINCT scope FROM {database}.spans_data WHERE {_between(since_ns, until_ns)} "  # noqa: S608
        f"AND kind IN ('llm', 'tool') AND dialect != '{LEFT_ALONE}'{without} LIMIT 2"
    )


def doubled(database: str, since_ns: int, until_ns: int, name: str, ids: Sequence[str]) -> str:
    """Those of the ids that two scopes may have recorded; `name` is that of a parameter of `recordings`.

    Most calls are recorded once: this is what is asked of all of them, and reads next to nothing.
    """
    column, condition = {
        "response_ids": ("response_id", "kind = 'llm'"),
        "call_ids": ("call_id", "kind = 'tool'"),
        "trace_ids": ("trace_id", "kind = 'llm'"),
    }[name]
    having = "min(scope) != max(scope)" + (" AND countIf(response_id = '') > 0" if name == "trace_ids" else "")
    return (
        f"SELECT {column} FROM {database}.spans_data PREWHERE {column} IN ({_texts(ids)}) "  # noqa: S608
        f"WHERE {condition} AND {_IS_RECORDING} AND {_between(since_ns, until_ns)} GROUP BY {column} HAVING {having}"
    )


def recordings(
    database: str,
    since_ns: int,
    until_ns: int,
    *,
    response_ids: Sequence[str] = (),
    call_ids: Sequence[str] = (),
    trace_ids: Sequence[str] = (),
) -> str:
    """Finished calls with one of the ids, and the LLM calls of the traces. Of each span its newest version."""
    parts = [
        condition
        for given, condition in (
            (response_ids, f"response_id IN ({_texts(response_ids)}) WHERE kind = 'llm'"),
            (call_ids, f"call_id IN ({_texts(call_ids)}) WHERE kind = 'tool'"),
            (trace_ids, f"trace_id IN ({literals(trace_ids)}) WHERE kind = 'llm'"),
        )
        if given
    ]
    selects = " UNION ALL ".join(
        f"SELECT {_columns()}, version FROM {database}.spans_data "  # noqa: S608
        f"PREWHERE {part} AND {_IS_RECORDING} AND {_between(since_ns, until_ns)}"
        for part in parts
    )
    return _newest(selects)


def failures(database: str, since_ns: int, until_ns: int) -> str:
    """LLM calls that failed before there was an id. Of each span its newest version."""
    return _newest(
        f"SELECT {_columns(pid=True)}, version FROM {database}.spans_data "  # noqa: S608
        f"WHERE kind = 'llm' AND response_id = '' AND status = 'error' AND {_IS_RECORDING} "
        f"AND {_between(since_ns, until_ns)}"
    )


def _newest(selects: str) -> str:
    return f"SELECT * FROM ({selects}) ORDER BY version DESC LIMIT 1 BY trace_id, span_id LIMIT {MAX_ROWS}"  # noqa: S608


def parents(database: str, since_ns: int, until_ns: int, trace_ids: Sequence[str]) -> str:
    """The parent of each span of some traces: trace, span, parent."""
    return (
        f"SELECT DISTINCT trace_id, span_id, parent_span_id FROM {database}.spans_data "  # noqa: S608
        f"WHERE trace_id IN ({literals(trace_ids)}) AND {_between(since_ns, until_ns)} LIMIT {MAX_ROWS}"
    )


def flag(database: str, changes: Mapping[tuple[str, str], tuple[str, str]], days: Iterable[int]) -> str:
    """Write some spans again with other flags: (trace, span) -> (span, run) that counts, empty for those that count.

    The row stays what it is: only the next version of it, so that what was sent is never newer than what was found.
    """
    spans = ",".join(f"'{trace}{span}'" for trace, span in _checked(changes))
    targets = ",".join(f"'{span}'" for span, _ in changes.values())
    runs = ",".join(f"'{run}'" for _, run in changes.values())
    literals([text for pair in changes.values() for text in pair if text] or ["0"])
    traces = literals({trace for trace, _ in changes})
    key = "concat(trace_id, span_id)"
    return f"""
INSERT INTO {database}.spans_data SETTINGS insert_deduplicate = 0
SELECT * REPLACE (
    transform({key}, [{spans}], [{targets}], '') AS duplicate_of,
    transform({key}, [{spans}], [{runs}], '') AS duplicate_of_run,
    version + 1 AS version)
FROM (
    SELECT * FROM {database}.spans_data FINAL PREWHERE trace_id IN ({traces})
    WHERE day IN ({",".join(f"toDate({int(day)})" for day in days)}) AND {key} IN ({spans}) AND end_time IS NOT NULL
)"""  # noqa: S608  (checked ids and a checked database name)


def suspects(database: str) -> str:
    """Everything that two scopes may have recorded, for a rebuild: what it is, its text, first start, last start."""
    times = "toUnixTimestamp64Nano(min(start_time)) AS first, toUnixTimestamp64Nano(max(start_time))"
    table = f"{database}.spans_data WHERE {_IS_RECORDING}"
    two, others = "min(scope) != max(scope)", f"{table} AND dialect != '{LOOPSCOPE}'"
    return f"""
SELECT * FROM (
    SELECT 'response' AS what, response_id AS text, {times} FROM {table} AND kind = 'llm' AND response_id != ''
        AND response_id IN (SELECT response_id FROM {others} AND kind = 'llm')
    GROUP BY response_id HAVING {two}
    UNION ALL
    SELECT 'call' AS what, call_id AS text, {times} FROM {table} AND kind = 'tool' AND call_id != ''
        AND call_id IN (SELECT call_id FROM {others} AND kind = 'tool')
    GROUP BY call_id HAVING {two}
    UNION ALL
    SELECT 'trace' AS what, trace_id AS text, {times} FROM {table} AND kind = 'llm'
        AND trace_id IN (SELECT trace_id FROM {others} AND kind = 'llm')
    GROUP BY trace_id HAVING {two} AND countIf(response_id = '') > 0
    UNION ALL
    SELECT 'failure' AS what, '' AS text, {times} FROM {table}
        AND kind = 'llm' AND response_id = '' AND status = 'error'
    GROUP BY toStartOfHour(start_time) HAVING {two}
) ORDER BY first, what, text"""  # noqa: S608


def _columns(*, pid: bool = False) -> str:
    """The process only where it is compared: reading one key of a map reads the whole map."""
    return _COLUMNS.replace("PID", f"resource['{at.PROCESS_PID}']" if pid else "''")


def _checked(keys: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found = list(keys)
    literals(text for pair in found for text in pair)
    return found


def _texts(texts: Iterable[str]) -> str:
    return ",".join(f"'{text}'" if _PLAIN.fullmatch(text) else f"unhex('{text.encode().hex()}')" for text in texts)


def _between(since_ns: int, until_ns: int) -> str:
    return (
        f"start_time >= fromUnixTimestamp64Nano(toInt64({int(since_ns)})) "
        f"AND start_time <= fromUnixTimestamp64Nano(toInt64({int(until_ns)}))"
    )

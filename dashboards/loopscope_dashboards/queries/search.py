"""Free text over everything recorded. The result equals a case-insensitive substring scan; the token index only helps.

The index knows whole tokens. The first and the last piece of what a reader typed may be parts of a word, so only the
tokens between them must be there whole; the edges are looked for as parts of tokens; the exact check decides.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

MAX_CHARS: Final = 500
"""Of a needle: it travels in the request's address."""

# The tokenizer splits at ASCII characters that are neither letters nor digits; all other characters are of a token.
_TOKEN: Final = re.compile(r"[^\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+")
_EDGE_MIN_CHARS: Final = 4
"""Shorter parts of tokens stand in too many tokens to narrow anything."""

_EXACT: Final = "position(lowerUTF8(body), lowerUTF8({needle:String})) > 0"
_INNER: Final = "hasAllTokens(lowerUTF8(body), lowerUTF8({inner:String}))"
_FIRST_EDGE: Final = "lowerUTF8(body) LIKE concat('%', lowerUTF8({first_edge:String}), '%')"
_LAST_EDGE: Final = "lowerUTF8(body) LIKE concat('%', lowerUTF8({last_edge:String}), '%')"


@dataclass(frozen=True, slots=True)
class Needle:
    """What to look for, and the condition on `messages` that finds it."""

    text: str
    inner: tuple[str, ...]
    first_edge: str
    last_edge: str

    @property
    def condition(self) -> str:
        """SQL over `body`, of fixed parts."""
        parts: list[str] = []
        if self.inner:
            parts.append(_INNER)
        else:
            # Edges are read from the index's dictionary: dear where inner tokens narrow the search already.
            if self.first_edge:
                parts.append(_FIRST_EDGE)
            if self.last_edge:
                parts.append(_LAST_EDGE)
        return " AND ".join([*parts, _EXACT])

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the condition's parameters."""
        return {
            "needle": self.text,
            "inner": " ".join(self.inner),
            "first_edge": self.first_edge,
            "last_edge": self.last_edge,
        }


def needle_of(typed: str) -> Needle | None:
    """What a reader typed, cut to MAX_CHARS; None when there is nothing to look for."""
    text = typed[:MAX_CHARS].strip()
    if not text:
        return None
    places = [(match.start(), match.end(), match[0]) for match in _TOKEN.finditer(text)]
    first = places[0] if places and places[0][0] == 0 else None
    last = places[-1] if places and places[-1][1] == len(text) else None
    inner = tuple(dict.fromkeys(place[2] for place in places if place not in (first, last)))
    first_edge = first[2] if first and len(first[2]) >= _EDGE_MIN_CHARS else ""
    last_edge = last[2] if last and last != first and len(last[2]) >= _EDGE_MIN_CHARS else ""
    return Needle(text, inner, first_edge, last_edge)


_TRACES: Final = "SELECT trace_id FROM messages WHERE day >= {first_day:Date} AND MATCH"

_IN_RUN: Final = """
    OR position(lowerUTF8(ifNull(input, '')), lowerUTF8({needle:String})) > 0
    OR position(lowerUTF8(ifNull(final_answer, '')), lowerUTF8({needle:String})) > 0"""

RUNS_WITH_TEXT: Final = f"""(
    (
        trace_id IN ({_TRACES})
        AND (trace_id NOT IN {{shared:Array(String)}} OR run_id IN {{precise:Array(String)}})
    ){_IN_RUN}
)"""
"""Runs that hold the text. A text belongs to a trace; a trace can hold several runs (sub-agents). `shared` are such
traces, `precise` the runs in them of which a call or a tool has the text (see `SHARED_TRACES`, `PRECISE_RUNS`)."""

SHARED_MOST: Final = 300
"""Shared traces that travel as a parameter; with more, the store works them out (`RUNS_WITH_TEXT_AT_ONCE`)."""

SHARED_TRACES: Final = f"""
SELECT trace_id FROM runs WHERE trace_id IN ({_TRACES}) GROUP BY trace_id HAVING count() > 1 LIMIT {SHARED_MOST + 1}"""  # noqa: S608

PRECISE_RUNS: Final = """
SELECT DISTINCT run FROM (
    SELECT run_id AS run FROM calls
    INNER JOIN (
        SELECT trace_id, groupUniqArray(hash) AS found FROM messages
        WHERE trace_id IN {shared:Array(String)} AND day >= {first_day:Date} AND MATCH GROUP BY trace_id
    ) AS hits USING (trace_id)
    WHERE trace_id IN {shared:Array(String)} AND (hasAny(input_hashes, found) OR hasAny(output_hashes, found))
    UNION ALL
    SELECT ifNull(run_id, '') AS run FROM spans
    WHERE trace_id IN {shared:Array(String)} AND (trace_id, span_id) IN (
        SELECT trace_id, first_span_id FROM messages
        WHERE trace_id IN {shared:Array(String)} AND day >= {first_day:Date} AND MATCH
    )
)"""

RUNS_WITH_TEXT_AT_ONCE: Final = f"""(
    (
        trace_id IN ({_TRACES})
        AND (
            trace_id NOT IN (
                SELECT trace_id FROM runs WHERE trace_id IN ({_TRACES}) GROUP BY trace_id HAVING count() > 1
            )
            OR run_id IN (
                SELECT run_id FROM calls
                INNER JOIN (
                    SELECT trace_id, groupUniqArray(hash) AS found FROM messages
                    WHERE day >= {{first_day:Date}} AND MATCH GROUP BY trace_id
                ) AS hits USING (trace_id)
                WHERE hasAny(input_hashes, found) OR hasAny(output_hashes, found)
            )
            OR run_id IN (
                SELECT ifNull(run_id, '') FROM spans
                WHERE (trace_id, span_id) IN (
                    SELECT trace_id, first_span_id FROM messages WHERE day >= {{first_day:Date}} AND MATCH
                )
            )
        )
    ){_IN_RUN}
)"""  # noqa: S608  (fixed parts)
"""The same in one statement, some five times as dear."""

"""LLM calls as they were sent and answered, rebuilt from the store: for pages, the command line and tests.

The caller brings `query`, which runs one parameterised SELECT and returns its rows; this module opens no connection.
Text is asked for once a run, binaries when a rebuilt document needs them. What is not in the store is an error that
names it, never a gap.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loopscope_schemas.content import Json, join, parse

Query = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""Runs a SELECT with ClickHouse parameters (`{name:Type}`) and returns its rows."""

_NO_HASH: Final = "0" * 32
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_BINARY_MARKER: Final = re.compile(r'"@[bt]:([0-9a-f]{32})"')
_LONGEST_LIST: Final = 500
"""Hashes in one query: parameters travel in the address, whose length servers bound."""

_CALLS: Final = """
SELECT
    run_id, trace_id, span_id, toString(day), turn,
    arrayMap(h -> lower(hex(h)), input_hashes), input_shape,
    arrayMap(h -> lower(hex(h)), output_hashes), output_shape,
    lower(hex(system_hash)), lower(hex(tools_hash))
FROM DATABASE.spans_data FINAL
WHERE kind = 'llm' AND """
_BODIES: Final = """
SELECT lower(hex(hash)), any(body) FROM DATABASE.messages_data
WHERE trace_id = {trace_id:String} AND day = {day:Date}
    AND hash IN (SELECT toFixedString(unhex(arrayJoin({hashes:Array(String)})), 16))
GROUP BY hash"""
_PROMPTS: Final = """
SELECT lower(hex(hash)), any(body), any(shape) FROM DATABASE.prompts_data
WHERE day = {day:Date} AND hash IN (SELECT toFixedString(unhex(arrayJoin({hashes:Array(String)})), 16))
GROUP BY hash"""
_BLOBS: Final = """
SELECT lower(hex(hash)), base64Encode(any(data)) FROM DATABASE.blobs_data
WHERE trace_id IN ({trace_id:String}, '') AND day = {day:Date}
    AND hash IN (SELECT toFixedString(unhex(arrayJoin({hashes:Array(String)})), 16))
GROUP BY hash"""


class CallNotFoundError(LookupError):
    """No LLM call with this id is in the store."""


@dataclass(slots=True)
class _Content:
    """Texts of one trace and day, by hash in hex; filled as calls ask for them."""

    query: Query
    trace_id: str
    day: str
    bodies: dict[str, str] = field(default_factory=dict[str, str])
    prompts: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def load_bodies(self, hashes: Iterable[str]) -> None:
        for row in self._rows(_BODIES, hashes, self.bodies):
            self.bodies[row[0]] = row[1]

    def load_prompts(self, hashes: Iterable[str]) -> None:
        for row in self._rows(_PROMPTS, hashes, self.prompts):
            self.prompts[row[0]] = (row[1], row[2])

    def load_blobs(self, hashes: Iterable[str]) -> None:
        for row in self._rows(_BLOBS, hashes, self.blobs):
            self.blobs[row[0]] = base64.b64decode(row[1])

    def _rows(self, sql: str, hashes: Iterable[str], known: Mapping[str, object]) -> Iterable[Sequence[Any]]:
        wanted = sorted({hash_ for hash_ in hashes if hash_ not in known})
        for start in range(0, len(wanted), _LONGEST_LIST):
            parameters = {
                "trace_id": self.trace_id,
                "day": self.day,
                "hashes": wanted[start : start + _LONGEST_LIST],
            }
            yield from self.query(sql, parameters)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One LLM call; its documents are rebuilt when asked for."""

    run_id: str
    trace_id: str
    span_id: str
    turn: int | None
    _input: tuple[str, tuple[str, ...]]
    _output: tuple[str, tuple[str, ...]]
    _prompts: tuple[str, str]
    content: _Content = field(repr=False)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Content blocks of request and answer, in hex, as the view `messages` names them."""
        return self._input[1] + self._output[1]

    def request(self) -> Json:
        """The request as sent, exactly; None when it was not recorded. Numbers are `content.Raw` text.

        Of a dialect that sends messages, not a body, it is an object of `system`, `tools` and `messages`, as far as
        they were given. Raises MissingContentError for text that is no longer in the store.
        """
        return self._document(*self._input)

    def response(self) -> Json:
        """The answer as given, exactly; None when it was not recorded. Raises MissingContentError."""
        return self._document(*self._output)

    def _document(self, shape: str, hashes: tuple[str, ...]) -> Json:
        if not shape:
            return None
        content = self.content
        prompts = _prompts_of(shape, *self._prompts)
        content.load_bodies(hashes)
        content.load_prompts(prompts)
        shapes = [shape, *(content.prompts[hash_][1] for hash_ in prompts if hash_ in content.prompts)]
        content.load_blobs(found for text in shapes for found in _BINARY_MARKER.findall(text))
        return join(
            shape,
            [bytes.fromhex(hash_) for hash_ in hashes],
            lambda hash_: content.bodies[hash_.hex()],
            prompts=[bytes.fromhex(hash_) for hash_ in prompts],
            prompt=lambda hash_: content.prompts[hash_.hex()],
            blob=lambda hash_: content.blobs[hash_.hex()],
        )


def fetch_run(query: Query, run_id: str, *, database: str = "loopscope") -> list[RecordedCall]:
    """The LLM calls of a run in order of their start, the text of all of them loaded; empty for an unknown run."""
    calls = _calls(query, database, "run_id = {run_id:String} ORDER BY start_time, span_id", {"run_id": run_id})
    wanted: dict[tuple[str, str], tuple[_Content, set[str]]] = {}
    for call in calls:
        content = call.content
        wanted.setdefault((content.trace_id, content.day), (content, set()))[1].update(call.hashes)
    for content, hashes in wanted.values():
        content.load_bodies(hashes)
    return calls


def fetch_call(query: Query, span_id: str, *, trace_id: str = "", database: str = "loopscope") -> RecordedCall:
    """One LLM call. With its trace id this is a look-up, without it a scan. Raises CallNotFoundError."""
    condition = "span_id = {span_id:String}" + (" AND trace_id = {trace_id:String}" if trace_id else "")
    calls = _calls(
        query, database, condition + " ORDER BY start_time DESC LIMIT 1", {"span_id": span_id, "trace_id": trace_id}
    )
    if not calls:
        raise CallNotFoundError(f"no LLM call with the id {span_id!r} is in the store")
    return calls[0]


def fetch_request(query: Query, span_id: str, *, trace_id: str = "", database: str = "loopscope") -> Json:
    """The request of an LLM call, see `RecordedCall.request`. Raises CallNotFoundError, MissingContentError."""
    return fetch_call(query, span_id, trace_id=trace_id, database=database).request()


def fetch_response(query: Query, span_id: str, *, trace_id: str = "", database: str = "loopscope") -> Json:
    """The answer of an LLM call, see `RecordedCall.response`. Raises CallNotFoundError, MissingContentError."""
    return fetch_call(query, span_id, trace_id=trace_id, database=database).response()


def _calls(query: Query, database: str, condition: str, parameters: Mapping[str, Any]) -> list[RecordedCall]:
    if not _IDENTIFIER.fullmatch(database):
        raise ValueError(f"database {database!r} is not a plain name; use letters, digits and underscores")

    def ask(sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return query(sql.replace("DATABASE.", f"{database}."), values)

    contents: dict[tuple[str, str], _Content] = {}
    calls: list[RecordedCall] = []
    for row in ask(_CALLS + condition, parameters):
        run_id, trace_id, span_id, day, turn, inputs, input_shape, outputs, output_shape, system, tools = row
        content = contents.setdefault((trace_id, day), _Content(ask, trace_id, day))
        calls.append(
            RecordedCall(
                run_id,
                trace_id,
                span_id,
                turn,
                (input_shape, tuple(inputs)),
                (output_shape, tuple(outputs)),
                (system, tools),
                content,
            )
        )
    return calls


def _prompts_of(shape: str, system: str, tools: str) -> list[str]:
    """The prompts of a document in the order in which its shape asks for them."""
    if system == tools == _NO_HASH:
        return []
    document = parse(shape)
    found: list[str] = []
    for value in document.values() if isinstance(document, dict) else ():
        if isinstance(value, list) and value and value[0] in ("$", "$$"):
            found.append(system if value[0] == "$" else tools)
    return found

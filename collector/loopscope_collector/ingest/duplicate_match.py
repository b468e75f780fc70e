"""Which recordings are of the same call, and which of them counts. Pure; used by `duplicates`.

Two instrumentations on one call are two spans that cover the same time. The provider's id tells that they are one call,
whatever their traces. Where one of them has no id (a call that failed, a stream that was given up), it is the span
inside or beside it in the same trace, with the same model. Where two that failed are in different traces, it is the one
that covers the other and began with it. One instrumentation never records a call twice: ids repeat
only where answers come out of a cache, so that of one scope two spans are always two calls.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LOOPSCOPE: Final = "loopscope"
LATEST_START_NS: Final = 2_000_000_000
"""Hooks around one call begin within moments of each other; asked of pairs that no id confirms."""
LATEST_START_ELSEWHERE_NS: Final = 250_000_000
"""The same of pairs that no trace confirms either."""
EDGE_NS: Final = 5_000_000
"""The outer hook begins first and ends last, but for what clocks and threads do."""
MOST_OPEN: Final = 256
"""Calls of a moment that one is compared with: an outage with thousands at once must not hold up ingest."""

SpanKey = tuple[str, str]
"""Trace and span id."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished LLM or tool call, as one instrumentation recorded it. Times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_span_id: str
    run_id: str
    kind: str
    dialect: str
    scope: str
    provider_id: str
    """Of the answer, or of the tool call; empty when the instrumentation does not say."""
    models: frozenset[str]
    day: int
    start: int
    end: int
    has_content: bool
    has_usage: bool
    is_error: bool = False
    pid: str = ""
    """Of the recording process, where its resource says so."""
    duplicate_of: str = ""
    duplicate_of_run: str = ""

    @property
    def key(self) -> SpanKey:
        """Its identity."""
        return self.trace_id, self.span_id

    @property
    def source(self) -> str:
        """Who recorded it."""
        return self.scope or self.dialect

    @property
    def rank(self) -> tuple[object, ...]:
        """The lowest counts: ours, then who has the content, then who knows the usage."""
        return (self.dialect != LOOPSCOPE, not self.has_content, not self.has_usage, self.source, self.start, self.key)


def groups(recordings: Sequence[Recording], parents: Mapping[SpanKey, str]) -> list[list[Recording]]:
    """Recordings of the same call together, the one that counts first. `parents` are those of the spans between."""
    leader = {item.key: item.key for item in recordings}
    members = {item.key: [item] for item in recordings}
    for _, one, other in sorted(_pairs(recordings, parents), key=lambda pair: (pair[0], pair[1].key, pair[2].key)):
        first, second = leader[one.key], leader[other.key]
        if first == second or not _may_join(members[first], members[second]):
            continue
        members[first] += members.pop(second)
        for item in members[first]:
            leader[item.key] = first
    return [sorted(found, key=lambda item: item.rank) for found in members.values()]


def _may_join(some: Iterable[Recording], others: Sequence[Recording]) -> bool:
    """One recording a source, and no two ids of the provider."""
    sources = {item.source for item in others}
    ids = {item.provider_id for item in others if item.provider_id}
    return not any(item.source in sources or (item.provider_id and ids - {item.provider_id}) for item in some)


def _pairs(
    recordings: Sequence[Recording], parents: Mapping[SpanKey, str]
) -> Iterator[tuple[tuple[int, int], Recording, Recording]]:
    """Pairs that may be one call, each with how far it is from being certain."""
    by_id: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    by_trace: dict[str, list[Recording]] = defaultdict(list)
    for item in recordings:
        if item.provider_id:
            by_id[item.kind, item.provider_id].append(item)
        if item.kind == "llm":
            by_trace[item.trace_id].append(item)
    for found in by_id.values():
        for one, other in _overlapping(found):
            yield (0, _apart(one, other)), one, other
    for found in by_trace.values():
        if all(item.provider_id for item in found):
            continue
        for one, other in _overlapping(found):
            if one.provider_id and other.provider_id:
                continue
            if not one.models & other.models or abs(one.start - other.start) > LATEST_START_NS:
                continue
            relation = _relation(one, other, parents)
            if relation:
                yield (relation, _apart(one, other)), one, other
    failed = [item for item in recordings if item.kind == "llm" and item.is_error and not item.provider_id]
    for one, other in _overlapping(failed):
        if one.trace_id != other.trace_id and one.models & other.models and _is_hooked_with(one, other):
            yield (3, _apart(one, other)), one, other


def _overlapping(recordings: Iterable[Recording]) -> Iterator[tuple[Recording, Recording]]:
    """Pairs of different sources that share a moment."""
    open_: list[Recording] = []
    for item in sorted(recordings, key=lambda item: (item.start, item.key)):
        open_ = [other for other in open_[-MOST_OPEN:] if other.end >= item.start]
        for other in open_:
            if other.source != item.source:
                yield other, item
        open_.append(item)


def _is_hooked_with(one: Recording, other: Recording) -> bool:
    """Whether both were around one call of one process, as far as times tell; `one` began first."""
    if one.pid and other.pid and one.pid != other.pid:
        return False
    return other.start - one.start <= LATEST_START_ELSEWHERE_NS and (
        other.end <= one.end + EDGE_NS or other.start - one.start <= EDGE_NS
    )


def _apart(one: Recording, other: Recording) -> int:
    return abs(one.start - other.start) + abs(one.end - other.end)


def _relation(one: Recording, other: Recording, parents: Mapping[SpanKey, str]) -> int:
    """1: one is inside the other; 2: beside it, or inside a span that is; 0: neither."""
    above_one, above_other = _ancestors(one, parents), _ancestors(other, parents)
    if one.span_id in above_other or other.span_id in above_one:
        return 1
    beside = one.parent_span_id in above_other or other.parent_span_id in above_one
    return 2 if beside else 0


def _ancestors(item: Recording, parents: Mapping[SpanKey, str]) -> set[str]:
    found: set[str] = set()
    parent = item.parent_span_id
    while parent and parent not in found:
        found.add(parent)
        parent = parents.get((item.trace_id, parent), "")
    return found

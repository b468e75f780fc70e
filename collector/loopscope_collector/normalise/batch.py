"""The rows that records turn into, before they are inserted."""

from collections import Counter
from dataclasses import dataclass, field

from loopscope_schemas.content import Blob, Block, Prompt
from loopscope_schemas.content.exact_json import escape_surrogates, has_surrogates
from loopscope_schemas.rows import (
    BlobRow,
    Day,
    EventRow,
    Hash,
    MessageRow,
    Nanoseconds,
    PromptRow,
    SpanRow,
)

SHARED_TRACE: str = ""
"""Trace id of binaries that belong to a prompt: prompts are shared by all traces of a day."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A span that could not be turned into a row."""

    body: bytes
    """An ExportTraceServiceRequest that holds this span alone, with its resource and scope."""
    reason: str


@dataclass(slots=True)
class Batch:
    """Rows of all tables that telemetry fills. A content block stands once for each trace and day."""

    spans: list[SpanRow] = field(default_factory=list[SpanRow])
    messages: list[MessageRow] = field(default_factory=list[MessageRow])
    blobs: list[BlobRow] = field(default_factory=list[BlobRow])
    prompts: list[PromptRow] = field(default_factory=list[PromptRow])
    events: list[EventRow] = field(default_factory=list[EventRow])
    refused: list[Refused] = field(default_factory=list[Refused])
    counts: Counter[str] = field(default_factory=Counter[str])
    """What happened, by name of a metric."""
    _hashes: dict[tuple[str, Day], set[bytes]] = field(default_factory=dict[tuple[str, Day], set[bytes]])
    _prompts: set[tuple[Day, bytes, str]] = field(default_factory=set[tuple[Day, bytes, str]])

    def add_blocks(
        self, trace_id: str, day: Day, blocks: list[Block], *, span_id: str, turn: int | None, at: Nanoseconds
    ) -> None:
        """Add those blocks that this batch does not hold yet."""
        known = self._hashes.get((trace_id, day))
        if known is None:
            known = self._hashes[trace_id, day] = set()
        for block in blocks:
            hash_ = block.hash
            if hash_ in known:
                continue
            known.add(hash_)
            body = block.body
            self.messages.append(
                MessageRow(
                    day=day,
                    trace_id=trace_id,
                    hash=Hash(hash_),
                    role=storable(block.role),
                    kind=storable(block.kind),
                    source=block.source,
                    tool=storable(block.tool),
                    first_span_id=span_id,
                    first_turn=turn,
                    first_seen_at=at,
                    bytes=utf8_length(body),
                    tokens_estimate=(len(body) + 3) // 4,
                    body=body,
                )
            )
            if block.blobs:
                self._add_blobs(trace_id, day, block.blobs, known)

    def add_prompt(self, day: Day, prompt: Prompt, *, agent: str, name: str, version: str, at: Nanoseconds) -> None:
        """Add a prompt once for each day and agent."""
        key = (day, prompt.hash, agent)
        if key in self._prompts:
            return
        self._prompts.add(key)
        self.prompts.append(
            PromptRow(
                day=day,
                hash=Hash(prompt.hash),
                kind=prompt.kind,
                agent=agent,
                name=name,
                version=version,
                first_seen_at=at,
                bytes=utf8_length(prompt.body),
                body=prompt.body,
                shape=prompt.shape,
            )
        )
        if prompt.blobs:
            self._add_blobs(SHARED_TRACE, day, prompt.blobs, self._hashes.setdefault((SHARED_TRACE, day), set()))

    def _add_blobs(self, trace_id: str, day: Day, blobs: tuple[Blob, ...], known: set[bytes]) -> None:
        for blob in blobs:
            if blob.hash not in known:
                known.add(blob.hash)
                self.blobs.append(
                    BlobRow(
                        day=day,
                        trace_id=trace_id,
                        hash=Hash(blob.hash),
                        encoding=blob.encoding,
                        bytes=len(blob.data),
                        data=blob.data,
                    )
                )


def utf8_length(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def storable(text: str) -> str:
    """The text, lone surrogates escaped: the store holds UTF-8."""
    return escape_surrogates(text) if not text.isascii() and has_surrogates(text) else text

"""What the writer knows of each table: how a row is identified, about how large it is, whose row it is. Data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from loopscope_collector.normalise import Batch
from loopscope_schemas.rows import BlobRow, EventRow, MessageRow, PromptRow, SpanRow


@dataclass(frozen=True, slots=True)
class TableRules:
    """One physical table, in the order in which tables are written."""

    row_type: Any
    key: Callable[[Any], str]
    """Identity of a row: what a deduplication token is a digest of."""
    size: Callable[[Any], int]
    """About the bytes of a row."""
    owners: Callable[[Any, Batch], Iterable[tuple[str, str]]]
    """Trace and span ids of the spans that a row was made of."""

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.row_type.TABLE


def _owner(row: SpanRow | EventRow, _batch: Batch) -> list[tuple[str, str]]:
    return [(row.trace_id, row.span_id)]


def _message_owners(row: MessageRow, batch: Batch) -> list[tuple[str, str]]:
    return [
        (span.trace_id, span.span_id)
        for span in batch.spans
        if span.trace_id == row.trace_id and (row.hash in span.input_hashes or row.hash in span.output_hashes)
    ] or [(row.trace_id, row.first_span_id)]


def _blob_owners(row: BlobRow, batch: Batch) -> list[tuple[str, str]]:
    marker = f":{row.hash.hex()}"
    return [
        (span.trace_id, span.span_id)
        for span in batch.spans
        if marker in span.input_shape or marker in span.output_shape
    ]


def _prompt_owners(row: PromptRow, batch: Batch) -> list[tuple[str, str]]:
    return [(span.trace_id, span.span_id) for span in batch.spans if row.hash in (span.system_hash, span.tools_hash)]


BLOBS: Final = TableRules(
    BlobRow, lambda row: f"{row.day} {row.trace_id} {row.hash.hex()}", lambda row: 100 + row.bytes, _blob_owners
)
PROMPTS: Final = TableRules(
    PromptRow,
    lambda row: f"{row.day} {row.hash.hex()} {row.agent}",
    lambda row: 200 + row.bytes + len(row.shape),
    _prompt_owners,
)
MESSAGES: Final = TableRules(
    MessageRow, lambda row: f"{row.day} {row.trace_id} {row.hash.hex()}", lambda row: 150 + row.bytes, _message_owners
)
EVENTS: Final = TableRules(
    EventRow,
    lambda row: f"{row.day} {row.trace_id} {row.span_id} {row.position}",
    lambda row: 200 + sum(map(len, row.attributes.values())),
    _owner,
)
SPANS: Final = TableRules(
    SpanRow,
    lambda row: f"{row.day} {row.trace_id} {row.span_id} {row.start_time} {row.version}",
    lambda row: 800 + len(row.input_shape) + len(row.input_text) + len(row.output_text) + 16 * len(row.input_hashes),
    _owner,
)

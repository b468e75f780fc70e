"""One OTLP span -> the columns that all dialects share. Pure; the dialects add what their content says.

Nothing is lost: an attribute without a column, or with a value that its column cannot hold, stays in the map; what is
too long for the map goes to a content block; what cannot be a time or an id is kept and named in `cut`.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from loopscope_collector.normalise.batch import Batch, utf8_length
from loopscope_collector.normalise.context import Context
from loopscope_collector.normalise.errors import error_class_of
from loopscope_collector.normalise.fields import (
    CONTENT_FIELDS,
    LOSSY_FIELDS,
    MAX_NAME_CHARS,
    RESOURCE_FIELDS,
    SPAN_ALIASES,
    SPAN_FIELDS,
    text,
)
from loopscope_collector.normalise.otlp import Value, text_of, value_of
from loopscope_schemas import attributes as at
from loopscope_schemas.content import Block
from loopscope_schemas.content.blocks import digest
from loopscope_schemas.rows import FINISHED, NANOSECONDS_PER_DAY, Day, EventRow, Nanoseconds

MAX_ATTRIBUTE_CHARS: Final = 65_536
"""A longer value would make every query of the map slow: it becomes a content block of the trace."""
KEPT_CHARS: Final = 200
_MAX_TIME: Final = 2**63 - 1
_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)
_STATUS: Final = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}
_KINDS: Final = {
    "chat": "llm",
    "generate_content": "llm",
    "text_completion": "llm",
    "execute_tool": "tool",
    "invoke_agent": "run",
    "invoke_workflow": "run",
    "usage_summary": "usage",
    "step": "step",
    "count_tokens": "count",
    "create_batch": "batch",
    "limit": "limit",
}
"""Operation -> kind. Only `llm` and `tool` are calls: a count, a batch that was handed in and a limit's answer cost
nothing and are no turns."""
_RUN_OPERATIONS: Final = frozenset(name for name, kind in _KINDS.items() if kind == "run")
_HEX: Final = re.compile(r"[0-9a-f]{1,64}")
_UNKNOWN_SERVICE: Final = "unknown_service"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the spans of one scope of one resource share."""

    columns: dict[str, Any]
    """Columns filled from resource and scope."""
    resource: dict[str, str]
    long_values: dict[str, str]
    """Values of the resource that are too long for its map."""
    scope: str
    scope_attributes: dict[str, Value]
    service_version: str
    dialect: str


@dataclass(slots=True)
class Draft:
    """A span on its way to a row."""

    span: Span
    origin: Origin
    batch: Batch
    context: Context
    columns: dict[str, Any]
    content: dict[str, Value]
    """Attributes that the dialect reads itself."""
    rest: dict[str, Value]
    """Attributes without a column."""
    cut: dict[str, Any] = field(default_factory=dict[str, Any])

    def add_blocks(self, blocks: list[Block]) -> None:
        """Content blocks of this span."""
        columns = self.columns
        self.batch.add_blocks(
            columns["trace_id"],
            columns["day"],
            blocks,
            span_id=columns["span_id"],
            turn=columns.get("turn"),
            at=columns["start_time"],
        )


def origin_of(resource: Resource, scope: InstrumentationScope, dialect: str) -> Origin:
    """What all spans of a scope share."""
    columns: dict[str, Any] = {"scope": scope.name, "dialect": dialect}
    texts: dict[str, str] = {}
    long_values: dict[str, str] = {}
    for item in resource.attributes:
        said = text_of(value_of(item.value))
        field_ = RESOURCE_FIELDS.get(item.key)
        if field_ is not None:
            columns[field_] = said[:MAX_ATTRIBUTE_CHARS]
        if len(said) > MAX_ATTRIBUTE_CHARS:
            long_values[item.key] = said
            said = _shortened(said)
        texts[item.key] = said
    if "environment" not in columns:
        columns["environment"] = texts.get(at.DEPLOYMENT_ENVIRONMENT_LEGACY, "")
    if not columns.get("process_id"):
        pid = texts.get(at.PROCESS_PID)
        where = texts.get(at.HOST_NAME, "")
        columns["process_id"] = texts.get(at.SERVICE_INSTANCE_ID) or (f"{where}:{pid}" if pid else "")
    scope_attributes: dict[str, Value] = {at.SCOPE_PREFIX + kv.key: value_of(kv.value) for kv in scope.attributes}
    if scope.version:
        scope_attributes[at.SCOPE_VERSION] = scope.version
    return Origin(columns, texts, long_values, scope.name, scope_attributes, texts.get(at.SERVICE_VERSION, ""), dialect)


def draft_of(span: Span, origin: Origin, batch: Batch, context: Context, received_at: int, *, marker: bool) -> Draft:
    """The span's shared columns; `marker` says that it came as a start marker or heartbeat."""
    columns = origin.columns.copy()
    columns["received_at"] = received_at
    columns["resource"] = origin.resource
    content: dict[str, Value] = {}
    rest: dict[str, Value] = {}
    aliases: dict[str, Value] | None = None
    fields = SPAN_FIELDS
    for item in span.attributes:
        key = item.key
        any_value = item.value
        # The common cases first: asking which kind of value it is costs more than the value.
        value: Any = any_value.string_value or any_value.int_value or value_of(any_value)
        entry = fields.get(key)
        if entry is not None and entry[0] not in columns:
            column, read_as = entry
            if read_as is text and type(value) is str and len(value) <= MAX_NAME_CHARS:
                columns[column] = value
                continue
            read = read_as(value)
            if read is not None:
                columns[column] = read
                if key in LOSSY_FIELDS and read != value and [read] != value:
                    rest[key] = value
                continue
        elif key in CONTENT_FIELDS:
            content[key] = value
            continue
        elif key in SPAN_ALIASES:
            aliases = aliases if aliases is not None else {}
            aliases[key] = value
            continue
        rest[key] = value
    draft = Draft(span, origin, batch, context, columns, content, rest)
    if aliases:
        _read_aliases(draft, aliases)
    _read_cut(draft)
    _identify(draft)
    _place(draft, received_at, marker)
    _describe(draft)
    return draft


def finish(draft: Draft) -> None:
    """The columns that need all others: status and errors, the map of attributes, events, links, cuts."""
    columns, span = draft.columns, draft.span
    _read_status(draft)
    if span.events:
        _add_events(draft)
    if span.links:
        columns["links"] = json.dumps([_link(link) for link in span.links])
    for name, dropped in (
        ("attributes", span.dropped_attributes_count),
        ("events", span.dropped_events_count),
        ("links", span.dropped_links_count),
    ):
        if dropped:
            draft.cut[name] = {"left_out": dropped, "why": "limit of the sender"}
    draft.rest.update(draft.content)
    if draft.origin.dialect != "loopscope":
        draft.rest.update(draft.origin.scope_attributes)
        if span.kind:
            draft.rest[at.SPAN_KIND] = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
        if span.trace_state:
            draft.rest[at.TRACE_STATE] = span.trace_state
    columns["attributes"] = {key: _bounded(draft, key, text_of(value)) for key, value in draft.rest.items()}
    for key, said in draft.origin.long_values.items():
        _bounded(draft, key, said)
    if draft.cut:
        columns["cut"] = json.dumps(draft.cut, ensure_ascii=False)


def _read_aliases(draft: Draft, aliases: dict[str, Value]) -> None:
    for key, (column, reader) in SPAN_ALIASES.items():
        if key not in aliases:
            continue
        value = aliases[key]
        read = reader(value) if column not in draft.columns else None
        if read is not None:
            draft.columns[column] = read
        if read is None or (read != value and [read] != value):
            draft.rest[key] = value


def _read_cut(draft: Draft) -> None:
    stated = draft.content.pop(at.CUT, None)
    if stated is None:
        return
    try:
        said = json.loads(text_of(stated))
    except (ValueError, RecursionError):
        said = text_of(stated)
    draft.cut.update(said if isinstance(said, dict) else {at.CUT: said})


def ids_of(span: Span) -> tuple[bytes, bytes]:
    """Trace and span id. Spans without one are told apart by their content: equal ids would make them one row."""
    trace_id, span_id = span.trace_id, span.span_id
    if len(trace_id) != len(_NO_TRACE) or trace_id == _NO_TRACE:
        trace_id = hashlib.blake2b(span.SerializeToString(deterministic=True), digest_size=16).digest()
    if len(span_id) != len(_NO_SPAN) or span_id == _NO_SPAN:
        span_id = hashlib.blake2b(span.SerializeToString(deterministic=True), digest_size=8).digest()
    return trace_id, span_id


def _identify(draft: Draft) -> None:
    span, columns = draft.span, draft.columns
    trace_id, span_id = ids_of(span)
    if trace_id != span.trace_id or span_id != span.span_id:
        for name, id_, was in (("trace_id", trace_id, span.trace_id), ("span_id", span_id, span.span_id)):
            if id_ != was:
                draft.cut[name] = {"was": was.hex()[:KEPT_CHARS], "why": "no id: made from the span's content"}
    columns["trace_id"] = trace_id.hex()
    columns["span_id"] = span_id.hex()
    parent = span.parent_span_id
    columns["parent_span_id"] = "" if parent == _NO_SPAN else parent.hex()
    columns["run_id"] = _run_id(draft, at.RUN_ID, columns.get("run_id")) or columns["trace_id"]
    columns["parent_run_id"] = _run_id(draft, at.RUN_PARENT_ID, columns.get("parent_run_id"))


def _run_id(draft: Draft, name: str, stated: str | None) -> str:
    """Hex digits, whatever was stated: a made-up id is the digest of what stands in its place."""
    if not stated or _HEX.fullmatch(stated):
        return stated or ""
    draft.rest[name] = stated
    draft.cut[name] = {"why": "not made of 1 to 64 lower-case hex digits: its digest stands for it"}
    return hashlib.blake2b(stated.encode(), digest_size=16).hexdigest()


def _place(draft: Draft, received_at: int, marker: bool) -> None:
    """Times, the day it is filed under, the version."""
    span, columns = draft.span, draft.columns
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    day = received_at // NANOSECONDS_PER_DAY
    oldest = (day - draft.context.retention_days) * NANOSECONDS_PER_DAY
    if oldest <= start <= received_at + NANOSECONDS_PER_DAY:
        day = start // NANOSECONDS_PER_DAY
    else:
        draft.cut["start_time"] = {"was": start, "why": "out of range: filed under the day received"}
        start = min(start, _MAX_TIME)
    columns["day"] = Day(day)
    columns["start_time"] = Nanoseconds(start)
    if marker or not end:
        beat = columns.get("heartbeat_at") or 0
        # An inferred run is stated as ended whenever its calls pause: a sign of life after that end reopens it.
        reopens = beat and draft.rest.get(at.RUN_INFERRED) is True and columns.get("operation") in _RUN_OPERATIONS
        columns["version"] = FINISHED + beat - 1 if reopens else beat
        return
    if end < start or end > _MAX_TIME:
        draft.cut["end_time"] = {"was": end, "why": "before the start" if end < start else "out of range"}
        end = min(end, _MAX_TIME)
    columns["end_time"] = Nanoseconds(end)
    columns["version"] = FINISHED + end


def _describe(draft: Draft) -> None:
    columns = draft.columns
    operation = columns.get("operation", "")
    columns["name"] = _bounded(draft, "name", draft.span.name)
    columns["kind"] = kind = _KINDS.get(operation, "other")
    inferred = at.TOOL_INFERRED if kind == "tool" else at.RUN_INFERRED
    if isinstance(draft.rest.get(inferred), bool):
        columns["inferred"] = draft.rest.pop(inferred)
    if not columns.get("agent"):
        service = columns.get("service", "")
        if service and not service.startswith(_UNKNOWN_SERVICE):
            columns["agent"] = service
    if not columns.get("agent_version"):
        columns["agent_version"] = draft.origin.service_version


def _read_status(draft: Draft) -> None:
    columns, status = draft.columns, draft.span.status
    columns["status"] = _STATUS.get(status.code, "unset")
    columns["status_message"] = _bounded(draft, "status_message", status.message) if status.message else ""
    if columns["status"] != "error":
        return
    for event in reversed(draft.span.events):
        if event.name == at.EXCEPTION_EVENT:
            said = {item.key: item.value.string_value for item in event.attributes}
            if not columns.get("error_type"):
                columns["error_type"] = said.get(at.EXCEPTION_TYPE, "")[:KEPT_CHARS]
            if not columns["status_message"]:
                columns["status_message"] = _bounded(draft, "status_message", said.get(at.EXCEPTION_MESSAGE, ""))
            break
    if not columns.get("error_class"):
        columns["error_class"] = error_class_of(columns.get("error_type", ""), draft.rest.get(at.HTTP_STATUS_CODE))


def _add_events(draft: Draft) -> None:
    columns = draft.columns
    for position, event in enumerate(draft.span.events):
        draft.batch.events.append(
            EventRow(
                day=columns["day"],
                trace_id=columns["trace_id"],
                span_id=columns["span_id"],
                run_id=columns["run_id"],
                position=position,
                at=Nanoseconds(min(event.time_unix_nano, _MAX_TIME)),
                name=event.name,
                attributes={
                    item.key: _bounded(draft, f"{event.name}[{position}].{item.key}", text_of(value_of(item.value)))
                    for item in event.attributes
                },
            )
        )


def _link(link: Span.Link) -> dict[str, Any]:
    found: dict[str, Any] = {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
    if link.trace_state:
        found["trace_state"] = link.trace_state
    if link.attributes:
        found["attributes"] = _texts(link.attributes)
    return found


def _texts(items: "list[KeyValue] | Any") -> dict[str, str]:
    return {item.key: text_of(value_of(item.value)) for item in items}


def _bounded(draft: Draft, key: str, value: str) -> str:
    """The text, or its beginning when it is too long: then all of it is a content block, named in `cut`."""
    if len(value) <= MAX_ATTRIBUTE_CHARS:
        return value
    block = Block(digest("other", "attribute", key, value), "other", "attribute", "other", "", value)
    draft.add_blocks([block])
    draft.cut[key] = {
        "from_bytes": utf8_length(value),
        "kept_chars": KEPT_CHARS,
        "block": block.hash.hex(),
        "why": "too long for a map: stored as a message",
    }
    return _shortened(value)


def _shortened(value: str) -> str:
    return f"{value[:KEPT_CHARS]}... [{len(value)} characters, see cut]"

"""What was recorded besides the columns: attributes, resource, events, request parameters. Pure."""

from collections.abc import Sequence

from loopscope_dashboards import figures
from loopscope_dashboards.panels.blocks import readable
from loopscope_dashboards.panels.nodes import Child, Node, badge, node, notice
from loopscope_dashboards.queries.run import Event
from loopscope_dashboards.queries.turn import Call, Record
from loopscope_dashboards.when import at


def draw_record(records: Sequence[Record], events: Sequence[Event], calls: Sequence[Call]) -> Node:
    """Spans of the selected turn and of the run itself, each with all it carries, and the run's events."""
    by_span = {call.span_id: call for call in calls}
    parts: list[Child] = []
    for record in records:
        call = by_span.get(record.span_id)
        pairs: list[tuple[str, str]] = [
            ("span id", record.span_id),
            ("operation", record.operation or ""),
            ("status", record.status),
            ("received", figures.full_moment(at(record.received_ns))),
            ("dialect", record.dialect or ""),
            ("scope", record.scope or ""),
            ("service", record.service or ""),
            ("process", record.process_id or ""),
            ("credentials scrubbed", str(record.redactions) if record.redactions else ""),
            ("cut", record.cut or ""),
            ("links", record.links or ""),
            ("request parameters", readable(call.request_params) if call and call.request_params else ""),
        ]
        rows = [pair for pair in pairs if pair[1]]
        rows += sorted(record.attributes.items())
        rows += [(f"resource {name}", value) for name, value in sorted(record.resource.items())]
        parts.append(_table(record.name, record.kind, rows, record.span_id))
    if not records:
        parts.append(notice("No span of this turn is in the store."))
    parts.append(node("h3", f"Events \u00b7 {len(events)}", cls="spaced"))
    if not events:
        parts.append(notice("No span of this run carries an event."))
    for place, event in enumerate(events):
        rows = [
            ("at", figures.full_moment(at(event.at_ns))),
            ("span id", event.span_id),
            *sorted(event.attributes.items()),
        ]
        parts.append(_table(event.name, "event", rows, f"event{place}"))
    return node("div", *parts, cls="tree stack")


def _table(title: str, kind: str, rows: Sequence[tuple[str, str]], key: str) -> Node:
    return node(
        "div",
        node("div", node("b", title, cls="mono"), badge(kind), cls="head"),
        node(
            "table",
            node("tbody", *(node("tr", node("td", name), node("td", value, cls="mono")) for name, value in rows)),
            cls="kv",
        ),
        cls="block",
        key=key,
    )

"""The list of runs as a node tree."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from loopscope_dashboards import figures
from loopscope_dashboards.panels.blocks import readable
from loopscope_dashboards.panels.nodes import OUTCOME_TONES, Child, Node, node, outcome_badge, to_run
from loopscope_dashboards.queries.runs import RunRow
from loopscope_dashboards.text import one_line
from loopscope_dashboards.when import at

_HEADS = (
    ("started", "Started (UTC)", ""),
    ("agent", "Agent", ""),
    ("version", "Version", ""),
    ("outcome", "Outcome", ""),
    ("duration", "Duration", "num"),
    ("turns", "Turns", "num"),
    ("calls", "Calls", "num"),
    ("tools", "Tools", "num"),
    ("errors", "Errors", "num"),
    ("tokens", "Tokens", "num"),
    ("cost", "Cost", "num"),
    ("input", "Input", ""),
)


def runs_table(rows: Sequence[RunRow], now: datetime, found: Mapping[str, tuple[str, str]] | None = None) -> Node:
    """Newest first, as given. `found` has, by trace, (source, text) of where a searched text stands."""
    head = [node("th", label, cls=f"c-{name} {extra}".strip()) for name, label, extra in _HEADS]
    head[-1] = node("th", "Found in" if found is not None else "Input", cls="c-input")
    head[6] = node("th", "Calls", cls="c-calls num", title="LLM calls")
    head[7] = node("th", "Tools", cls="c-tools num", title="Tool calls")
    head[9] = node("th", "Tokens", cls="c-tokens num", title="Input tokens (cache included) and output tokens")
    return node(
        "div",
        node(
            "table",
            node("thead", node("tr", *head)),
            node("tbody", *(_row(row, now, found) for row in rows)),
            cls="runs",
        ),
        cls="frame tree",
    )


def _row(row: RunRow, now: datetime, found: Mapping[str, tuple[str, str]] | None) -> Node:
    tone = OUTCOME_TONES.get(row.outcome, "")
    duration = row.duration_ms
    if duration is None:
        end = at(row.last_event_ns) if row.outcome != "running" else now
        duration = max(0.0, (end - at(row.started_ns)).total_seconds() * 1000)
    tokens = (
        None
        if row.input_tokens is None and row.output_tokens is None
        else (row.input_tokens or 0) + (row.output_tokens or 0)
    )
    cost = figures.cost(row.cost_usd, row.cost_unknown_calls, row.llm_calls)
    preview = one_line(readable(row.input), 200)
    full = one_line(readable(row.input), 600)
    if found is not None and row.trace_id in found:
        source, text = found[row.trace_id]
        preview, full = one_line(f"{source.replace('_', ' ')}: {text}", 240), one_line(text, 600)
    go = to_run(row.run_id)
    unsettled = "" if row.duration_ms is not None else "\u2026"
    return node(
        "tr",
        _cell(
            "started",
            node("a", figures.moment(at(row.started_ns), now), go=go),
            title=figures.full_moment(at(row.started_ns)),
        ),
        _cell(
            "agent",
            node("span", row.agent or "unnamed agent", cls="" if row.agent else "quiet"),
            node("span", " \u21b3 sub-agent", cls="quiet") if row.parent_run_id else None,
            title=row.agent or "",
        ),
        _cell("version", node("span", row.agent_version or figures.NONE, cls="quiet"), title=row.agent_version or ""),
        _cell("outcome", outcome_badge(row.outcome), title=row.error_type or ""),
        _cell("duration", figures.duration(duration) + unsettled, number=True),
        _cell("turns", figures.count(row.turns), number=True),
        _cell("calls", figures.count(row.llm_calls), number=True),
        _cell("tools", figures.count(row.tool_calls), number=True),
        _cell(
            "errors",
            node("span", figures.count(row.errors), cls="bad") if row.errors else node("span", "0", cls="quiet"),
            number=True,
        ),
        _cell("tokens", figures.short_count(tokens) if row.llm_calls else figures.NONE, number=True),
        _cell(
            "cost",
            node("span", _short_cost(row), cls="quiet" if cost == figures.UNKNOWN else ""),
            number=True,
            title=cost,
        ),
        _cell("input", preview, title=full),
        cls=f"click is-{tone}" if tone in ("bad", "warn", "live") else "click",
        key=row.run_id,
        go=go,
    )


def _short_cost(row: RunRow) -> str:
    text = figures.cost(row.cost_usd, row.cost_unknown_calls, row.llm_calls)
    return f"{figures.money(row.cost_usd)} + ?" if " + " in text else text


def _cell(name: str, *children: Child, number: bool = False, title: str = "") -> Node:
    return node("td", *children, cls=f"c-{name}{' num' if number else ''}", title=title)

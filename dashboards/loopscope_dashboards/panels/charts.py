"""Plotly figures: runs over time, and how a run's context grows. Pure; labels go through `plotly_label`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from loopscope_dashboards import figures
from loopscope_dashboards.panels.timeline import Timeline
from loopscope_dashboards.queries.runs import OUTCOMES, Bucket

OUTCOME_COLOURS: Final = {
    "completed": "#2fa585",
    "running": "#4a86e8",
    "partial": "#e3b04b",
    "limit": "#d9801f",
    "escalated": "#8f7ae5",
    "failed": "#e05563",
    "crashed": "#a3293b",
}
_COST: Final = "#8a8f98"
_GRID: Final = "rgba(128,134,145,0.18)"
_SMALL: Final = {"size": 11}


def _layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 4, "r": 4, "t": 26, "b": 4},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": _SMALL,
            "traceorder": "normal",
        },
        "hovermode": "x unified",
        "bargap": 0.18,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    } | more


def _axis(**more: Any) -> dict[str, Any]:
    return {"automargin": True, "fixedrange": True, "zeroline": False, "gridcolor": _GRID, "tickfont": _SMALL} | more


def runs_over_time(buckets: Sequence[Bucket], step_seconds: int, first: Any, last: Any) -> dict[str, Any]:
    """Runs by outcome, stacked, and their cost on an axis of its own. Unknown costs are named, never drawn as 0."""
    width = step_seconds * 1000
    middle = timedelta(seconds=step_seconds / 2)
    data: list[dict[str, Any]] = []
    present = {bucket.outcome for bucket in buckets}
    known = [outcome for outcome in reversed(OUTCOMES) if outcome in present]
    for outcome in sorted(known, key=lambda name: list(OUTCOME_COLOURS).index(name)):
        mine = [bucket for bucket in buckets if bucket.outcome == outcome]
        data.append(
            {
                "type": "bar",
                "name": outcome,
                "x": [bucket.start + middle for bucket in mine],
                "y": [bucket.runs for bucket in mine],
                "width": width * 0.86,
                "marker": {"color": OUTCOME_COLOURS[outcome], "line": {"width": 0}},
                "hovertemplate": "%{y:,}",
            }
        )
    sums: dict[Any, list[Any]] = {}
    for bucket in buckets:
        entry = sums.setdefault(bucket.start, [None, 0])
        if bucket.cost_usd is not None:
            entry[0] = (entry[0] or 0) + bucket.cost_usd
        entry[1] += bucket.cost_unknown_calls
    if any(entry[0] is not None for entry in sums.values()):
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "cost",
                "x": [start + middle for start in sums],
                "y": [None if entry[0] is None else float(entry[0]) for entry in sums.values()],
                "customdata": [
                    figures.UNKNOWN
                    if entry[0] is None
                    else figures.money(entry[0]) + (f", {entry[1]} calls unknown" if entry[1] else "")
                    for entry in sums.values()
                ],
                "yaxis": "y2",
                "line": {"color": _COST, "width": 1.5, "shape": "linear"},
                "marker": {"size": 4, "color": _COST},
                "hovertemplate": "%{customdata}",
            }
        )
    return {
        "data": data,
        "layout": _layout(
            170,
            barmode="stack",
            xaxis=_axis(type="date", range=[first, last], showgrid=False),
            yaxis=_axis(rangemode="tozero", tickformat=",d", nticks=4, title={"text": "runs", "font": _SMALL}),
            yaxis2=_axis(
                overlaying="y", side="right", rangemode="tozero", showgrid=False, tickprefix="$", nticks=4,
                title={"text": "cost", "font": _SMALL},
            ),
        ),
    }  # fmt: skip


_PARTS: Final = (
    ("read from cache", "#9fb4e8", "cache_read_tokens"),
    ("written to cache", "#6f8fdc", "cache_write_tokens"),
)


def context_growth(timeline: Timeline) -> dict[str, Any]:
    """Input tokens of each turn by kind, its output, and the model's window where it is known and near."""
    turns = [(number, timeline.turns[number][-1]) for number in timeline.numbers]
    counted = [(number, span) for number, span in turns if span.input_tokens is not None]
    numbers = [number for number, _ in counted]
    fresh = [
        max(0, (span.input_tokens or 0) - (span.cache_read_tokens or 0) - (span.cache_write_tokens or 0))
        for _, span in counted
    ]
    data: list[dict[str, Any]] = []
    for label, colour, column in _PARTS:
        values = [getattr(span, column) or 0 for _, span in counted]
        if any(values):
            data.append(_bar(label, colour, numbers, values))
    data.append(_bar("fresh input", "#4a5fc8", numbers, fresh))
    data.append(_bar("output", "#2fa585", numbers, [span.output_tokens or 0 for _, span in counted]))
    top = max([(span.input_tokens or 0) + (span.output_tokens or 0) for _, span in counted], default=0)
    windows = [span.context_window for _, span in counted if span.context_window]
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    if windows:
        window = max(windows)
        # A window of 200,000 over turns of 2,000 would flatten the chart; then its size stands in words above it.
        for share, label in ((0.8, "80 % of the window"), (1.0, f"window {figures.short_count(window)}")):
            if top >= window * 0.25:
                level = window * share
                shapes.append(
                    {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level,
                     "line": {"color": "#d9801f" if share < 1 else "#e05563", "width": 1, "dash": "dot"}}
                )  # fmt: skip
                notes.append(
                    {"xref": "paper", "x": 1, "xanchor": "right", "y": level, "yanchor": "bottom", "text": label,
                     "showarrow": False, "font": _SMALL}
                )  # fmt: skip
    return {
        "data": data,
        "layout": _layout(
            320,
            barmode="stack",
            shapes=shapes,
            annotations=notes,
            xaxis=_axis(title={"text": "turn", "font": _SMALL}, showgrid=False, tickformat="d", nticks=24),
            yaxis=_axis(rangemode="tozero", title={"text": "tokens", "font": _SMALL}, separatethousands=True),
        ),
    }


def _bar(label: str, colour: str, x: Sequence[int], y: Sequence[int]) -> dict[str, Any]:
    return {
        "type": "bar", "name": label, "x": list(x), "y": list(y), "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": "%{y:,} tokens",
    }  # fmt: skip

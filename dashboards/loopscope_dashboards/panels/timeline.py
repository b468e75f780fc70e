"""The timeline of a run: its spans as a tree with bars, turns numbered, unfinished ones hatched. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from loopscope_dashboards import figures
from loopscope_dashboards.panels.nodes import Child, Node, badge, node, notice, to_run
from loopscope_dashboards.queries.run import Run, Span
from loopscope_dashboards.when import at

WINDOW_ROWS: Final = 300
"""Rows drawn at once; a browser lays out 300 rows of eight cells in some 40 ms."""
MAX_DEPTH: Final = 12
_MARKED_KINDS: Final = frozenset({"step", "limit", "batch", "count"})
"""Spans that are neither call, tool nor run, and whose name alone may not say what they are."""


@dataclass(slots=True)
class Line:
    """A span at its place in the tree."""

    span: Span
    depth: int
    turn: int | None
    """Turn of this run; None for other spans and those of sub-agents."""


@dataclass(slots=True)
class Timeline:
    """A run's spans in reading order, and its turns."""

    lines: list[Line] = field(default_factory=list[Line])
    turns: dict[int, list[Span]] = field(default_factory=dict[int, list[Span]])
    """LLM calls of each turn of this run, by number."""
    tools: dict[int, list[Span]] = field(default_factory=dict[int, list[Span]])

    @property
    def numbers(self) -> list[int]:
        """Turn numbers in order."""
        return sorted(self.turns)


def arrange(run: Run, spans: Sequence[Span]) -> Timeline:
    """The tree of a run and its sub-agents out of the spans of its trace. Survives missing parents and cycles."""
    family = _family(run.run_id, spans)
    mine = [span for span in spans if span.run_id in family]
    known = {span.span_id for span in mine}
    children: dict[str, list[Span]] = defaultdict(list)
    roots: list[Span] = []
    for span in mine:
        parent = span.parent_span_id
        if parent and parent in known and parent != span.span_id:
            children[parent].append(span)
        else:
            roots.append(span)
    timeline = Timeline()
    # Of a run that is only another recording, all spans are duplicates: they are its turns all the same.
    counted = mine if run.duplicate_of else [span for span in mine if not span.duplicate_of]
    numbers = _number_turns(run.run_id, counted, timeline)
    seen: set[str] = set()
    _walk(roots, children, seen, numbers, timeline)
    # What is left hangs in a cycle of parents.
    _walk([span for span in mine if span.span_id not in seen], children, seen, numbers, timeline)
    return timeline


def _walk(
    starts: Sequence[Span],
    children: dict[str, list[Span]],
    seen: set[str],
    numbers: dict[str, int],
    timeline: Timeline,
) -> None:
    stack = [(span, 0) for span in reversed(starts)]
    while stack:
        span, depth = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        timeline.lines.append(Line(span, min(depth, MAX_DEPTH), numbers.get(span.span_id)))
        stack.extend((child, depth + 1) for child in reversed(children.get(span.span_id, [])))


def _family(run_id: str, spans: Sequence[Span]) -> set[str | None]:
    """The run and its sub-agents' runs: those with a span below, over any number of steps, one of its spans."""
    run_of = {span.span_id: span.run_id for span in spans}
    parents: dict[str, set[str]] = defaultdict(set)
    for span in spans:
        above = run_of.get(span.parent_span_id or "")
        if above and span.run_id and above != span.run_id:
            parents[above].add(span.run_id)
    family: set[str | None] = {run_id}
    waiting = [run_id]
    while waiting:
        for child in parents[waiting.pop()]:
            if child not in family:
                family.add(child)
                waiting.append(child)
    return family


def _number_turns(run_id: str, spans: Sequence[Span], timeline: Timeline) -> dict[str, int]:
    """A turn that was not recorded is counted, as the view `turns` does."""
    numbers: dict[str, int] = {}
    calls = 0
    for span in spans:
        if span.run_id != run_id:
            continue
        if span.kind == "llm":
            calls += 1
            number = span.turn if span.turn is not None else calls
            timeline.turns.setdefault(number, []).append(span)
            numbers[span.span_id] = number
        elif span.kind == "tool":
            number = span.turn if span.turn is not None else max(1, calls)
            timeline.tools.setdefault(number, []).append(span)
            numbers[span.span_id] = number
    return numbers


def window_of(timeline: Timeline, turn: int | None, start: int | None) -> int:
    """First row of the window that is drawn: as asked for, else around the selected turn."""
    total = len(timeline.lines)
    if total <= WINDOW_ROWS:
        return 0
    if start is None:
        place = next((i for i, line in enumerate(timeline.lines) if line.turn == turn and line.span.kind == "llm"), 0)
        start = place - WINDOW_ROWS // 4
    return max(0, min(start, total - WINDOW_ROWS))


_HEADS: Final = (
    ("turn", "Turn", ""),
    ("name", "Span", ""),
    ("bar", "", ""),
    ("duration", "Duration", "num"),
    ("in", "Context", "num"),
    ("out", "Output", "num"),
    ("cost", "Cost", "num"),
    ("note", "Ended by", ""),
)


def draw_timeline(run: Run, timeline: Timeline, turn: int | None, start: int, now_ns: int, tab: str = "") -> Node:
    """The table. `start` is the first row drawn (see `window_of`)."""
    lines = timeline.lines
    if not lines:
        return node(
            "div",
            node(
                "h2",
                "No span of this run has arrived yet" if run.live else "The spans of this run are not in the store",
            ),
            node("p", "This page updates by itself." if run.live else "Their retention may have ended."),
            cls="tree empty",
        )
    begin = min(line.span.started_ns for line in lines)
    last = (
        now_ns if run.live else max(run.last_event_ns, *(line.span.ended_ns or line.span.started_ns for line in lines))
    )
    end = max([last, begin + 1, *(line.span.ended_ns or 0 for line in lines)])
    if not run.live and any(line.span.ended_ns is None for line in lines):
        # What never ended needs some room after the last sign of life, or it would be a hairline.
        end += (end - begin) // 25
    shown = lines[start : start + WINDOW_ROWS]
    more = {"tab": tab} if tab else {}
    selected_drawn = False
    rows: list[Node] = []
    for line in shown:
        here = line.turn is not None and line.turn == turn
        rows.append(_row(run, line, begin, end, here, here and not selected_drawn))
        selected_drawn = selected_drawn or here
    axis = node(
        "span",
        node("span", "0"),
        node("span", figures.duration((end - begin) / 2e6)),
        node("span", figures.duration((end - begin) / 1e6)),
        cls="axis",
    )
    heads = [
        node("th", axis if name == "bar" else label, cls=f"c-{name} {extra}".strip()) for name, label, extra in _HEADS
    ]
    table = node("table", node("thead", node("tr", *heads)), node("tbody", *rows), cls="spans")
    return node(
        "div",
        node("div", node("div", table, cls="scroll timeline"), cls="frame"),
        _pager(run, len(lines), start, turn, more),
        cls="tree stack",
    )


def _row(run: Run, line: Line, begin: int, end: int, here: bool, scroll_to: bool) -> Node:
    span = line.span
    llm = span.kind == "llm"
    own = span.run_id == run.run_id
    width = end - begin
    left = (span.started_ns - begin) / width
    finish = span.ended_ns if span.ended_ns is not None else end
    unfinished = span.ended_ns is None
    failed = span.status == "error"
    go = to_run(run.run_id, line.turn) if line.turn is not None else None
    if go is None and not own and span.run_id:
        go = to_run(span.run_id, span.turn)
    open_word = "running" if run.live else "unfinished"
    duration = figures.duration((span.ended_ns - span.started_ns) / 1e6) if span.ended_ns is not None else open_word
    note = ("error: " + (span.error_type or "")).strip(": ") if failed else (span.stop_reason or "" if llm else "")
    bar = ["bar", span.kind, "error" if failed else "", "open" if unfinished else ""]
    marks = [
        badge("duplicate", "quiet") if span.duplicate_of else None,
        badge("inferred", "quiet") if span.inferred and span.kind in ("tool", "run") else None,
        badge(span.kind, "quiet") if span.kind in _MARKED_KINDS else None,
    ]
    tip = "\n".join(
        text
        for text in (
            _name(span),
            f"start {figures.full_moment(at(span.started_ns))}, +{figures.duration((span.started_ns - begin) / 1e6)}",
            f"duration {duration}",
            f"model {span.model}" if span.model else "",
            f"recorded by another instrumentation as well: span {span.duplicate_of} counts"
            if span.duplicate_of
            else "",
            "read from the message history" if span.inferred and span.kind == "tool" else "",
            span.status_message or "",
        )
        if text
    )
    return node(
        "tr",
        node("td", str(line.turn) if line.turn is not None and llm else "", cls="c-turn"),
        node(
            "td",
            node("span", node("span", cls=f"dot {span.kind}"), _name(span), *marks, cls="name", indent=line.depth),
            cls="c-name",
            title=tip,
        ),
        node(
            "td",
            node(
                "div",
                node("div", cls=" ".join(filter(None, bar)), bar=(left, max(0.0, (finish - span.started_ns) / width))),
                cls="track",
            ),
            cls="c-bar",
            title=tip,
        ),
        node("td", node("span", duration, cls="warn" if unfinished and not run.live else ""), cls="c-duration num"),
        node("td", _tokens(span.input_tokens, span, unfinished), cls="c-in num"),
        node("td", _tokens(span.output_tokens, span, unfinished), cls="c-out num"),
        node("td", _cost(span, unfinished), cls="c-cost num"),
        node("td", note, cls="c-note bad" if failed else "c-note", title=span.status_message or ""),
        cls=" ".join(filter(None, ("turn" if llm and own else "", "selected" if here else "", "click" if go else ""))),
        key=span.span_id,
        go=go,
        scroll_to=scroll_to,
    )


def _name(span: Span) -> str:
    if span.kind == "llm":
        return span.model or span.name
    if span.kind == "tool":
        return span.tool or span.name
    if span.kind == "run":
        return span.agent or span.name
    return span.name


def _tokens(value: int | None, span: Span, unfinished: bool) -> Child:
    if span.kind != "llm" or unfinished:
        return None
    return node("span", "?", cls="quiet", title="unknown") if value is None else figures.short_count(value)


def _cost(span: Span, unfinished: bool) -> Child:
    if span.kind != "llm" or unfinished:
        return None
    return node("span", figures.UNKNOWN, cls="quiet") if span.cost_usd is None else figures.money(span.cost_usd)


def _pager(run: Run, total: int, start: int, turn: int | None, more: dict[str, str]) -> Child:
    if total <= WINDOW_ROWS:
        return None
    stop = min(total, start + WINDOW_ROWS)

    def link(label: str, to: int, possible: bool) -> Node:
        target = to_run(run.run_id, turn, **more, spans=str(max(0, to)))
        return node("a", label, go=target) if possible else node("span", label, cls="off")

    return notice(
        f"Spans {start + 1:,}\u2013{stop:,} of {total:,}",
        node(
            "span",
            link("First", 0, start > 0),
            link("Previous", start - WINDOW_ROWS, start > 0),
            link("Next", start + WINDOW_ROWS, stop < total),
            link("Last", total - WINDOW_ROWS, stop < total),
            cls="pager",
        ),
    )

"""The *Run* page: one run in full, `?run=...&turn=...`, live while it runs."""

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from loopscope_dashboards import plain
from loopscope_dashboards.address import AddressError, number_in_address, run_in_address, turn_in_address
from loopscope_dashboards.panels.charts import context_growth
from loopscope_dashboards.panels.nodes import Child, node, notice, to_runs
from loopscope_dashboards.panels.prompts import draw_prompts
from loopscope_dashboards.panels.record import draw_record
from loopscope_dashboards.panels.run_header import draw_figures, draw_header, missing_run
from loopscope_dashboards.panels.timeline import Timeline, arrange, draw_timeline, window_of
from loopscope_dashboards.panels.turn import (
    HISTORY_MESSAGES,
    answered_by,
    compare,
    draw_answer,
    draw_heading,
    draw_history_pager,
    draw_seen,
    draw_tools,
    wanted_blocks,
)
from loopscope_dashboards.queries.run import Run, Span, events_of, get_run, prompt_uses, prompts_of, spans_of
from loopscope_dashboards.queries.turn import (
    Call,
    Text,
    Where,
    calls_of,
    full_text,
    full_tool_call,
    records_of,
    request_of,
    response_of,
    texts_of,
    tools_of,
)
from loopscope_dashboards.text import CUT_CHARS
from loopscope_dashboards.trouble import say, trouble_shown
from loopscope_dashboards.when import nanoseconds, now
from loopscope_schemas.content import Json, MissingContentError, dump
from loopscope_schemas.recall import CallNotFoundError

LIVE_SECONDS: Final = 1.0
RECORD_SPANS: Final = 60
"""Spans whose whole record is shown at once."""
TABS: Final = ("Turn", "Context", "Prompts", "Record")


def _chosen_turn(run: Run, timeline: Timeline) -> int | None:
    """The turn of the address, else one that stays chosen while the run goes on."""
    asked = turn_in_address()
    numbers = timeline.numbers
    if asked is not None:
        if asked in timeline.turns:
            return asked
        if not numbers:
            raise AddressError(f"The address asks for turn {asked}; this run has no recorded turn yet.")
        raise AddressError(f"The address asks for turn {asked}; this run has the turns {numbers[0]} to {numbers[-1]}.")
    if not numbers:
        return None
    kept = st.session_state.get("first_turn")
    if kept and kept[0] == run.run_id and kept[1] in timeline.turns:
        return kept[1]
    # Who opens a run that went wrong, or still runs, wants its end; else it is read from the beginning.
    first = numbers[-1] if run.outcome in ("running", "failed", "crashed", "limit") else numbers[0]
    st.session_state["first_turn"] = (run.run_id, first)
    return first


def page_of(run_id: str) -> None:
    """Everything about a run."""
    run = get_run(run_id)
    if run is None:
        plain.draw(missing_run(run_id), key="run_missing")
        return
    if not run.live and st.session_state.get("live_run") == run_id:
        # It has just ended: the whole page again, so that nothing asks for it every second any more.
        del st.session_state["live_run"]
        st.rerun()
    moment = now()
    plain.draw(draw_header(run, moment, st.session_state.get("runs_address", {})), key="run_header")
    plain.draw(draw_figures(run, moment), key="run_figures")
    spans = spans_of(run)
    timeline = arrange(run, spans)
    try:
        turn = _chosen_turn(run, timeline)
        start = window_of(timeline, turn, number_in_address("spans", "The address asks for spans that cannot be."))
        problem = ""
    except AddressError as error:
        turn, start, problem = None, 0, str(error)
    plain.draw(
        draw_timeline(run, timeline, turn, start, nanoseconds(moment), st.query_params.get("tab", "")),
        key="run_timeline",
    )
    if problem:
        say("There is no such turn", problem, key="turn")
        return
    bar = st.container(horizontal=True, vertical_alignment="center", gap="medium", key="turn_bar")
    tab = bar.segmented_control(
        "Show",
        TABS,
        default="Turn",
        required=True,
        key="tab",
        bind="query-params",
        label_visibility="collapsed",
    )
    if tab == "Context":
        _context(timeline)
    elif turn is None:
        if tab != "Record":
            return
        _record(run, timeline, None)
    elif tab == "Prompts":
        _prompt(run, timeline, turn)
    elif tab == "Record":
        _record(run, timeline, turn)
    else:
        history = bar.toggle("Whole history", key="history", bind="query-params")
        try:
            _turn(run, timeline, turn, history=history)
        except AddressError as error:
            say("There is no such page", str(error), key="history")


def _calls(timeline: Timeline, turn: int) -> tuple[list[Call], Call | None]:
    """The calls of a turn, and the last one before them."""
    mine = timeline.turns[turn]
    earlier = [number for number in timeline.numbers if number < turn]
    before = timeline.turns[earlier[-1]][-1:] if earlier else []
    found = calls_of(_where([*before, *mine]))
    by_id = {call.span_id: call for call in found}
    return (
        [by_id[span.span_id] for span in mine if span.span_id in by_id],
        by_id.get(before[0].span_id) if before else None,
    )


def _where(spans: Sequence[Span]) -> Where:
    """Where spans lie in the store, with an hour to spare. Equal spans make an equal question, whatever runs on."""
    hour = 3_600_000_000_000
    return Where(
        tuple(span.span_id for span in spans),
        tuple(sorted({span.trace_id for span in spans})),
        min((span.started_ns for span in spans), default=0) - hour,
        max((span.started_ns for span in spans), default=0) + hour,
    )


def _turn(run: Run, timeline: Timeline, turn: int, *, history: bool) -> None:
    calls, before = _calls(timeline, turn)
    tool_spans = timeline.tools.get(turn, [])
    tools = tools_of(_where(tool_spans))
    numbers = timeline.numbers
    newest = numbers[-1] if run.live else None
    parts: list[Child] = [
        draw_heading(run.run_id, turn, numbers, calls, newest=newest, more={"history": "true"} if history else {})
    ]
    cut: list[tuple[str, Callable[[], str]]] = []
    before_number = max((number for number in numbers if number < turn), default=None)
    pages = 0
    for call in calls:
        seen = compare(call, before)
        history_from: int | None = None
        if history:
            pages = max(pages, -(-len(seen.outline.messages) // HISTORY_MESSAGES))
            history_from = _history_page(pages) * HISTORY_MESSAGES
        needed = [
            call.input_hashes[block.place]
            for block in wanted_blocks(seen, history_from)
            if block.place < len(call.input_hashes)
        ]
        texts = texts_of(call.trace_id, tuple(dict.fromkeys([*needed, *call.output_hashes])))
        answered = answered_by(before)
        left: list[Child] = [
            draw_history_pager(run.run_id, turn, pages, history_from) if history_from is not None else None,
            draw_seen(call, seen, texts, answered, before_number=before_number, history_from=history_from),
        ]
        right: list[Child] = [draw_answer(call, texts)]
        if call is calls[-1]:
            right.append(draw_tools(tools))
        parts.append(node("div", node("div", *left), node("div", *right), cls="columns"))
        cut.extend(_cut_texts(call.trace_id, texts))
        before, before_number = call, turn
    if not calls:
        parts.append(notice("This call is not in the store yet."))
    plain.draw(node("div", *parts, cls="tree stack"), key="run_turn")
    for tool in tools:
        if tool.arguments_chars > CUT_CHARS or tool.result_chars > CUT_CHARS:
            cut.append((f"Tool call {tool.span_id}", _tool_reader(tool.span_id, _where(tool_spans))))
    _downloads(calls, cut)


def _history_page(pages: int) -> int:
    """The page of the history that the address asks for; the last one, where the new messages are, without."""
    asked = number_in_address("page", "The address asks for a page of the history that cannot be.")
    return max(0, min(asked or pages, pages) - 1)


def _tool_reader(span_id: str, where: Where) -> Callable[[], str]:
    def read() -> str:
        arguments, result = full_tool_call(span_id, where)
        return f'{{"arguments":{arguments or "null"},"result":{result or "null"}}}'

    return read


def _cut_texts(trace_id: str, texts: dict[str, Text]) -> list[tuple[str, Callable[[], str]]]:
    def reader(hash_: str) -> Callable[[], str]:
        return lambda: full_text(trace_id, hash_)

    return [
        (f"Text {hash_[:12]} ({text.chars:,} characters)", reader(hash_))
        for hash_, text in texts.items()
        if text.chars > len(text.body)
    ]


def _downloads(calls: list[Call], cut: list[tuple[str, Callable[[], str]]]) -> None:
    with st.container(horizontal=True, gap="small", key="downloads"):
        for place, call in enumerate(calls):
            suffix = f" {place + 1}" if len(calls) > 1 else ""
            _download(
                f"Request as JSON{suffix}",
                _json(request_of, call),
                f"request-{call.span_id}.json",
                "application/json",
                disabled=not call.input_shape,
            )
            _download(
                f"Answer as JSON{suffix}",
                _json(response_of, call),
                f"answer-{call.span_id}.json",
                "application/json",
                disabled=not call.output_shape,
            )
        for label, read in cut:
            name = "".join(letter if letter.isalnum() else "-" for letter in label.partition(" (")[0].lower())
            _download(label, _bytes(read), f"{name}.txt", "text/plain", disabled=False)


def _download(label: str, read: Callable[[], bytes], name: str, mime: str, *, disabled: bool) -> None:
    # Read when the reader asks: a request may be 10 MB and is not fetched for a page that only shows its beginning.
    st.download_button(
        label,
        read,
        file_name=name,
        mime=mime,
        key=f"download_{name}",
        on_click="ignore",
        icon=":material/download:",
        disabled=disabled,
    )


def _json(fetch: Callable[[str, str], Json], call: Call) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return dump(fetch(call.span_id, call.trace_id)).encode("utf-8")
        except (MissingContentError, CallNotFoundError) as error:
            return f"This document cannot be rebuilt: {error}\n".encode("utf-8", "replace")

    return read


def _bytes(read: Callable[[], str]) -> Callable[[], bytes]:
    def read_bytes() -> bytes:
        try:
            return read().encode("utf-8", "surrogatepass")
        except LookupError as error:
            return f"This text cannot be had: {error}\n".encode("utf-8", "replace")

    return read_bytes


def _context(timeline: Timeline) -> None:
    counted = any(span.input_tokens is not None for spans in timeline.turns.values() for span in spans)
    if not counted:
        say("No token counts", "No call of this run has reported its tokens.", key="context")
        return
    st.plotly_chart(
        context_growth(timeline),
        key="context_growth",
        config={"displayModeBar": False},
        alt="Tokens of each turn by kind",
    )


def _prompt(run: Run, timeline: Timeline, turn: int) -> None:
    uses = prompt_uses(run)
    calls, _ = _calls(timeline, turn)
    hashes = tuple(sorted({hash_ for use in uses for hash_ in (use.system_hash, use.tools_hash) if hash_}))
    prompts = prompts_of(hashes, CUT_CHARS)
    plain.draw(draw_prompts(uses, prompts, calls[-1] if calls else None), key="run_prompts")


def _record(run: Run, timeline: Timeline, turn: int | None) -> None:
    spans = [*timeline.turns.get(turn or 0, []), *timeline.tools.get(turn or 0, [])]
    roots = [line.span for line in timeline.lines if line.span.kind == "run" and line.span.run_id == run.run_id]
    calls = _calls(timeline, turn)[0] if turn is not None else []
    records = records_of(_where([*roots, *spans][:RECORD_SPANS]))
    plain.draw(draw_record(records, events_of(run.run_id), calls), key="run_record")
    _downloads(calls, [])


@st.fragment(run_every=LIVE_SECONDS)
def live(run_id: str) -> None:
    """A run that is under way, asked for again and again."""
    with trouble_shown("run"):
        page_of(run_id)


@st.fragment
def settled(run_id: str) -> None:
    """A run that has ended."""
    with trouble_shown("run"):
        page_of(run_id)


def render() -> None:
    """The page."""
    with trouble_shown("page"):
        try:
            run_id = run_in_address()
        except AddressError as error:
            say("There is no such run", str(error), node("p", node("a", "All runs", go=to_runs())), key="address")
            return
        if run_id is None:
            say("No run is chosen", node("p", node("a", "All runs", go=to_runs())), key="address")
            return
        run = get_run(run_id)
        if run is None or run.live:
            st.session_state["live_run"] = run_id if run else None
            live(run_id)
        else:
            settled(run_id)


render()

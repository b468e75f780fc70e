"""The *Runs* page: filters, key figures, a chart over time, and the list, newest first, live."""

from datetime import UTC, datetime, timedelta
from typing import Final

import streamlit as st

from loopscope_dashboards import figures, plain
from loopscope_dashboards.panels.charts import runs_over_time
from loopscope_dashboards.panels.nodes import Child, node, notice, tiles, to_runs
from loopscope_dashboards.panels.runs_table import runs_table
from loopscope_dashboards.queries.runs import (
    OUTCOMES,
    PAGE_RUNS,
    RunFilter,
    choices,
    list_runs,
    over_time,
    prompts_with,
    snippets,
    step_seconds,
    totals,
)
from loopscope_dashboards.trouble import trouble_shown
from loopscope_dashboards.when import at, nanoseconds, now

RANGES: Final = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "all": None,
    "custom": None,
}
"""Also what stands in the address; with labels of their own, the labels would stand there."""
DEFAULT_RANGE: Final = "24h"
LIST_SECONDS: Final = 1.0
"""The list is asked again this often: a new run must be there 2 s after its start, recording included."""
CHART_SECONDS: Final = 5.0
AHEAD: Final = timedelta(days=2)
"""Clocks of agents may be ahead; their runs must not be missing."""


def filters() -> RunFilter:
    """The filter widgets, bound to the address."""
    known = choices()
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="filters"):
        text = st.text_input(
            "Search", key="q", bind="query-params", type="search", placeholder="Words, ids, any text that was recorded",
            max_chars=500, width=320,
        )  # fmt: skip
        chosen = st.selectbox(
            "Time", list(RANGES), index=list(RANGES).index(DEFAULT_RANGE), key="range",
            bind="query-params", width=160,
        )  # fmt: skip
        agents = _many("Agent", list(known.agents), "agent")
        outcomes = st.multiselect("Outcome", OUTCOMES, key="outcome", bind="query-params", width=172, placeholder="Any")
        environments = _many("Environment", list(known.environments), "env")
        versions = _many("Version", list(known.versions), "version")
    moment = now()
    since, until = moment - (RANGES[chosen] or timedelta(0)), moment + AHEAD
    if chosen == "all":
        since = datetime(1971, 1, 1, tzinfo=UTC)
    elif chosen == "custom":
        since, until = _custom(moment)
    return RunFilter(
        _rounded(since),
        _rounded(until),
        tuple(agents),
        tuple(outcomes),
        tuple(environments),
        tuple(versions),
        (text or "").strip(),
    )


def _many(label: str, options: list[str], key: str) -> list[str]:
    # A shared address may name what has not run lately: without new values the filter would be dropped silently.
    return st.multiselect(
        label, options, key=key, bind="query-params", width=172, placeholder="Any", accept_new_options=True
    )


def _custom(moment: datetime) -> tuple[datetime, datetime]:
    with st.container(horizontal=True, gap="small"):
        start = st.datetime_input(
            "From (UTC)",
            value=(moment - timedelta(days=1)).replace(tzinfo=None, second=0, microsecond=0),
            key="from",
            bind="query-params",
            width=230,
        )
        end = st.datetime_input(
            "To (UTC)",
            value=(moment + timedelta(days=1)).replace(tzinfo=None, second=0, microsecond=0),
            key="to",
            bind="query-params",
            width=230,
        )
    return start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)


def _rounded(moment: datetime) -> int:
    """Whole seconds, so that a question asked twice in a second is one question to the cache."""
    return nanoseconds(moment.replace(microsecond=0))


def moved(wanted: RunFilter) -> RunFilter:
    """The filter with its time range moved to now; a fragment runs again without the page."""
    name: str = st.session_state.get("range", DEFAULT_RANGE)
    length = RANGES.get(name)
    if length is None:
        return wanted
    moment = now()
    return RunFilter(
        _rounded(moment - length),
        _rounded(moment + AHEAD),
        wanted.agents,
        wanted.outcomes,
        wanted.environments,
        wanted.versions,
        wanted.text,
    )


@st.fragment(run_every=CHART_SECONDS)
def overview(wanted: RunFilter) -> None:
    """Key figures and the chart."""
    with trouble_shown("overview"):
        wanted = moved(wanted)
        found = totals(wanted)
        bad = found.failed + found.crashed
        cost = figures.cost(found.cost_usd, found.cost_unknown_calls, found.llm_calls)
        below = (
            f"+ {figures.count(found.cost_unknown_calls)} calls of unknown cost"
            if found.cost_unknown_calls and found.cost_usd is not None
            else ""
        )
        share = f"{figures.percent(bad / found.runs)} of runs" if found.runs and bad else ""
        plain.draw(
            node(
                "div",
                tiles(
                    [
                        ("Runs", figures.count(found.runs), "", ""),
                        ("Running now", figures.count(found.running), "", "live" if found.running else ""),
                        ("Failed or crashed", figures.count(bad), share, "bad" if bad else ""),
                        ("Cost", cost.split(" + ")[0], below, "quiet" if cost == figures.UNKNOWN else ""),
                        ("Median duration", figures.duration(found.p50_ms), "", ""),
                        ("95th percentile", figures.duration(found.p95_ms), "", ""),
                    ]
                ),
                cls="tree",
            ),
            key="totals",
        )
        if found.runs:
            first, last = _chart_bounds(wanted, found.first_ns, found.last_ns)
            step = step_seconds(first, last)
            figure = runs_over_time(over_time(wanted, step), step, at(first), at(last))
            st.plotly_chart(
                figure,
                key="over_time",
                config={"displayModeBar": False},
                alt="Runs by outcome, and their cost, over time",
            )


def _chart_bounds(wanted: RunFilter, first_ns: int, last_ns: int) -> tuple[int, int]:
    if st.session_state.get("range", DEFAULT_RANGE) in ("all", "custom"):
        pad = max(60_000_000_000, (last_ns - first_ns) // 50)
        return first_ns - pad, last_ns + pad
    return wanted.since_ns, max(nanoseconds(now()), last_ns)


@st.fragment(run_every=LIST_SECONDS)
def newest(wanted: RunFilter) -> None:
    """The first page of the list, asked again and again."""
    with trouble_shown("list"):
        _list(moved(wanted), None)


@st.fragment
def older(wanted: RunFilter, before: tuple[int, str]) -> None:
    """A further page: runs that started before a run do not change places."""
    with trouble_shown("list"):
        _list(wanted, before)


def _list(wanted: RunFilter, before: tuple[int, str] | None) -> None:
    rows = list_runs(wanted, before)
    shown = rows[:PAGE_RUNS]
    found = snippets(tuple(sorted({row.trace_id for row in shown})), wanted.text) if wanted.text and shown else None
    parts: list[Child] = []
    if wanted.text:
        parts.extend(
            notice(
                f"Also in {'a system prompt' if hit.kind == 'system' else 'tool definitions'}: version {hit.hash[:12]}",
                node(
                    "span",
                    f"used by {figures.count(hit.calls)} calls of {figures.count(hit.runs)} runs in this time",
                    cls="quiet",
                ),
            )
            for hit in prompts_with(wanted)
        )
    if shown:
        parts.append(runs_table(shown, now(), found))
    else:
        parts.append(_nothing(wanted, before))
    plain.draw(node("div", *parts, cls="tree stack"), key="runs_table")
    if before or len(rows) > PAGE_RUNS:
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            if st.button("Newest", disabled=before is None, key="newest_page"):
                st.session_state.pop("before", None)
                st.rerun()
            if st.button(
                "Older",
                disabled=len(rows) <= PAGE_RUNS,
                key="older_page",
                icon=":material/arrow_forward:",
                icon_position="right",
            ):
                st.session_state["before"] = (wanted_key(wanted), (shown[-1].started_ns, shown[-1].run_id))
                st.rerun()


def wanted_key(wanted: RunFilter) -> tuple[object, ...]:
    """What a place in the list belongs to: another filter begins at the newest run again."""
    return (
        st.session_state.get("range"),
        wanted.agents,
        wanted.outcomes,
        wanted.environments,
        wanted.versions,
        wanted.text,
    )


def _nothing(wanted: RunFilter, before: tuple[int, str] | None) -> Child:
    if before:
        return node("div", node("h2", "No older runs"), cls="empty")
    filtered = any((wanted.agents, wanted.outcomes, wanted.environments, wanted.versions, wanted.text))
    everything = totals(RunFilter(nanoseconds(datetime(1971, 1, 1, tzinfo=UTC)), _rounded(now() + AHEAD)))
    if everything.runs == 0:
        return node(
            "div",
            node("h2", "No run has been recorded yet"),
            node("p", "Put these two lines into an agent and start it; its run appears here while it is running."),
            node("pre", "import loopscope\nloopscope.configure()", cls="mono centred"),
            cls="empty",
        )
    return node(
        "div",
        node("h2", "No run matches"),
        node("p", "The newest run started ", figures.full_moment(at(everything.last_ns)), "."),
        node("p", node("a", "Show all runs of all time" if filtered else "Show all time", go=to_runs(range="all"))),
        cls="empty",
    )


def render() -> None:
    """The page."""
    with trouble_shown("page"):
        wanted = filters()
        st.session_state["runs_address"] = {name: st.query_params.get_all(name) for name in st.query_params}
        kept = st.session_state.get("before")
        before = kept[1] if kept and kept[0] == wanted_key(wanted) else None
        overview(wanted)
        if before:
            older(wanted, before)
        else:
            newest(wanted)


render()

"""The head of a run's page: who ran, how it ended, what it was asked and answered, and the key figures. Pure."""

from datetime import datetime
from typing import Final

from loopscope_dashboards import figures
from loopscope_dashboards.panels.blocks import readable
from loopscope_dashboards.panels.nodes import (
    Address,
    Child,
    Node,
    badge,
    facts,
    node,
    notice,
    outcome_badge,
    tiles,
    to_run,
    to_runs,
)
from loopscope_dashboards.panels.outline import pretty
from loopscope_dashboards.queries.run import Run
from loopscope_dashboards.when import at
from loopscope_schemas.content import InexactJsonError, parse

LONG_CHARS: Final = 4_000


def draw_header(run: Run, now: datetime, back: Address) -> Node:
    """Title, facts, question and answer. `back` is the list as the reader left it."""
    return node(
        "div",
        node("div", node("a", "\u2190 Runs", go=back), cls="back"),
        node(
            "div",
            node("h1", run.agent or "unnamed agent"),
            outcome_badge(run.outcome),
            badge(f"limit hit: {run.limit_hit}", "warn") if run.limit_hit else None,
            badge(run.error_type, "bad") if run.error_type else None,
            badge("inferred", "quiet") if run.inferred else None,
            badge("duplicate", "warn") if run.duplicate_of else None,
            node("span", cls="grow"),
            node("span", run.run_id, cls="mono quiet", title="Run id"),
            cls="row",
        ),
        facts(
            [
                ("Started", f"{figures.full_moment(at(run.started_ns))} ({figures.ago(at(run.started_ns), now)})"),
                ("Version", run.agent_version),
                ("Prompt", run.prompt_version),
                ("Environment", run.environment),
                ("Model", ", ".join(model for model in run.models if model)),
                ("User", run.user_id),
                ("Conversation", _search(run.conversation_id)),
                ("Task", _search(run.task_id)),
                (
                    "Called by",
                    node("a", run.parent_run_id, cls="mono", go=to_run(run.parent_run_id))
                    if run.parent_run_id
                    else None,
                ),
                ("Limits", _short_json(run.limits)),
                ("Config", _short_json(run.config)),
            ]
        ),
        _crash_notice(run),
        _duplicate_notice(run),
        node(
            "div",
            _said("Asked", run.input, run.input_chars),
            _said(
                "Answered",
                run.final_answer,
                run.final_answer_chars,
                missing="Nothing yet." if run.live else "No final answer was recorded.",
            ),
            cls="columns said",
        ),
        cls="tree stack",
    )


def _search(value: str | None) -> Child:
    return node("span", value, cls="mono") if value else None


def _short_json(text: str | None) -> Child:
    if not text:
        return None
    try:
        value = parse(text)
    except InexactJsonError:
        return text[:300]
    if (
        isinstance(value, dict)
        and len(value) <= 8
        and all(not isinstance(item, (dict, list)) for item in value.values())
    ):
        return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in value.items())[:300]
    return pretty(value)[:300]


def _crash_notice(run: Run) -> Child:
    if run.outcome != "crashed":
        return None
    return notice(
        "The process of this run went silent before the run ended. What had been recorded by then is shown; "
        f"spans without an end are marked unfinished. Last sign of life: {figures.full_moment(at(run.last_seen_ns))}.",
        tone="bad",
    )


def _duplicate_notice(run: Run) -> Child:
    if run.duplicate_of is None:
        return None
    return notice(
        "Another instrumentation recorded the calls of this run as well, and its recording counts: this run is in no "
        "list and no total. The run that counts: ",
        node("a", run.duplicate_of, cls="mono", go=to_run(run.duplicate_of)),
    )


def _said(title: str, text: str | None, chars: int, missing: str = "Not recorded.") -> Node:
    if not text:
        body: list[Child] = [node("pre", missing, cls="quiet")]
    else:
        cut = chars > len(text)
        shown = text if cut else readable(text)
        body = [node("pre", shown or "(empty)")]
        if cut:
            body.append(node("div", f"Showing {len(text):,} of {chars:,} characters.", cls="cut"))
    return node("div", node("h3", title), node("div", *body, cls="block short"), cls="section")


def draw_figures(run: Run, now: datetime) -> Node:
    """The key figures."""
    end = at(run.ended_ns) if run.ended_ns is not None else (now if run.live else at(run.last_event_ns))
    length = (end - at(run.started_ns)).total_seconds() * 1000
    below = {"running": "so far", "crashed": "until its last event"}.get(run.outcome, "")
    cost = figures.cost(run.cost_usd, run.cost_unknown_calls, run.llm_calls)
    tokens_in = figures.short_count(run.input_tokens) if run.llm_calls else figures.NONE
    share = run.max_context_tokens / run.context_window if run.max_context_tokens and run.context_window else None
    return node(
        "div",
        tiles(
            [
                ("Duration", figures.duration(length), below, ""),
                (
                    "Turns",
                    figures.count(run.turns),
                    f"{figures.count(run.llm_calls)} LLM call{'' if run.llm_calls == 1 else 's'}",
                    "",
                ),
                ("Tool calls", figures.count(run.tool_calls), "", ""),
                (
                    "Errors",
                    figures.count(run.errors),
                    (run.error_class or "") if run.errors else "",
                    "bad" if run.errors else "",
                ),
                ("Input tokens", tokens_in, _cache(run), ""),
                (
                    "Output tokens",
                    figures.short_count(run.output_tokens) if run.llm_calls else figures.NONE,
                    f"{figures.short_count(run.thinking_tokens)} thinking" if run.thinking_tokens else "",
                    "",
                ),
                ("Cost", cost.split(" + ")[0], _cost_below(run), "quiet" if cost == figures.UNKNOWN else ""),
                (
                    "Largest context",
                    figures.short_count(run.max_context_tokens) if run.llm_calls else figures.NONE,
                    f"{figures.percent(share)} of {figures.short_count(run.context_window)}"
                    if share is not None
                    else "window unknown",
                    "warn" if share is not None and share >= 0.8 else "",
                ),
            ]
        ),
        cls="tree",
    )


def _cache(run: Run) -> str:
    if not run.cache_read_tokens and not run.cache_write_tokens:
        return ""
    return f"{figures.short_count(run.cache_read_tokens or 0)} read from cache"


def _cost_below(run: Run) -> str:
    unknown = f"+ {run.cost_unknown_calls} calls unknown" if run.cost_unknown_calls and run.cost_usd is not None else ""
    if run.estimate_usd is None or run.cost_usd is None:
        return unknown or ("no estimate set" if run.cost_usd is not None else "")
    if run.estimate_usd == 0:
        return f"estimate {figures.money(run.estimate_usd)}"
    deviation = (run.cost_usd - run.estimate_usd) / run.estimate_usd
    sign = "+" if deviation >= 0 else "\u2212"
    return f"{sign}{figures.percent(abs(float(deviation)))} vs {figures.money(run.estimate_usd)} estimated"


def missing_run(run_id: str) -> Node:
    """Shown for a run id that the store does not have."""
    return node(
        "div",
        node("h2", "No such run"),
        node("p", "The store has no run with the id ", node("span", run_id, cls="mono"), "."),
        node(
            "p",
            "It may not have arrived yet, or its retention has ended. ",
            node("a", "All runs", go=to_runs(range="all")),
        ),
        cls="tree empty",
    )

"""System prompts and tool definitions of a run, with their versions, as a node tree. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from loopscope_dashboards import figures
from loopscope_dashboards.panels.nodes import Child, Node, badge, facts, node, notice
from loopscope_dashboards.panels.outline import pretty
from loopscope_dashboards.queries.run import Prompt, PromptUse
from loopscope_dashboards.queries.turn import Call
from loopscope_dashboards.when import at
from loopscope_schemas.content import InexactJsonError, join_block


def draw_prompts(uses: Sequence[PromptUse], prompts: Mapping[str, Prompt], call: Call | None) -> Node:
    """Every pair in use during the run; those of the selected turn are marked."""
    parts: list[Child] = []
    if not uses or not any(use.system_hash or use.tools_hash for use in uses):
        parts.append(notice("The calls of this run carry neither a system prompt nor tool definitions."))
    drawn: set[str] = set()
    changed = len({use.system_hash for use in uses if use.system_hash}) > 1
    if changed:
        parts.append(notice("The system prompt changed during this run.", tone="warn"))
    for kind, title in (("system", "System prompt"), ("tools", "Tool definitions")):
        hashes = [hash_ for use in uses if (hash_ := use.system_hash if kind == "system" else use.tools_hash)]
        for hash_ in hashes:
            if hash_ in drawn:
                continue
            drawn.add(hash_)
            mine = [use for use in uses if hash_ in (use.system_hash, use.tools_hash)]
            here = call is not None and hash_ in (call.system_hash, call.tools_hash)
            parts.append(_prompt(title, hash_, prompts.get(hash_), mine, here=here))
    return node("div", *parts, cls="tree stack")


def _prompt(title: str, hash_: str, prompt: Prompt | None, uses: Sequence[PromptUse], *, here: bool) -> Node:
    turns = [turn for use in uses for turn in (use.first_turn, use.last_turn) if turn is not None]
    span = (
        f"turns {min(turns)}\u2013{max(turns)}"
        if turns and min(turns) != max(turns)
        else f"turn {turns[0]}"
        if turns
        else ""
    )
    calls = sum(use.calls for use in uses)
    head = node(
        "div",
        node("b", title),
        node("span", hash_, cls="mono"),
        badge("this turn", "info") if here else None,
        node("span", cls="grow"),
        node("span", f"{span}, {figures.count(calls)} calls".lstrip(", ")),
        cls="head",
    )
    if prompt is None:
        return node(
            "div",
            head,
            node("pre", "Its text is not in the store: its retention may have ended.", cls="quiet"),
            cls="block",
        )
    about = facts(
        [
            ("Name", prompt.name),
            ("Version", prompt.version),
            ("First seen", figures.full_moment(at(prompt.first_seen_ns))),
            ("Last seen", f"{at(prompt.last_seen_ns):%Y-%m-%d}"),
            ("Agents", ", ".join(prompt.agents)),
            ("Length", f"{figures.count(prompt.chars)} characters"),
        ]
    )
    return node(
        "div",
        head,
        node("div", about, cls="about"),
        *_text(prompt),
        node("div", f"Showing {len(prompt.body):,} of {prompt.chars:,} characters.", cls="cut")
        if prompt.chars > len(prompt.body)
        else None,
        cls="block new" if here else "block",
        key=hash_,
    )


def _text(prompt: Prompt) -> list[Child]:
    """A system prompt as it reads; tool definitions one by one."""
    if prompt.shape and prompt.chars == len(prompt.body):
        try:
            tools = join_block(prompt.shape, prompt.body, lambda _: b"")
        except (ValueError, InexactJsonError):
            tools = None
        if isinstance(tools, list) and tools:
            found: list[Any] = tools
            return [_tool(tool) for tool in found]
    return [node("pre", prompt.body or "(empty)", cls="tall")]


def _tool(tool: Any) -> Node:
    if not isinstance(tool, dict):
        return node("div", node("pre", pretty(tool)), cls="part")
    rest = {name: value for name, value in tool.items() if name not in ("name", "description")}
    description = tool.get("description")
    return node(
        "div",
        node("div", node("b", str(tool.get("name", "unnamed")), cls="mono"), cls="caption"),
        node("pre", description, cls="described") if isinstance(description, str) else None,
        node("details", node("summary", "Definition"), node("pre", pretty(rest)), cls="definition") if rest else None,
        cls="part",
    )

"""One turn of a run as a node tree: what the model saw, what it answered, what the tools did. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loopscope_dashboards import figures
from loopscope_dashboards.panels.blocks import Shown, draw_block, draw_parts, read_block, read_json_text
from loopscope_dashboards.panels.nodes import Child, Node, badge, facts, node, notice, to_run
from loopscope_dashboards.panels.outline import BlockRef, Outline, common_prefix, outline_of
from loopscope_dashboards.queries.turn import Call, Text, ToolCall
from loopscope_dashboards.when import at

HISTORY_MESSAGES: Final = 40
"""Messages of the history, or new ones, that are shown at once."""
MAX_BLOCKS: Final = 200
"""Content blocks of one request that are drawn; more are a download away."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A call's input, compared with the call before it."""

    outline: Outline
    new_from: int
    """Blocks from this place on are new in this turn."""
    dropped: int
    """Blocks of the call before that are no longer there."""
    first: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """What the call before answered: a client may order the keys of a block anew, so blocks are known by id as well."""

    hashes: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    def has(self, hash_: str, block: BlockRef) -> bool:
        """Whether a block of the history is of that answer."""
        return hash_ in self.hashes or _id_of(block) in self.ids


def answered_by(call: Call | None) -> Answered:
    """The blocks of a call's answer."""
    if call is None:
        return Answered()
    blocks = [block for message in outline_of(call.output_shape).messages for block in message.blocks]
    return Answered(frozenset(call.output_hashes), frozenset(filter(None, map(_id_of, blocks))))


def _id_of(block: BlockRef) -> str:
    value = block.shape.get("id") if isinstance(block.shape, dict) else None
    return value[1:] if isinstance(value, str) and value.startswith("=") and len(value) > 1 else ""


def compare(call: Call, before: Call | None) -> Seen:
    """What of a call's input is new."""
    outline = outline_of(call.input_shape, "user")
    if before is None:
        return Seen(outline, 0, 0, True)
    same = common_prefix(before.input_hashes, call.input_hashes)
    return Seen(outline, same, len(before.input_hashes) - same, False)


def shown_messages(seen: Seen, history_from: int | None) -> list[int]:
    """Numbers of the messages to show: the newest of the new ones, and a window of the history when it is open."""
    fresh = [number for number, message in enumerate(seen.outline.messages) if _is_new(message.blocks, seen)]
    shown = set(fresh[-HISTORY_MESSAGES:]) if history_from is None else set[int]()
    if history_from is not None:
        shown.update(range(history_from, min(len(seen.outline.messages), history_from + HISTORY_MESSAGES)))
    return sorted(shown)


def wanted_blocks(seen: Seen, history_from: int | None) -> list[BlockRef]:
    """Blocks of the input whose texts a page needs, at most MAX_BLOCKS."""
    wanted = [block for number in shown_messages(seen, history_from) for block in seen.outline.messages[number].blocks]
    wanted += [block for _, block in seen.outline.other if block.place >= seen.new_from]
    return wanted[:MAX_BLOCKS]


def draw_heading(
    run_id: str,
    number: int,
    numbers: Sequence[int],
    calls: Sequence[Call],
    *,
    newest: int | None,
    more: Mapping[str, str],
) -> Node:
    """Turn 3 of 12, with links to the turns around it, and the turn's figures."""
    place = numbers.index(number)
    live = newest is not None
    before = numbers[place - 1] if place > 0 else None
    after = numbers[place + 1] if place + 1 < len(numbers) else None

    def link(label: str, to: int | None) -> Node:
        return node("a", label, go=to_run(run_id, to, **more)) if to is not None else node("span", label, cls="off")

    return node(
        "div",
        node(
            "div",
            node("h2", f"Turn {number:,} of {numbers[-1]:,}"),
            *(badge(call.stop_reason.replace("_", " ")) for call in calls if call.stop_reason),
            *(badge("error", "bad") for call in calls if call.status == "error"),
            *(
                badge("running", "live") if live else badge("unfinished", "warn")
                for call in calls
                if call.ended_ns is None
            ),
            *(badge("partial answer", "warn") for call in calls if call.partial),
            node("span", cls="grow"),
            node("a", f"Newest turn: {newest}", go=to_run(run_id, newest, **more))
            if newest is not None and newest != number
            else None,
            node("span", link("\u2190 Previous", before), link("Next \u2192", after), cls="pager"),
            cls="row",
        ),
        *(_call_facts(call, live=live) for call in calls),
        *(_error(call) for call in calls if call.status == "error"),
        cls="tree stack",
    )


def _call_facts(call: Call, *, live: bool) -> Node:
    open_word = "running" if live else "unfinished"
    fresh = None
    if call.input_tokens is not None:
        fresh = call.input_tokens - (call.cache_read_tokens or 0) - (call.cache_write_tokens or 0)
    share = call.input_tokens / call.context_window if call.input_tokens is not None and call.context_window else None
    cost = open_word if call.ended_ns is None else figures.money(call.cost_usd)
    source = (
        f" ({call.cost_source}{', ' + call.price_version if call.price_version else ''})"
        if call.cost_usd is not None
        else ""
    )
    different = call.request_model and call.model and call.request_model != call.model
    pairs: list[tuple[str, Child]] = [
        ("Model", call.model),
        ("Asked for", call.request_model if different else None),
        ("Provider", call.provider),
        ("Started", figures.clock(at(call.started_ns))),
        ("Took", figures.duration(call.duration_ms) if call.ended_ns is not None else open_word),
        ("First token", figures.duration(call.ttft_ms) if call.ttft_ms is not None else None),
        ("Longest gap", figures.duration(call.longest_gap_ms) if call.longest_gap_ms is not None else None),
        ("Input", _tokens(call.input_tokens, call)),
        ("of it fresh", figures.count(fresh) if fresh is not None and fresh != call.input_tokens else None),
        ("cache read", figures.count(call.cache_read_tokens) if call.cache_read_tokens else None),
        ("cache write", figures.count(call.cache_write_tokens) if call.cache_write_tokens else None),
        ("Output", _tokens(call.output_tokens, call)),
        ("of it thinking", figures.count(call.thinking_tokens) if call.thinking_tokens else None),
        ("Window", figures.percent(share) if share is not None else None),
        ("Cost", cost + source),
        ("HTTP attempts", node("span", str(call.http_attempts), cls="warn") if (call.http_attempts or 1) > 1 else None),
        ("Answer id", node("span", call.response_id, cls="mono") if call.response_id else None),
    ]
    return facts(pairs)


def _tokens(value: int | None, call: Call) -> Child:
    return None if call.ended_ns is None else f"{figures.count(value)} tokens" if value is not None else "unknown"


def _error(call: Call) -> Node:
    kind = " ".join(word for word in (call.error_type, f"({call.error_class})" if call.error_class else "") if word)
    return notice(
        kind or "error", node("span", call.status_message or "No message was recorded.", cls="mono"), tone="bad"
    )


def draw_history_pager(run_id: str, turn: int, pages: int, history_from: int) -> Node | None:
    """Links to the pages of a long history; None for a short one."""
    if pages <= 1:
        return None
    page = history_from // HISTORY_MESSAGES + 1

    def link(label: str, to: int) -> Node:
        if not 1 <= to <= pages or to == page:
            return node("span", label, cls="off")
        return node("a", label, go=to_run(run_id, turn, history="true", page=str(to)))

    return notice(
        f"History, page {page} of {pages}",
        node(
            "span",
            link("First", 1),
            link("Earlier", page - 1),
            link("Later", page + 1),
            link("Last", pages),
            cls="pager",
        ),
    )


def draw_seen(
    call: Call,
    seen: Seen,
    texts: Mapping[str, Text],
    answered_before: Answered,
    *,
    before_number: int | None,
    history_from: int | None,
) -> Node:
    """What the model saw in a call."""
    outline = seen.outline
    parts: list[Child] = []
    if not call.input_shape:
        text = (
            "The request has not arrived: the call is still under way."
            if call.ended_ns is None
            else "The request was not recorded."
        )
        parts.append(notice(text))
    if not outline.readable:
        parts.append(
            notice(
                "The recorded form of this request is not one that this version reads; its texts are found by search.",
                tone="warn",
            )
        )
    if seen.dropped:
        parts.append(
            notice(
                f"The history does not continue turn {before_number}: {seen.dropped} of its blocks changed or left.",
                tone="warn",
            )
        )
    shown = shown_messages(seen, history_from)
    hidden = len(outline.messages) - len(shown)
    if hidden and history_from is None:
        old = sum(not _is_new(message.blocks, seen) for message in outline.messages)
        kind = f"earlier {_several(hidden, 'message').partition(' ')[2]}{', unchanged' if hidden == old else ''}"
        parts.append(
            node("div", f"{hidden:,} {kind}. Switch on \u201cWhole history\u201d to read them.", cls="earlier")
        )
    drawn = 0
    for number in shown:
        message = outline.messages[number]
        repeated: list[Node] = []
        others: list[Node] = []
        for block in message.blocks[: MAX_BLOCKS - drawn]:
            drawn += 1
            hash_ = call.input_hashes[block.place] if block.place < len(call.input_hashes) else ""
            new = block.place >= seen.new_from
            came_back = new and answered_before.has(hash_, block)
            note = f"message {number + 1}" + (" \u00b7 new" if new and not seen.first and not came_back else "")
            cls = "answer" if came_back else "new" if new else ""
            read = read_block(block, texts.get(hash_))
            (repeated if came_back else others).append(
                draw_block(read, role=message.role, cls=cls, note=note, key=f"in{block.place}")
            )
        if repeated:
            label = f"Message {number + 1}: its answer of turn {before_number} ({_several(len(repeated), 'block')})"
            parts.append(node("details", node("summary", label), *repeated, cls="repeated", key=f"again{number}"))
        parts.extend(others)
        if not message.blocks:
            parts.append(
                draw_block(
                    Shown("text", "", ()), role=message.role, cls="", note=f"message {number + 1} \u00b7 no content"
                )
            )
        if drawn >= MAX_BLOCKS:
            parts.append(
                notice(
                    f"Only the first {MAX_BLOCKS} content blocks are shown; the request is a download below.",
                    tone="warn",
                )
            )
            break
    for name, block in outline.other:
        hash_ = call.input_hashes[block.place] if block.place < len(call.input_hashes) else ""
        if block.place >= seen.new_from:
            parts.append(
                draw_block(
                    read_block(block, texts.get(hash_)),
                    role=name,
                    cls="",
                    note="request parameter",
                    key=f"in{block.place}",
                )
            )
    return node(
        "div",
        node("h3", f"What the model saw \u00b7 {_several(len(outline.messages), 'message')}"),
        *parts,
        cls="section",
    )


def _several(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _is_new(blocks: Sequence[BlockRef], seen: Seen) -> bool:
    return any(block.place >= seen.new_from for block in blocks) or (not blocks and seen.first)


def draw_answer(call: Call, texts: Mapping[str, Text]) -> Node:
    """What the model answered in a call."""
    outline = outline_of(call.output_shape)
    parts: list[Child] = []
    for message in outline.messages:
        for block in message.blocks:
            hash_ = call.output_hashes[block.place] if block.place < len(call.output_hashes) else ""
            parts.append(
                draw_block(
                    read_block(block, texts.get(hash_)), role=message.role, cls="answer", key=f"out{block.place}"
                )
            )
    for name, block in outline.other:
        hash_ = call.output_hashes[block.place] if block.place < len(call.output_hashes) else ""
        parts.append(draw_block(read_block(block, texts.get(hash_)), role=name, cls="", key=f"out{block.place}"))
    if not parts:
        if call.ended_ns is None:
            parts.append(notice("No answer: the call has not ended."))
        elif call.status == "error":
            parts.append(notice("The call ended with an error; there is no answer."))
        else:
            parts.append(
                notice("The answer was not recorded." if not call.output_shape else "The answer has no content.")
            )
    return node("div", node("h3", "What it answered"), *parts, cls="section")


def draw_tools(tools: Sequence[ToolCall]) -> Node | None:
    """The tool calls of a turn, each with its whole input and output."""
    if not tools:
        return None
    return node("div", node("h3", f"Tool calls \u00b7 {len(tools)}"), *(_tool(call) for call in tools), cls="section")


def _tool(call: ToolCall) -> Node:
    failed = call.status == "error"
    arguments, arguments_cut = read_json_text(call.arguments, call.arguments_chars)
    result, result_cut = read_json_text(call.result, call.result_chars)
    kind = " ".join(word for word in (call.error_type, f"({call.error_class})" if call.error_class else "") if word)
    return node(
        "div",
        node(
            "div",
            node("b", call.tool or "unnamed tool", cls="mono"),
            badge(kind or "error", "bad") if failed else None,
            badge("unfinished", "warn") if call.duration_ms is None else None,
            badge("inferred", "quiet") if call.inferred else None,
            badge(f"duplicate of {call.duplicate_of}", "quiet") if call.duplicate_of else None,
            badge("side effects", "warn") if call.side_effects else None,
            badge(call.idempotency.replace("_", " "), "info") if call.idempotency != "none" else None,
            badge(f"attempt {call.attempt}", "warn") if (call.attempt or 1) > 1 else None,
            node("span", cls="grow"),
            node("span", call.call_id, cls="mono") if call.call_id else None,
            node("span", figures.duration(call.duration_ms)) if call.duration_ms is not None else None,
            cls="head",
        ),
        _io("Input", draw_parts(arguments, arguments_cut) or [node("pre", "Not recorded.", cls="quiet")]),
        notice(call.status_message or "No message was recorded.", tone="bad") if failed else None,
        _io("Output", draw_parts(result, result_cut) or [node("pre", _no_result(call, failed), cls="quiet")]),
        cls=f"block {'error' if failed else 'tool'}",
        key=call.span_id,
    )


def _no_result(call: ToolCall, failed: bool) -> str:
    if call.duration_ms is None:
        return "None: the tool call has not ended."
    return "None: the tool raised." if failed else "Not recorded."


def _io(label: str, parts: list[Child]) -> Node:
    return node("div", node("div", label, cls="io-label"), *parts, cls="part io")

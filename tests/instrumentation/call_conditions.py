"""What can befall a call, as data: how the stand-in answers, how the host behaves, and what must have been recorded.

Used by `test_call_styles` with every one of `call_styles`, and for the table in docs/coverage.md.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .call_styles import Reading, Style
from .provider_server import USAGE, Reply, failing, message

TEXT = '{"greeting": "hällo"}'
ARRIVED = '{"greeting": '
"""What of the text had arrived when a stream broke off or was left."""
CUT_AT = 10
"""Bytes of a plain answer that arrive when it breaks off, or before it is left."""
EVENTS_ARRIVED = 5
"""message_start, content_block_start, ping and the two deltas of `ARRIVED`."""
ENOUGH = {"stream": "ting", "body": '{"id'}
"""Kind of style -> what is in the `repr` of the last item that arrives before the server waits, and of none before."""
SOON = {"retry-after-ms": "1"}

TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": "here"}}
ANSWER = message(TEXT)
CALLING = message(TEXT) | {"content": [{"type": "text", "text": TEXT}, TOOL_USE], "stop_reason": "tool_use"}
COUNT = {"input_tokens": 7}


def events_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """A message as the events of a stream, the text in three deltas and a ping before it."""
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": answer | {"content": [], "stop_reason": None, "usage": USAGE | {"output_tokens": 1}},
        }
    ]
    for index, block in enumerate(answer["content"]):
        if block["type"] == "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": part} for part in (TEXT[:6], TEXT[6:13], TEXT[13:])]
        else:
            empty = block | {"input": {}}
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in (text[:4], text[4:])]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    return [*events, {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 42}}, {"type": "message_stop"}]


def reply_of(style: Style, answer: dict[str, Any], **more: Any) -> Reply:
    """An answer as this style's server gives it: as events, as a body, or as a count of its tokens."""
    if style.kind == "stream":
        return Reply(events=events_of(answer), **more)
    return Reply(body=json.dumps(COUNT if style.kind == "count" else answer, ensure_ascii=False).encode(), **more)


@dataclass
class Scene:
    """One cell, ready to run: the replies in order, and what releases and interrupts whom."""

    replies: list[Reply]
    release: threading.Event = field(default_factory=threading.Event)
    """Set when the host is done: lets the server go on from where it waits."""
    waiting: threading.Event = field(default_factory=threading.Event)
    """Set when the server waits."""


@dataclass(frozen=True)
class Expected:
    """What the one span of an API call must say. None: that it must not be there."""

    status: int | None = 200
    error_type: str | None = None
    """How `error.type` ends; None when the span has not failed."""
    error_class: str | None = None
    content: list[dict[str, Any]] | None = None
    """The blocks of the recorded answer."""
    stop_reason: str | None = None
    output_tokens: int | None = None
    input_tokens: int | None = None
    partial: bool = False
    attempts: tuple[int | None, ...] = ()
    """HTTP status of each request, when there were several."""
    body: bytes | None = None
    """The recorded answer, where it is no message."""


@dataclass(frozen=True)
class Condition:
    """One column of the matrix."""

    name: str
    scene: Callable[[Style], Scene]
    expected: Callable[[Style], list[Expected]]
    """One for each API call."""
    reading: Reading = "whole"
    cancelled: bool = False
    max_retries: int = 1
    timeout: float = 60.0
    impossible: dict[str, str] = field(default_factory=dict[str, str])
    """Kind of style -> why it has no such cell."""


def full(style: Style, answer: dict[str, Any] = ANSWER, attempts: tuple[int | None, ...] = ()) -> Expected:
    """A call that was answered well."""
    if style.kind == "count":
        return Expected(input_tokens=7, attempts=attempts, body=json.dumps(COUNT).encode())
    return Expected(
        content=answer["content"],
        stop_reason=answer["stop_reason"],
        output_tokens=42,
        input_tokens=2121,
        attempts=attempts,
    )


def arrived(style: Style, error_type: str | None = None, error_class: str | None = None) -> Expected:
    """A call of which only the beginning arrived."""
    if style.kind == "body":
        start = reply_of(style, ANSWER).body[:CUT_AT]
        return Expected(partial=True, error_type=error_type, error_class=error_class, body=start)
    return Expected(
        partial=True,
        error_type=error_type,
        error_class=error_class,
        content=[{"type": "text", "text": ARRIVED}],
        input_tokens=2121,
    )


def _answered(style: Style) -> Scene:
    return Scene([reply_of(style, ANSWER)])


def _calling(style: Style) -> Scene:
    replies = [reply_of(style, CALLING)]
    return Scene([*replies, reply_of(style, ANSWER)] if style.loops else replies)


def _refused(*failures: Reply, then_ok: bool = False) -> Callable[[Style], Scene]:
    return lambda style: Scene([*failures, reply_of(style, ANSWER)] if then_ok else list(failures))


def _silent(_: Style) -> Scene:
    scene = Scene([])
    scene.replies = [Reply(silent=scene.release, waiting=scene.waiting)]
    return scene


def _held(style: Style) -> Scene:
    """An answer that stops after its beginning; where the host gets no beginnings, one that does not come."""
    if style.kind not in ENOUGH:
        return _silent(style)
    scene = Scene([])
    hold_at = EVENTS_ARRIVED if style.kind == "stream" else CUT_AT
    scene.replies = [reply_of(style, ANSWER, hold=scene.release, hold_at=hold_at, waiting=scene.waiting)]
    return scene


def _left(style: Style) -> Scene:
    return _held(style) if style.kind in ENOUGH else _answered(style)


def _broken(style: Style) -> Scene:
    cut: dict[str, Any] = {"break_after": EVENTS_ARRIVED} if style.kind == "stream" else {"cut_at": CUT_AT}
    return Scene([reply_of(style, ANSWER, **cut)])


def _error(kind: str, status: int, error_class: str, attempts: tuple[int | None, ...] = ()) -> Expected:
    return Expected(
        status=status, error_type=kind, error_class=error_class, attempts=attempts, body=failing(status, kind).body
    )


def _cancelled(style: Style) -> list[Expected]:
    ended: dict[str, Any] = {"error_type": "", "error_class": "cancelled"}
    return [arrived(style, **ended) if style.kind in ENOUGH else Expected(status=None, **ended)]


def _broke(style: Style) -> list[Expected]:
    if style.kind in ("stream", "body"):
        return [arrived(style, error_type="RemoteProtocolError", error_class="transient")]
    return [Expected(status=None, error_type="APIConnectionError", error_class="transient")]


def _unread(style: Style) -> list[Expected]:
    # Nothing was read: of a stream that is not so much as its beginning.
    return [Expected(partial=True)] if style.kind in ("stream", "body") else []


_WHOLE = "the call gives the whole answer or none"
_NO_STREAM = "not a streamed style"
_BODY = "its body is one JSON document, not a stream of events"

CONDITIONS: list[Condition] = [
    Condition("ok", _answered, lambda style: [full(style)]),
    Condition(
        "tool use",
        _calling,
        lambda style: [full(style, CALLING), *([full(style)] if style.loops else [])],
        impossible={"count": "a count has no content"},
    ),
    Condition(
        "stream",
        lambda style: Scene([reply_of(style, CALLING if not style.loops else ANSWER, delays={2: 0.02, 4: 0.01})]),
        lambda style: [full(style, CALLING if not style.loops else ANSWER)],
        impossible={"answer": _NO_STREAM, "body": _BODY, "count": _NO_STREAM},
    ),
    Condition(
        "400",
        _refused(failing(400, "invalid_request_error")),
        lambda _: [_error("invalid_request_error", 400, "deterministic")],
    ),
    Condition(
        "429 then ok",
        _refused(failing(429, "rate_limit_error", **SOON), then_ok=True),
        lambda style: [full(style, attempts=(429, 200))],
    ),
    Condition(
        "529",
        _refused(failing(529, "overloaded_error", **SOON)),
        lambda _: [_error("overloaded_error", 529, "transient", attempts=(529, 529))],
    ),
    Condition(
        "timeout",
        _silent,
        lambda _: [Expected(status=None, error_type="APITimeoutError", error_class="transient")],
        max_retries=0,
        timeout=0.1,
    ),
    Condition("cancelled", _held, _cancelled, cancelled=True, max_retries=0),
    Condition("stream broken midway", _broken, _broke, max_retries=0),
    Condition(
        "abandoned: never read",
        _left,
        _unread,
        reading="never",
        impossible={"answer": _WHOLE, "count": _WHOLE},
    ),
    Condition(
        "abandoned: half read, forgotten",
        _left,
        lambda style: [arrived(style)],
        reading="dropped",
        impossible={"answer": _WHOLE, "count": _WHOLE},
    ),
    Condition(
        "abandoned: half read, closed",
        _left,
        lambda style: [arrived(style)],
        reading="left",
        impossible={"answer": _WHOLE, "count": _WHOLE},
    ),
]


def why_not(style: Style, condition: Condition) -> str | None:
    """Why a cell cannot exist; None when it can."""
    return condition.impossible.get(style.kind)

"""What the stand-in answers: turns, faults and pacing, and scripts that give one turn for each request.

Written by tests, by the demo and by users who test an agent of their own. Data and lookups only: no HTTP here.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from loopscope.stub.errors import ApiError
from loopscope.stub.validation import content_blocks

JsonDict = dict[str, Any]

MAX_HANG_SECONDS: Final = 600.0
"""A hanging request ends after this even when its client waits on."""


@dataclass(frozen=True)
class Fault:
    """A failure that happens `times` times before the turn is answered (-1: always).

    `kind`: `status` answers with an API error of `status`; `drop` closes the connection before the body of an answer;
    `hang` is silent for `seconds` and then drops, so that a client's timeout fires. `retry_after` is in seconds,
    fractions allowed. `message` replaces the API's own words.
    """

    status: int = 429
    times: int = 1
    kind: Literal["status", "drop", "hang"] = "status"
    retry_after: float | None = None
    message: str | None = None
    seconds: float = 30.0

    def error(self) -> ApiError:
        """The API error of a `status` fault."""
        headers = {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}
        return ApiError(self.status, self.message, headers=headers)


@dataclass(frozen=True)
class Pacing:
    """When the parts of an answer arrive; seconds, and positions as a share (0 to 1) of the streamed chunks.

    `latency` is before the response starts, `first_token` between its start and the first chunk, `chunk_delay`
    before every chunk, `silence` once at `silence_at`. `break_at` cuts the connection there; `error_at` sends an
    `error` event (overloaded) there instead. Only `latency` applies to an answer that is not streamed.
    """

    latency: float | None = None
    first_token: float = 0.0
    chunk_delay: float = 0.0
    silence: float = 0.0
    silence_at: float = 0.5
    break_at: float | None = None
    error_at: float | None = None
    chunk_chars: int = 48


@dataclass(frozen=True)
class ToolCall:
    """One `tool_use` block of an answer. `id` is made up when not given."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    id: str | None = None


@dataclass(frozen=True)
class Turn:
    """One answer of the model.

    Either `content` (blocks, as the API would give them) or `thinking`, `text` and `tool_calls`, in this order.
    `stop_reason` is found when not given. `usage` overrides fields of the computed usage, for exact figures.
    `server_tool_use` is reported in the usage (`{"web_search_requests": 1}`).
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None
    content: tuple[Mapping[str, Any], ...] = ()
    stop_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    server_tool_use: Mapping[str, int] | None = None
    faults: tuple[Fault, ...] = ()
    pacing: Pacing = Pacing()

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Turn":
        """A turn from its JSON form, which has the same names. Raises ValueError that names an unknown field."""
        values = _known(Turn, data)
        if "tool_calls" in values:
            values["tool_calls"] = tuple(ToolCall(**_known(ToolCall, call)) for call in values["tool_calls"])
        if "faults" in values:
            values["faults"] = tuple(Fault(**_known(Fault, fault)) for fault in values["faults"])
        if "pacing" in values:
            values["pacing"] = Pacing(**_known(Pacing, values["pacing"]))
        if "content" in values:
            values["content"] = tuple(values["content"])
        return Turn(**values)


def say(text: str, **more: Any) -> Turn:
    """A turn that answers with text."""
    return Turn(text=text, **more)


def call(name: str, text: str | None = None, /, **arguments: Any) -> Turn:
    """A turn that calls one tool, perhaps with a sentence before it."""
    return Turn(text=text, tool_calls=(ToolCall(name, arguments),))


@dataclass(frozen=True)
class Ask:
    """One request, as a script sees it.

    `step` counts the answers already given in this session, from 0; `attempt` the requests of this step before this
    one (retries after a fault). `body` is the whole request; of a stored thread, with its earlier messages.
    """

    name: str
    session: str
    step: int
    attempt: int
    body: JsonDict

    @property
    def messages(self) -> list[JsonDict]:
        """The messages of the request."""
        return self.body["messages"]

    @property
    def last_user_text(self) -> str:
        """Text of the last message, tool results left out."""
        blocks = content_blocks(self.messages[-1]["content"]) if self.messages else []
        return "\n".join(str(block["text"]) for block in blocks if block.get("type") == "text")

    @property
    def tool_results(self) -> list[str]:
        """Texts of the tool results in the last message."""
        blocks = content_blocks(self.messages[-1]["content"]) if self.messages else []
        return [
            "\n".join(str(inner.get("text", "")) for inner in content_blocks(block.get("content")))
            for block in blocks
            if block.get("type") == "tool_result"
        ]


Script = Callable[[Ask], Turn] | Sequence[Turn]
"""A function from request to turn, or the turns of a conversation one after the other."""


def turn_of(script: Script, ask: Ask) -> Turn:
    """The turn that a script gives. Raises `ApiError`: the script's own, or 400 when it failed or is used up."""
    if callable(script):
        try:
            return script(ask)
        except ApiError:
            raise
        except Exception as error:
            # The author's code; whoever asked learns what it raised. Not 500: a client would retry in vain.
            raise ApiError(400, f"The script {ask.name!r} raised {type(error).__name__}: {error}") from error
    if ask.step >= len(script):
        raise ApiError(
            400,
            f"The script {ask.name!r} has {len(script)} turns and session {ask.session!r} asked for one more; "
            "add a turn, or end the agent's loop.",
        )
    return script[ask.step]


def script_from_json(turns: object) -> list[Turn]:
    """The turns of a script in its JSON form. Raises ValueError."""
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"a script is a non-empty list of turns, not {type(turns).__name__}")
    return [Turn.from_json(turn) for turn in cast("list[JsonDict]", turns)]


def fault_from_header(text: str) -> tuple[Fault, int]:
    """A fault from `status=429;times=2;retry_after=1;after=7`, and after how many answers it starts.

    Raises ValueError that names what it could not read.
    """
    values: dict[str, Any] = {}
    after = 0
    converters: dict[str, Callable[[str], Any]] = {
        "status": int,
        "times": int,
        "retry_after": float,
        "seconds": float,
        "kind": str,
        "message": str,
    }
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, value = part.partition("=")
        if name == "after":
            after = int(value)
        elif name in converters:
            values[name] = converters[name](value)
        else:
            raise ValueError(f"x-stub-fault: unknown field {name!r}; known: after, {', '.join(converters)}")
    if values.get("kind", "status") not in ("status", "drop", "hang"):
        raise ValueError(f"x-stub-fault: unknown kind {values['kind']!r}; known: status, drop, hang")
    return Fault(**values), after


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in dataclasses.fields(kind)}
    unknown = set(data) - names
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {min(unknown)!r}; known: {', '.join(sorted(names))}")
    return dict(data)

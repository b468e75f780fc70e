"""How much of an agent is recorded: full, metadata, or off. The policy, and the gate that keeps text out.

`config` makes the policy, `scope` and `runs` ask it, and the worker sends every span of an agent with `metadata`
through `without_text`: whatever hook wrote it, only numbers, flags and the names on the list below pass. A new
attribute that holds text is therefore left out until it is listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from loopscope.exceptions import ConfigurationError
from loopscope_schemas import attributes as at

if TYPE_CHECKING:
    from .recording import Payload, Start

CaptureMode = Literal["full", "metadata", "off"]
FULL, METADATA, OFF = "full", "metadata", "off"
MODES: tuple[str, ...] = (FULL, METADATA, OFF)
EVERYONE = "*"

NAMES = frozenset(
    {
        at.AGENT_ID,
        at.AGENT_NAME,
        at.AGENT_VERSION,
        at.BATCH_ID,
        at.COST_SOURCE,
        at.ERROR_CLASS,
        at.ERROR_TYPE,
        at.EXCEPTION_TYPE,
        at.OPERATION_NAME,
        at.PRICE_VERSION,
        at.PROVIDER_NAME,
        at.REQUEST_MODEL,
        at.RESPONSE_FINISH_REASONS,
        at.RESPONSE_ID,
        at.RESPONSE_MODEL,
        at.RUN_ID,
        at.RUN_LIMITS,
        at.RUN_LIMIT_HIT,
        at.RUN_OUTCOME,
        at.RUN_PARENT_ID,
        at.SERVER_ADDRESS,
        at.SERVICE_TIER,
        at.TOOL_CALL_ID,
        at.TOOL_IDEMPOTENCY,
        at.TOOL_NAME,
        at.TOOL_TYPE,
        at.USAGE_RAW,
    }
)
"""Names that other records refer to, and words from fixed lists. Rules of the user do not change them."""
_METADATA = NAMES | {
    at.BATCH_CUSTOM_ID,
    at.CONVERSATION_ID,
    at.PROMPT_NAME,
    at.PROMPT_VERSION,
    at.ROUTE_NAME,
    at.STEP_NAME,
    at.TASK_ID,
    at.USER_ID,
}
"""What else of text is kept without content: ids and names that the owner gives in the program."""
_SIZES = {
    at.REQUEST_BODY: at.REQUEST_BODY_SIZE,
    at.RESPONSE_BODY: at.RESPONSE_BODY_SIZE,
    at.TOOL_CALL_ARGUMENTS: at.TOOL_CALL_ARGUMENTS_SIZE,
    at.TOOL_CALL_RESULT: at.TOOL_CALL_RESULT_SIZE,
    at.RUN_INPUT: at.RUN_INPUT_SIZE,
    at.RUN_FINAL_ANSWER: at.RUN_FINAL_ANSWER_SIZE,
}


@dataclass(frozen=True, slots=True)
class CapturePolicy:
    """Which agent is recorded how."""

    default: str = FULL
    by_agent: Mapping[str, str] = field(default_factory=dict[str, str])

    def of(self, agent: str) -> str:
        """The mode of an agent that no run encloses."""
        return self.by_agent.get(agent, self.default)


def policy_of(given: object, source: str) -> CapturePolicy:
    """A policy as a user writes it: one mode, or a mapping of agent to mode, `*` for all others.

    Raises ConfigurationError.
    """
    if isinstance(given, Mapping):
        by_agent: dict[str, str] = {}
        for agent, mode in cast("Mapping[object, object]", given).items():
            if not isinstance(agent, str) or not agent:
                raise ConfigurationError(f"{source}: {agent!r} is no agent's name")
            by_agent[agent] = mode_of(mode, f"{source}: {agent!r}")
        return CapturePolicy(by_agent.pop(EVERYONE, FULL), by_agent)
    return CapturePolicy(mode_of(given, source))


def mode_of(given: object, source: str) -> str:
    """`given` if it is a mode. Raises ConfigurationError."""
    if given not in MODES:
        raise ConfigurationError(f"{source}: {given!r} is none of full, metadata, off")
    return cast("str", given)


def without_text(payload: Payload, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a span when no content may be recorded: its content goes, the attributes that may stay return."""
    kept = _only_metadata(attributes)
    for group in (payload.texts, payload.bodies):
        kept |= {_SIZES[name]: len(content) for name, content in group.items() if name in _SIZES}
        group.clear()
    if payload.failed is not None:
        payload.failed = str(attributes.get(at.ERROR_TYPE, ""))
    payload.events[:] = [(when, name, _only_metadata(values)) for when, name, values in payload.events]
    kept[at.CAPTURE] = METADATA
    return kept


def start_without_text(start: Start) -> Start:
    """A start marker of a span whose content may not be recorded."""
    return start._replace(attributes={**_only_metadata(start.attributes), at.CAPTURE: METADATA})


def _only_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name in _METADATA or isinstance(value, int | float)}

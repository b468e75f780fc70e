"""Which column an attribute goes to, and how its value is read. Data, no flow; used by `spans`.

A reader answers None for a value that the column cannot hold: the attribute then stays in the map of attributes, where
everything stays that has no column.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from loopscope_collector.normalise.otlp import text_of
from loopscope_schemas import attributes as at
from loopscope_schemas.prices import COST_QUANTUM

Reader = Callable[[Any], Any]

_DIGITS: Final = re.compile(r"[0-9]{1,19}")
MAX_NAME_CHARS: Final = 4_096
_MAX_UINT32: Final = 2**32 - 1
_MAX_INT64: Final = 2**63 - 1
_MAX_USD: Final = Decimal(10) ** 20
"""Decimal(38, 12) holds 26 digits before the point; nobody pays that much for a call."""


def text(value: Any) -> str | None:
    """A scalar as text; nothing that is longer than any name or id."""
    if type(value) is str:
        return value if len(value) <= MAX_NAME_CHARS else None
    return text_of(value) if isinstance(value, (bool, int, float)) else None


def json_text(value: Any) -> str | None:
    """Anything as text: JSON where it is structured."""
    return value if type(value) is str else None if isinstance(value, bytes) or value is None else text_of(value)


def count(value: Any) -> int | None:
    """A whole number from 0 to 2^63-1, also one written as text or double."""
    if type(value) is int:
        return value if 0 <= value <= _MAX_INT64 else None
    if type(value) is str and _DIGITS.fullmatch(value):
        return count(int(value))
    return int(value) if type(value) is float and value.is_integer() and 0 <= value < _MAX_INT64 else None


def small_count(value: Any) -> int | None:
    """A whole number of 32 bits."""
    found = count(value)
    return found if found is not None and found <= _MAX_UINT32 else None


def flag(value: Any) -> bool | None:
    """A bool."""
    return value if type(value) is bool else None


def milliseconds(value: Any) -> float | None:
    """Seconds as milliseconds."""
    number = _float(value)
    return number * 1_000 if number is not None else None


def usd(value: Any) -> Decimal | None:
    """US dollars, rounded as every cost is."""
    number = _float(value)
    if number is None:
        return None
    try:
        amount = Decimal(repr(number) if type(value) is not str else value)
    except InvalidOperation:
        return None
    return amount.quantize(COST_QUANTUM) if amount.is_finite() and 0 <= amount < _MAX_USD else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number - number == 0 else None


_FINISH_REASONS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "tool_call": "tool_use",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}
_PROVIDERS: Final[Mapping[str, str]] = {
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}


def stop_reason(value: Any) -> str | None:
    """The first finish reason, in Anthropic's words where one has the same meaning."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return _FINISH_REASONS.get(value, value) if type(value) is str else None


def provider(value: Any) -> str | None:
    """OpenTelemetry's name of a provider, whatever the case."""
    if type(value) is not str:
        return None
    name = value.strip().lower()
    return _PROVIDERS.get(name, name)


SPAN_FIELDS: Final[Mapping[str, tuple[str, Reader]]] = {
    at.OPERATION_NAME: ("operation", text),
    at.RUN_ID: ("run_id", text),
    at.RUN_PARENT_ID: ("parent_run_id", text),
    at.AGENT_NAME: ("agent", text),
    at.AGENT_VERSION: ("agent_version", text),
    at.USER_ID: ("user_id", text),
    at.CONVERSATION_ID: ("conversation_id", text),
    at.TASK_ID: ("task_id", text),
    at.TURN: ("turn", small_count),
    at.ERROR_TYPE: ("error_type", text),
    at.ERROR_CLASS: ("error_class", text),
    at.PROVIDER_NAME: ("provider", provider),
    at.REQUEST_MODEL: ("request_model", text),
    at.RESPONSE_MODEL: ("model", text),
    at.RESPONSE_ID: ("response_id", text),
    at.RESPONSE_FINISH_REASONS: ("stop_reason", stop_reason),
    at.RESPONSE_TTFT: ("ttft_ms", milliseconds),
    at.STREAM_LONGEST_GAP: ("longest_gap_ms", milliseconds),
    at.HTTP_ATTEMPTS: ("http_attempts", small_count),
    at.PARTIAL: ("partial", flag),
    at.USAGE_INPUT_TOKENS: ("input_tokens", count),
    at.USAGE_OUTPUT_TOKENS: ("output_tokens", count),
    at.USAGE_CACHE_READ_TOKENS: ("cache_read_tokens", count),
    at.USAGE_CACHE_WRITE_TOKENS: ("cache_write_tokens", count),
    at.USAGE_CACHE_WRITE_1H_TOKENS: ("cache_write_1h_tokens", count),
    at.USAGE_REASONING_TOKENS: ("thinking_tokens", count),
    at.USAGE_WEB_SEARCHES: ("web_searches", small_count),
    at.USAGE_RAW: ("usage_raw", json_text),
    at.COST_USD: ("reported_cost_usd", usd),
    at.TOOL_NAME: ("tool", text),
    at.TOOL_CALL_ID: ("call_id", text),
    at.TOOL_CALL_ARGUMENTS: ("input_text", json_text),
    at.TOOL_CALL_RESULT: ("output_text", json_text),
    at.TOOL_ATTEMPT: ("attempt", small_count),
    at.TOOL_SIDE_EFFECTS: ("side_effects", flag),
    at.TOOL_IDEMPOTENCY: ("idempotency", text),
    at.TOOL_KEY: ("key", text),
    at.PROMPT_NAME: ("prompt_name", text),
    at.PROMPT_VERSION: ("prompt_version", text),
    at.RUN_INPUT: ("input_text", json_text),
    at.RUN_FINAL_ANSWER: ("output_text", json_text),
    at.RUN_OUTCOME: ("outcome", text),
    at.RUN_CONFIG: ("config", json_text),
    at.RUN_LIMITS: ("limits", json_text),
    at.RUN_LIMIT_HIT: ("limit_hit", text),
    at.HEARTBEAT_AT: ("heartbeat_at", count),
    at.REDACTIONS: ("redactions", small_count),
}
"""Attribute -> (column, reader): names that Loopscope writes or the conventions define."""

SPAN_ALIASES: Final[Mapping[str, tuple[str, Reader]]] = {
    at.SYSTEM_LEGACY: ("provider", provider),
    at.SESSION_ID: ("conversation_id", text),
    at.USAGE_CACHE_CREATION_TOKENS: ("cache_write_tokens", count),
    at.USAGE_CACHE_CREATION_TOKENS_LEGACY: ("cache_write_tokens", count),
    at.USAGE_CACHE_READ_TOKENS_LEGACY: ("cache_read_tokens", count),
    at.ANTHROPIC_STOP_REASON: ("stop_reason", stop_reason),
    at.ANTHROPIC_CACHE_WRITE_1H_TOKENS: ("cache_write_1h_tokens", count),
    at.ENDUSER_ID: ("user_id", text),
}
"""Other names for a column: read where the first name is absent, in this order."""

CONTENT_FIELDS: Final = frozenset(
    {
        at.REQUEST_BODY,
        at.RESPONSE_BODY,
        at.INPUT_MESSAGES,
        at.OUTPUT_MESSAGES,
        at.SYSTEM_INSTRUCTIONS,
        at.TOOL_DEFINITIONS,
        at.CUT,
    }
)
"""Attributes that the dialects read themselves."""

RESOURCE_FIELDS: Final[Mapping[str, str]] = {
    at.SERVICE_NAME: "service",
    at.DEPLOYMENT_ENVIRONMENT: "environment",
    at.PROCESS_ID: "process_id",
}
"""Attributes of the resource that have a column on each span; they stay in the resource's map too."""

LOSSY_FIELDS: Final = frozenset({at.PROVIDER_NAME, at.RESPONSE_FINISH_REASONS})
"""Attributes whose column may say it in other words: the map then keeps what was sent."""

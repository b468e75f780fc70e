"""How a turn of the CLI ended, in the run's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loopscope._internal.errors import UNKNOWN, class_of_status

_LIMITS = {"error_max_turns": "max_turns", "error_max_budget_usd": "max_cost_usd"}


@dataclass(frozen=True, slots=True)
class Ending:
    """Outcome of a turn; `limit` names the limit that was hit, `error` says what failed."""

    outcome: Literal["completed", "partial", "limit", "failed"]
    answer: object = None
    limit: str | None = None
    error: str | None = None
    error_type: str | None = None
    error_class: str = UNKNOWN


def ending_of(result: Mapping[str, Any]) -> Ending:
    """What a `result` message says."""
    subtype = str(result.get("subtype"))
    structured = result.get("structured_output")
    answer = structured if structured is not None else result.get("result")
    if subtype in _LIMITS:
        return Ending("limit", answer, limit=_LIMITS[subtype])
    if str(result.get("terminal_reason") or "").startswith("aborted"):
        return Ending("partial", answer)  # interrupted by the host
    if subtype == "success" and not result.get("is_error"):
        return Ending("completed", answer)
    errors = result.get("errors")
    said = "; ".join(map(str, errors)) if isinstance(errors, list) else str(answer or subtype)  # pyright: ignore[reportUnknownArgumentType]
    status = result.get("api_error_status")
    return Ending(
        "failed",
        answer,
        error=said or subtype,
        error_type=f"api_error_{status}" if isinstance(status, int) else subtype,
        error_class=class_of_status(status) if isinstance(status, int) else UNKNOWN,
    )

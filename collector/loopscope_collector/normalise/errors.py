"""Whether an error is worth a retry, where the sender did not say. Data; used by `spans`."""

from typing import Any, Final

_TRANSIENT: Final = (
    "rate_limit",
    "ratelimit",
    "overloaded",
    "timeout",
    "timed_out",
    "connection",
    "unavailable",
    "internalserver",
    "api_error",
)
_DETERMINISTIC: Final = (
    "invalid_request",
    "badrequest",
    "authentication",
    "permission",
    "not_found",
    "notfound",
    "too_large",
    "toolarge",
    "unprocessable",
    "billing",
)
_TRANSIENT_STATUS: Final = frozenset({408, 409, 429})


def error_class_of(error_type: str, http_status: Any) -> str:
    """transient, deterministic or unknown, by HTTP status first and by name of the error otherwise."""
    if isinstance(http_status, int) and http_status >= 400:
        return "transient" if http_status in _TRANSIENT_STATUS or http_status >= 500 else "deterministic"
    name = error_type.rpartition(".")[2].lower()
    if any(part in name for part in _TRANSIENT):
        return "transient"
    if any(part in name for part in _DETERMINISTIC):
        return "deterministic"
    return "unknown"

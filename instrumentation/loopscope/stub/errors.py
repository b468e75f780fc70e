"""The API's error shape, and the one exception that the stand-in turns into it.

Raised by validation and by scripts; rendered by the app. Knows nothing of HTTP servers.
"""

from collections.abc import Mapping
from typing import Any, Final

ERROR_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The API's name for each HTTP status it answers with."""

ERROR_MESSAGES: Final[Mapping[int, str]] = {
    429: "This request would exceed your organization's rate limit of 50 requests per minute. Please reduce the "
    "prompt length or the maximum tokens requested, or try again later.",
    500: "Internal server error",
    503: "Service temporarily unavailable",
    504: "The request timed out while it was being processed",
    529: "Overloaded",
}
"""What the API says where the cause lies on its side."""


class ApiError(Exception):
    """A request that the API refuses or fails.

    `status` is the HTTP status, `error_type` the API's own name for it (found by status when not given),
    `headers` are sent along (retry-after, ...), `details` lands in `error.details`.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        error_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.message = message or ERROR_MESSAGES.get(status, f"Request failed with status {status}")
        fallback = "api_error" if status >= 500 else "invalid_request_error"
        self.error_type = error_type or ERROR_TYPES.get(status, fallback)
        self.headers = dict(headers or {})
        self.details = dict(details) if details else None
        super().__init__(f"{status} {self.error_type}: {self.message}")

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body of the error response."""
        error: dict[str, Any] = {"type": self.error_type, "message": self.message}
        if self.details:
            error["details"] = self.details
        return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str) -> ApiError:
    """A 400 `invalid_request_error`."""
    return ApiError(400, message)

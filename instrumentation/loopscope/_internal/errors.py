"""Whether an error is worth a retry: transient, deterministic, cancelled, or unknown. Pure; no import of any SDK.

The anthropic SDK's and httpx's errors are told by attributes and class names along the class hierarchy, so that they
need not be imported to be recognised.
"""

TRANSIENT = "transient"
DETERMINISTIC = "deterministic"
CANCELLED = "cancelled"
"""The host stopped it: a cancelled task, an interrupt, an exit. Nothing failed, so no retry is called for."""
UNKNOWN = "unknown"

_TRANSIENT_STATUS = {408, 409, 429}
_TRANSIENT_API_TYPES = {
    "rate_limit_error",
    "overloaded_error",
    "api_error",
    "timeout_error",
    # as Bedrock names them inside a stream
    "internalServerException",
    "modelStreamErrorException",
    "modelTimeoutException",
    "serviceUnavailableException",
    "throttlingException",
}
_TRANSIENT_CLASSES = {"APIConnectionError", "APITimeoutError", "TransportError", "TimeoutException", "RetryableError"}
_DETERMINISTIC_BUILTINS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    AssertionError,
    NotImplementedError,
    ArithmeticError,
    FileNotFoundError,
    PermissionError,
)


def class_of_status(status: int | None) -> str:
    """By HTTP status: 408, 409, 429 and 5xx may pass; other 4xx will not."""
    if status is None:
        return UNKNOWN
    if status in _TRANSIENT_STATUS or status >= 500:
        return TRANSIENT
    return DETERMINISTIC if 400 <= status < 500 else UNKNOWN


def class_of_api_type(error_type: str) -> str:
    """By the API's own error type, as a stream's error event names it."""
    return TRANSIENT if error_type in _TRANSIENT_API_TYPES else DETERMINISTIC


def error_class_of(error: BaseException) -> str:
    """By exception: what is no `Exception` stops the work by intent; else an HTTP status when it has one, connection
    and time-out errors, plain programming errors."""
    if not isinstance(error, Exception) or type(error).__name__ == "CancelledError":
        return CANCELLED
    for name in ("status_code", "api_error_status"):  # the latter of claude-agent-sdk's ResultError
        status = getattr(error, name, None)
        if isinstance(status, int) and status >= 400:
            return class_of_status(status)
    if any(cls.__name__ in _TRANSIENT_CLASSES for cls in type(error).__mro__):
        return TRANSIENT
    if isinstance(error, TimeoutError | ConnectionError):
        return TRANSIENT
    if isinstance(error, _DETERMINISTIC_BUILTINS):
        return DETERMINISTIC
    return UNKNOWN

"""Errors as ClickHouse words them: a code, a text, and the HTTP status that goes with the code.

Raised by the guard, the handles and the server; `server` turns them into answers. Knows nothing of HTTP beyond the
status.
"""

import re
from typing import Self

SYNTAX_ERROR = 62
BAD_ARGUMENTS = 36
UNKNOWN_SETTING = 115
TIMEOUT_EXCEEDED = 159
READONLY = 164
REQUIRED_PASSWORD = 194
TOO_MANY_SIMULTANEOUS_QUERIES = 202
NETWORK_ERROR = 210
NOT_IMPLEMENTED = 48
CANNOT_DECOMPRESS = 271
TOO_LARGE_STRING_SIZE = 131
QUERY_WAS_CANCELLED = 394
TOO_MANY_ROWS_OR_BYTES = 396
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
UNKNOWN_EXCEPTION = 1002

_NAMES = {
    SYNTAX_ERROR: "SYNTAX_ERROR",
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    UNKNOWN_SETTING: "UNKNOWN_SETTING",
    TIMEOUT_EXCEEDED: "TIMEOUT_EXCEEDED",
    READONLY: "READONLY",
    REQUIRED_PASSWORD: "REQUIRED_PASSWORD",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    NETWORK_ERROR: "NETWORK_ERROR",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    TOO_LARGE_STRING_SIZE: "TOO_LARGE_STRING_SIZE",
    TOO_MANY_ROWS_OR_BYTES: "TOO_MANY_ROWS_OR_BYTES",
    QUERY_WAS_CANCELLED: "QUERY_WAS_CANCELLED",
    ACCESS_DENIED: "ACCESS_DENIED",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}

# The server's own table, for the codes that reach a client of ours. All others are 500.
_STATUS = {
    **dict.fromkeys(
        (6, 26, 27, 32, 33, 36, 38, 41, 43, 44, 53, 62, 69, 70, 72, 117, 131, 158, 271, 321, 456, 457), 400
    ),
    194: 401,
    **dict.fromkeys((164, 192, 193, 497, 516), 403),
    **dict.fromkeys((16, 46, 47, 50, 60, 81, 115), 404),
    159: 408,
    **dict.fromkeys((48,), 501),
    **dict.fromkeys((202, 252), 503),
}

_CODE = re.compile(r"Code:\s*(\d+)\.")
_PREFIX = re.compile(r"^(?:Streaming query failed:|Streaming insert (?:append|finish) failed:)\s*")
_SCOPE_TAIL = re.compile(r"\s*\(version [0-9.]+[^)]*\)\s*$")


class ClickHouseError(Exception):
    """A failure with ClickHouse's error code; `str()` is the whole body of the answer.

    Attributes: `code` (ClickHouse's number), `status` (HTTP).
    """

    def __init__(self, code: int, message: str, *, status: int | None = None) -> None:
        name = _NAMES.get(code)
        super().__init__(f"Code: {code}. DB::Exception: {message}" + (f" ({name})" if name else ""))
        self.code = code
        self.status = _STATUS.get(code, 500) if status is None else status

    @classmethod
    def from_engine(cls, error: BaseException) -> Self:
        """Wrap what chDB raised: its text already reads `Code: N. DB::Exception: ...`."""
        text = _SCOPE_TAIL.sub("", _PREFIX.sub("", str(error)).strip())
        match = _CODE.search(text)
        made = cls.__new__(cls)
        if match is None:
            ClickHouseError.__init__(made, UNKNOWN_EXCEPTION, text or type(error).__name__)
            return made
        Exception.__init__(made, text[match.start() :])
        made.code = int(match.group(1))
        made.status = _STATUS.get(made.code, 500)
        return made

    @classmethod
    def copy(cls, other: "ClickHouseError") -> Self:
        """The same error anew: raising one object twice would grow its traceback."""
        made = cls.__new__(cls)
        Exception.__init__(made, str(other))
        made.code, made.status = other.code, other.status
        return made

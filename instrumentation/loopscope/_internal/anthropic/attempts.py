"""The HTTP requests of one call, as the host's thread sees them; events are made only when one was not enough.

`calls` reports each request as it is built, answered, given up for another or failed for good. A call that needs one
request costs two readings of the clock here.
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

from loopscope._internal.recording import qualified_name
from loopscope_schemas import attributes as at

EVENTS_MAX = 50
"""Events of one call; of more requests (a host that retries for hours) the first ones and the last are kept."""


class _Ended(NamedTuple):
    number: int
    sent: float
    seconds: float
    status: int | None
    headers: Any
    error: str | None
    delay: float | None


class Attempts:
    """The requests of one call. `count` is how many were sent."""

    __slots__ = ("_ended", "_response", "_sent", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sent = 0.0
        """Clock of the request under way; 0 when none is."""
        self._response: Any = None
        self._ended: list[_Ended] = []

    def sent(self) -> None:
        """One request was built and is about to be sent."""
        self._end(None, None)  # a middleware that sends again tells nobody what became of the one before
        self._response = None
        self.count += 1
        self._sent = time.perf_counter()

    def refused(self, response: Any) -> None:
        """The SDK looks at an answer to decide whether to send again."""
        self._response = response

    def giving_up(self, delay: float | None) -> None:
        """The SDK will send again after `delay` seconds: the request under way has failed."""
        response, self._response = self._response, None
        if self._sent:
            # Where no answer is the reason, the SDK is handling the error just now.
            self._end(response, sys.exc_info()[1] if response is None else None, delay)
        elif self._ended:
            self._ended[-1] = self._ended[-1]._replace(delay=delay)  # a middleware had the answer first

    def answered(self, response: Any) -> None:
        """An answer that the SDK goes on with."""
        self._end(response, None)

    def failed(self, response: Any, error: BaseException) -> None:
        """The call failed for good, perhaps with an answer."""
        self._end(response, None if response is not None else error)

    def _end(self, response: Any, error: BaseException | None, delay: float | None = None) -> None:
        sent, self._sent = self._sent, 0.0
        if not sent:
            return
        response = getattr(error, "response", None) if response is None else response
        status = getattr(response, "status_code", None)
        ended = _Ended(
            self.count,
            sent,
            time.perf_counter() - sent,
            status if isinstance(status, int) else None,
            getattr(response, "headers", None),
            qualified_name(type(error)) if error is not None else None,
            delay,
        )
        if len(self._ended) == EVENTS_MAX:
            self._ended.pop()
        self._ended.append(ended)

    def events(self, start_time: int, start_clock: float) -> list[tuple[int, str, dict[str, Any]]]:
        """One event a request, when there were several, at the time it was sent.

        `start_time` (Unix nanoseconds) and `start_clock` (seconds) are the same moment on both clocks.
        """
        if self.count < 2:
            return []
        return [
            (start_time + int((each.sent - start_clock) * 1e9), at.HTTP_ATTEMPT_EVENT, _attributes(each))
            for each in self._ended
        ]


def _attributes(each: _Ended) -> dict[str, Any]:
    attributes: dict[str, Any] = {at.HTTP_RESEND_COUNT: each.number - 1, at.HTTP_ATTEMPT_DURATION: each.seconds}
    if each.status is not None:
        attributes[at.HTTP_STATUS_CODE] = each.status
    if each.error is not None:
        attributes[at.ERROR_TYPE] = each.error
    if each.headers is not None:
        if request_id := request_id_of(each.headers):
            attributes[at.HTTP_REQUEST_ID] = request_id
        if (asked := _retry_after(each.headers)) is not None:
            attributes[at.HTTP_RETRY_AFTER] = asked
    if each.delay is not None:
        attributes[at.HTTP_RETRY_DELAY] = each.delay
    return attributes


def request_id_of(headers: Any) -> str | None:
    """The provider's id of a request, from the headers of its answer."""
    for name in ("request-id", "x-amzn-requestid"):
        value = headers.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _retry_after(headers: Any) -> float | None:
    """Seconds; a date, which nobody was seen to send, is left out: the delay says what came of it."""
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            return float(headers.get(name)) / unit
        except (TypeError, ValueError):
            continue
    return None

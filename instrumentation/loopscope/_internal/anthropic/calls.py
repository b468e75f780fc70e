"""One call of the anthropic SDK, as it happens on the host's thread: references are taken, nothing is read.

`patching` calls `begin_call` at the funnel, then the methods of the LLMCall in the order of events. A call ends when it
returned or failed, or, where the answer is streamed, when its stream does.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from loopscope._internal import guard, runtime, scope
from loopscope._internal.errors import class_of_status, error_class_of
from loopscope._internal.recording import CLIENT, Recording, qualified_name
from loopscope_schemas import attributes as at

from .answers import Answer, complete, complete_count
from .attempts import Attempts
from .batch_results import complete_submission
from .batches import Listener, begin_batch_request
from .operations import CHAT, COUNT_TOKENS, CREATE_BATCH, operation_of
from .placing import Place
from .providers import address_attributes, provider_of, server_of
from .stopping import StoppedCall
from .streams import StreamCapture, listen

if TYPE_CHECKING:
    from loopscope._internal.runtime import Runtime

_SCALARS = {
    "max_tokens": at.REQUEST_MAX_TOKENS,
    "temperature": at.REQUEST_TEMPERATURE,
    "top_p": at.REQUEST_TOP_P,
    "top_k": at.REQUEST_TOP_K,
}

_NUMBERS = (int, float)
"""A tuple: `int | float` would be built anew at every look."""
_COMPLETE = {CHAT: complete, COUNT_TOKENS: complete_count, CREATE_BATCH: complete_submission}


@guard.guarded
def begin_call(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | Listener | StoppedCall | None:
    """The call to record for this request, or the one that a limit forbids, or what else listens to it; None when it is
    of no interest or nothing is configured."""
    inside = scope.here()
    active, capture = runtime.recording_at(inside)
    if active is None:
        return None
    options = args[1] if len(args) > 1 else kwargs.get("options")
    if options is None:
        return None
    operation = operation_of(options.method, options.url)
    if operation is None:
        return begin_batch_request(active, client, options)
    place = Place.of(active, options, operation, inside)
    hit = place.limit_reached()
    if hit is not None:
        return StoppedCall(active, place, hit)
    return LLMCall(active, client, options, operation, place, capture)


@guard.guarded
def begin_outside(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | None:
    """The call to record for a request that is sent while no call is under way: by a middleware, as its caller reads
    the stream that it was given."""
    inside = scope.here()
    active, capture = runtime.recording_at(inside)
    options = args[0] if args else kwargs.get("options")
    operation = operation_of(options.method, options.url) if active is not None and options is not None else None
    if active is None or operation is None:
        return None
    return LLMCall(active, client, options, operation, Place.of(active, options, operation, inside), capture)


class LLMCall:
    """From the request to the end of the answer. Also a count of tokens, which is asked and answered the same way."""

    __slots__ = (
        "_answer",
        "_answered_well",
        "_attempts",
        "_capture",
        "_next",
        "_operation",
        "_place",
        "_recording",
        "_stream",
    )

    def __init__(self, active: Runtime, client: Any, options: Any, operation: str, place: Place, capture: str) -> None:
        body = options.json_data if isinstance(options.json_data, dict) else {}
        model = body.get("model")
        attributes = place.attributes(active)
        attributes[at.OPERATION_NAME] = operation
        attributes[at.PROVIDER_NAME] = provider_of(client)
        if (turn := place.next_turn()) is not None:
            attributes[at.TURN] = turn
        if isinstance(model, str):
            attributes[at.REQUEST_MODEL] = model
        attributes[at.SERVER_ADDRESS], attributes[at.SERVER_PORT] = server_of(client.base_url)
        name = f"{operation} {model}" if isinstance(model, str) else operation
        self._place = place
        self._capture = capture
        self._recording: Recording = runtime.start(active, name, CLIENT, place.parent, attributes, capture=capture)
        attributes[at.RUN_ID] = place.run_id(self._recording)
        self._operation = operation
        self._attempts = Attempts()
        self._answer = Answer(requested=time.perf_counter())
        self._stream: StreamCapture | None = None
        self._answered_well = False
        self._next: LLMCall | None = None
        place.begun(active, self._recording.start.start_time)
        if place.run is not None and place.run.limits is not None:
            place.check_price(active, attributes[at.PROVIDER_NAME], model)
        runtime.announce(self._recording, heartbeat=place.run is None)

    @guard.guarded
    def attempt(self, client: Any, request: Any, options: Any) -> None:
        """One HTTP request was built; its body is final."""
        if self._answered_well and self._next is None and (active := runtime.active()) is not None:
            # Not a retry: a middleware asks once more although it was answered (a fallback to another model).
            self.returned()
            place = Place.of(active, options, self._operation, scope.here())
            self._next = LLMCall(active, client, options, self._operation, place, self._capture)
        if self._next is not None:
            self._next.attempt(client, request, options)
            return
        self._attempts.sent()
        try:
            content = request.content
        except Exception:  # noqa: BLE001 - a body that is a stream: it is the host's to read, so it is not recorded
            content = None
        if isinstance(content, bytes):
            self._answer.request_body = content
        if self._attempts.count == 1:
            attributes = self._recording.payload.attributes
            _parameters(options, attributes)
            attributes.update(address_attributes(options.url))

    @guard.guarded
    def refused(self, response: Any) -> None:
        """The SDK looks at an answer to decide whether to send the request again."""
        if self._next is not None:
            self._next.refused(response)
            return
        self._attempts.refused(response)

    @guard.guarded
    def retrying(self, delay: Any) -> None:
        """The SDK is about to wait `delay` seconds and send the request again."""
        if self._next is not None:
            self._next.retrying(delay)
            return
        self._attempts.giving_up(delay if isinstance(delay, int | float) else None)

    @guard.guarded
    def answered(self, response: Any) -> None:
        """A response arrived, read or not; the SDK has not looked at it yet."""
        if response is None:
            return
        if self._next is not None:
            self._next.answered(response)
            return
        self._attempts.answered(response)
        self._answer.status = response.status_code
        self._answer.headers = response.headers
        self._answered_well = response.status_code < 400
        if self._take_content(response) or not self._answered_well:
            return  # the SDK reads an error's body before it raises; where a middleware reads it, nothing has ended
        capture = StreamCapture(self._stream_ended)
        if listen(response, capture):
            self._stream = capture

    @guard.guarded
    def answered_outside(self, result: Any) -> None:
        """A request that no call is around was answered; `result` is the SDK's pair of response and options."""
        response = result[0]
        self.answered(response)
        if response.status_code >= 400:
            status = response.status_code
            self._recording.payload.failed = f"HTTP {status}"
            self._recording.set({at.ERROR_TYPE: str(status), at.ERROR_CLASS: class_of_status(status)})
        self.returned()

    def _take_content(self, response: Any) -> bool:
        """The body of a response that was read, by reference."""
        try:
            self._answer.body = response.content
        except Exception:  # noqa: BLE001 - "not read yet", in the words of httpx or of a stand-in for it
            return False
        return True

    @guard.guarded
    def returned(self) -> None:
        """The SDK's call returned. A streamed answer is still to come."""
        if self._next is not None:
            self._next.returned()
            return
        if self._stream is None:
            self._end()

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        """The SDK's call raised."""
        if self._next is not None:
            self._next.failed(error)
            return
        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        kind, name = error_class_of(error), qualified_name(type(error))
        self._attempts.failed(response, error)
        if isinstance(status, int):
            self._answer.status = status
            self._answer.headers = response.headers
            self._take_content(response)
            if status >= 400:
                kind = class_of_status(status)
                name = api_error_type(error) or name
        self._recording.error(error, error_type=name, error_class=kind)
        self._end()

    @guard.guarded
    def _stream_ended(self, error: BaseException | None) -> None:
        if error is not None and self._recording.open:
            self._recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
        self._end()

    def _end(self) -> None:
        if not self._recording.open:
            return
        answer, stream = self._answer, self._stream
        payload = self._recording.payload
        payload.attributes[at.HTTP_ATTEMPTS] = self._attempts.count
        if answer.status is not None:
            payload.attributes[at.HTTP_STATUS_CODE] = answer.status
        if stream is not None:
            answer.chunks = stream.chunks
            answer.arrivals = stream.arrivals
            answer.streamed = True
            answer.exhausted = stream.exhausted
            answer.overflow_bytes = stream.overflow_bytes
            stream.release()
        if self._attempts.count > 1:
            payload.events += self._attempts.events(self._recording.start.start_time, answer.requested)
        payload.size = len(answer.request_body or b"") + len(answer.body or b"") + sum(map(len, answer.chunks))
        payload.complete = functools.partial(_COMPLETE[self._operation], answer)
        self._stream = None
        # Who keeps an exception keeps the frames it went through, and with them this object: not what it held.
        self._answer = Answer()
        self._place.ended(self._recording, answer)


def _parameters(options: Any, attributes: dict[str, Any]) -> None:
    """Request parameters that are attributes of their own; shallow looks at the SDK's own copy of the body."""
    body: Any = options.json_data
    extra: Any = getattr(options, "extra_json", None)
    if not isinstance(body, dict):
        body = {}
    if isinstance(extra, dict):
        body = {**body, **extra}
    for name, attribute in _SCALARS.items():
        value = body.get(name)
        if value is not None and type(value) is not bool and isinstance(value, _NUMBERS):
            attributes[attribute] = value
    requests = body.get("requests")
    if requests is not None and isinstance(requests, list | tuple):
        attributes[at.BATCH_REQUESTS] = len(requests)  # pyright: ignore[reportUnknownArgumentType]
    stops = body.get("stop_sequences")
    if stops and isinstance(stops, list | tuple):
        attributes[at.REQUEST_STOP_SEQUENCES] = [str(stop) for stop in stops]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if body.get("stream") is True:
        attributes[at.REQUEST_STREAM] = True
    model = body.get("model")
    if isinstance(model, str):
        attributes[at.REQUEST_MODEL] = model


def api_error_type(error: BaseException) -> str | None:
    """The API's own name of the error (`rate_limit_error`), from the body that the SDK has parsed already."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    kind = inner.get("type") if isinstance(inner, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return kind if isinstance(kind, str) and kind else None

"""One LLM call of the anthropic SDK, as it happens on the host's thread: references are taken, nothing is read.

`patching` calls `begin_call` at the funnel, then the methods of the LLMCall in the order of events. A call ends when it
returned or failed, or, where the answer is streamed, when its stream does.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from loopscope._internal import guard, runtime
from loopscope._internal.errors import class_of_status, error_class_of
from loopscope._internal.recording import CLIENT, Recording, qualified_name
from loopscope_schemas import attributes as at

from .answers import Answer, complete
from .batches import Call, begin_batch_call
from .placing import Place
from .providers import address_attributes, provider_of
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


@guard.guarded
def begin_call(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | StoppedCall | None:
    """What is recorded of this request, or the call that a limit forbids; None when it is of no interest or nothing is
    configured."""
    active = runtime.active()
    if active is None:
        return None
    options = args[1] if len(args) > 1 else kwargs.get("options")
    if options is None:
        return None
    if not is_messages_call(options.method, options.url):
        return begin_batch_call(active, client, options)
    place = Place.of(active, options)
    hit = place.limit_reached()
    if hit is not None:
        return StoppedCall(active, place, hit)
    return LLMCall(active, client, options, place)


def is_messages_call(method: str, url: str) -> bool:
    """Whether a request asks for an answer: POST .../messages, not token counts, batches or anything else."""
    return method.lower() == "post" and url.partition("?")[0].rstrip("/").endswith("/messages")


class LLMCall:
    """From the request to the end of the answer."""

    def __init__(self, active: Runtime, client: Any, options: Any, place: Place) -> None:
        config = active.config
        body = options.json_data if isinstance(options.json_data, dict) else {}
        model = body.get("model")
        attributes = place.attributes(active)
        attributes[at.OPERATION_NAME] = "chat"
        attributes[at.PROVIDER_NAME] = provider_of(client)
        attributes[at.TURN] = place.next_turn()
        if isinstance(model, str):
            attributes[at.REQUEST_MODEL] = model
        base_url = client.base_url
        attributes[at.SERVER_ADDRESS] = base_url.host
        attributes[at.SERVER_PORT] = base_url.port or (443 if base_url.scheme == "https" else 80)
        name = f"chat {model}" if isinstance(model, str) else "chat"
        self._place = place
        self._recording: Recording = runtime.start(active, name, CLIENT, place.parent, attributes)
        attributes[at.RUN_ID] = place.run_id(self._recording)
        self._capture_content = config.capture_content
        self._attempts = 0
        self._answer = Answer(requested=time.perf_counter())
        self._stream: StreamCapture | None = None
        place.begun(active, self._recording.start.start_time)
        place.check_price(active, attributes[at.PROVIDER_NAME], model)
        runtime.announce(self._recording, heartbeat=place.run is None)

    @guard.guarded
    def attempt(self, request: Any, options: Any) -> None:
        """One HTTP request was built; its body is final."""
        self._attempts += 1
        try:
            content = request.content
        except Exception:  # noqa: BLE001 - a body that is a stream: it is the host's to read, so it is not recorded
            content = None
        if isinstance(content, bytes):
            self._answer.request_body = content
        if self._attempts == 1:
            self._recording.set(_parameters(options) | address_attributes(options.url))

    @guard.guarded
    def answered(self, response: Any) -> None:
        """A response arrived, read or not; the SDK has not looked at it yet."""
        if response is None:
            return
        self._answer.status = response.status_code
        self._answer.headers = response.headers
        if self._take_content(response):
            return
        capture = StreamCapture(self._stream_ended)
        if listen(response, capture):
            self._stream = capture

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
        if self._stream is None:
            self._end()

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        """The SDK's call raised."""
        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        kind, name = error_class_of(error), qualified_name(type(error))
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
        if error is not None:
            self._recording.error(error, error_type=qualified_name(type(error)), error_class=error_class_of(error))
        self._end()

    def _end(self) -> None:
        if not self._recording.open:
            return
        answer, stream = self._answer, self._stream
        attributes: dict[str, Any] = {at.HTTP_ATTEMPTS: self._attempts}
        if answer.status is not None:
            attributes[at.HTTP_STATUS_CODE] = answer.status
        self._recording.set(attributes)
        if stream is not None:
            answer.chunks = stream.chunks
            answer.arrivals = stream.arrivals
            answer.streamed = True
            answer.exhausted = stream.exhausted
            answer.overflow_bytes = stream.overflow_bytes
            stream.release()
        payload = self._recording.payload
        payload.size = len(answer.request_body or b"") + len(answer.body or b"") + sum(map(len, answer.chunks))
        answer.capture_content = self._capture_content
        payload.complete = functools.partial(complete, answer)
        self._stream = None
        self._place.ended(self._recording, answer)


def _parameters(options: Any) -> dict[str, Any]:
    """Request parameters that are attributes of their own; shallow looks at the SDK's own copy of the body."""
    body: dict[str, Any] = {}
    for part in (options.json_data, getattr(options, "extra_json", None)):
        if isinstance(part, dict):
            body.update(part)  # pyright: ignore[reportUnknownArgumentType]
    attributes: dict[str, Any] = {}
    for name, attribute in _SCALARS.items():
        value = body.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            attributes[attribute] = value
    stops = body.get("stop_sequences")
    if isinstance(stops, list | tuple) and stops:
        attributes[at.REQUEST_STOP_SEQUENCES] = [str(stop) for stop in stops]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if body.get("stream") is True:
        attributes[at.REQUEST_STREAM] = True
    model = body.get("model")
    if isinstance(model, str):
        attributes[at.REQUEST_MODEL] = model
    return attributes


def api_error_type(error: BaseException) -> str | None:
    """The API's own name of the error (`rate_limit_error`), from the body that the SDK has parsed already."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    kind = inner.get("type") if isinstance(inner, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return kind if isinstance(kind, str) and kind else None

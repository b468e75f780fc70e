"""One tool call that this process serves over MCP, from the request to the answer.

A call whose client is recorded too counts there: here it is `serve_tool`, the same call seen from the server, below the
client's span and in its run. A call of anybody else is an `execute_tool` of this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from loopscope._internal import guard, runtime, scope, toolcalls
from loopscope._internal.jsontext import json_text
from loopscope._internal.runs import owner_attributes
from loopscope_schemas import attributes as at

from . import context
from .client import calling, error_text, fail, finish, is_error, open_span, wire_form

if TYPE_CHECKING:
    from loopscope._internal.runtime import Runtime

SERVER = 2
"""OTLP's number of the span kind."""


serving: ContextVar[ServedCall | None] = ContextVar("loopscope_mcp_served", default=None)
"""The call that the running code serves."""


class Request(NamedTuple):
    """What is asked, as either generation of the SDK has it."""

    name: object
    arguments: object
    meta: Mapping[str, Any] | None
    server_name: object = None
    session_id: object = None
    protocol_version: object = None
    request_id: object = None


@guard.guarded
def begin_serving(request: Request) -> ServedCall | None:
    """The call to record; None when nothing is configured."""
    active = runtime.active()
    return ServedCall(active, request) if active is not None else None


class ServedCall:
    """From the request to the answer."""

    def __init__(self, active: Runtime, request: Request) -> None:
        outer, has_client = _place(request.meta, scope.here())
        name = str(request.name)
        operation = "serve_tool" if has_client else "execute_tool"
        # The run's agent is the client's; without its Run at hand nothing is known of it, and it is not this process'.
        known = not has_client or (outer is not None and outer.run is not None)
        attributes = owner_attributes(active.config, outer.run if outer is not None else None) if known else {}
        attributes |= {at.OPERATION_NAME: operation, at.TOOL_NAME: name, at.TOOL_TYPE: "extension"}
        for attribute, value in (
            (at.MCP_SERVER_NAME, request.server_name),
            (at.MCP_SESSION_ID, request.session_id),
            (at.MCP_PROTOCOL_VERSION, request.protocol_version),
            (at.JSONRPC_REQUEST_ID, None if request.request_id is None else str(request.request_id)),
        ):
            if isinstance(value, str) and value:
                attributes[attribute] = value
        if outer is not None and outer.run is not None:
            attributes[at.TURN] = max(outer.run.turn, 1)
        self._recording, inside = open_span(active, f"{operation} {name}", SERVER, attributes, outer)
        given = request.arguments if request.arguments is not None else {}
        self._recording.payload.texts[at.TOOL_CALL_ARGUMENTS] = json_text(given)
        runtime.announce(self._recording, heartbeat=outer is None)
        self._raised: BaseException | None = None
        self._tokens = calling.set(None), serving.set(self)
        self._around = scope.put(inside)

    @guard.guarded
    def leave(self) -> None:
        """The SDK's code goes on."""
        scope.put_back(self._around)
        calling.reset(self._tokens[0])
        serving.reset(self._tokens[1])

    @guard.guarded
    def raised(self, error: BaseException) -> None:
        """The tool's function raised; the client will be told less, perhaps nothing but that it failed."""
        self._raised = error.__cause__ or error

    @guard.guarded
    def returned(self, result: Any) -> None:
        """The answer: a result of either generation, as on the wire, or a protocol error."""
        message = getattr(result, "message", None)
        if isinstance(message, str) and getattr(result, "code", None) is not None:
            finish(self._recording, None, message)
            return
        result = getattr(result, "root", result)
        form = wire_form(result)
        if self._raised is not None and is_error(result):
            fail(self._recording, self._raised, form)
        else:
            finish(self._recording, form, error_text(result) if is_error(result) else None)

    @guard.guarded
    def abandoned(self) -> None:
        """Nobody waits for the answer any more (generation 1 swallows the cancelling of a request)."""
        if self._recording.open:
            self._recording.set({at.PARTIAL: True})
            finish(self._recording, None, "cancelled by the client")

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        fail(self._recording, error)


def _place(meta: Mapping[str, Any] | None, ambient: scope.Scope | None) -> tuple[scope.Scope | None, bool]:
    """Which span the call belongs below, and whether that is the same call seen by its client."""
    model_call = toolcalls.find((meta or {}).get(context.CLAUDE_TOOL_USE_ID))
    if model_call is not None:
        return model_call, True
    sent = context.extract(meta)
    if sent is not None:
        if ambient is not None and ambient.run_id == sent.run_id:
            sent = scope.Scope(sent.span, ambient.run, sent.run_id)  # client and server in one process
        return sent, True
    return ambient, calling.get() is not None


def meta_of(params: object) -> Mapping[str, Any] | None:
    """The `_meta` of a request: of raw params, or generation 1's model of it."""
    if isinstance(params, Mapping):
        meta: object = cast("Mapping[str, Any]", params).get("_meta")
        return cast("Mapping[str, Any]", meta) if isinstance(meta, Mapping) else None
    extra = getattr(params, "model_extra", None)
    return cast("Mapping[str, Any]", extra) if isinstance(extra, Mapping) else None

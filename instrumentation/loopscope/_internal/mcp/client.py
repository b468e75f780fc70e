"""One tool call that this process makes over MCP, from the request to its result."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from loopscope._internal import guard, runtime, scope
from loopscope._internal.errors import DETERMINISTIC, TRANSIENT, error_class_of
from loopscope._internal.jsontext import json_text
from loopscope._internal.recording import CLIENT, Recording, host_span, qualified_name
from loopscope._internal.runs import owner_attributes
from loopscope._internal.tools import recording_run_id
from loopscope_schemas import attributes as at

if TYPE_CHECKING:
    from loopscope._internal.runs import Run
    from loopscope._internal.runtime import Runtime

METHOD = "tools/call"
MAX_ERROR_CHARS = 2_000
_TRANSIENT_CODES = {408, -32001}
"""A request that timed out: the SDK's generation 1, and 2."""
_DETERMINISTIC_CODES = {-32600, -32601, -32602}
"""JSON-RPC's invalid request, unknown method, invalid params."""

calling: ContextVar[ClientCall | None] = ContextVar("loopscope_mcp_call", default=None)
"""The call that the running code makes: the SDK's own calls inside it are its rounds, not calls of their own."""
_server_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@guard.guarded
def remember(session: Any, initialized: Any) -> None:
    """What a server said it is, where the session does not keep it (generation 1)."""
    name = getattr(getattr(initialized, "serverInfo", None), "name", None)
    if isinstance(name, str):
        _server_names[session] = name


@guard.guarded
def begin_call(client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ClientCall | None:
    """The call to record; None when nothing is configured, or for a round of a call that is being recorded."""
    active = runtime.active()
    if active is None:
        return None
    outer_call = calling.get()
    if outer_call is not None and outer_call.is_session(client):
        return None
    name = args[0] if args else kwargs.get("name")
    arguments = args[1] if len(args) > 1 else kwargs.get("arguments")
    return ClientCall(active, client, str(name), arguments)


class ClientCall:
    """From the request to the result."""

    def __init__(self, active: Runtime, client: Any, name: str, arguments: object) -> None:
        self._client = client
        self._outer = scope.here()
        self._run: Run | None = self._outer.run if self._outer is not None else None
        text = json_text(arguments if arguments is not None else {})
        self._key = (name, hashlib.blake2b(text, digest_size=16).digest())
        attributes, run = owner_attributes(active.config, self._run), self._run
        attributes |= {at.OPERATION_NAME: "execute_tool", at.TOOL_NAME: name, at.TOOL_TYPE: "extension"}
        attributes |= _connection(client)
        self._attempt = 1
        if run is not None:
            attributes[at.TURN] = max(run.turn, 1)
            self._attempt = run.failed_attempts.get(self._key, 0) + 1
        attributes[at.TOOL_ATTEMPT] = self._attempt
        self._recording, self.scope = open_span(active, f"execute_tool {name}", CLIENT, attributes, self._outer)
        self._recording.payload.texts[at.TOOL_CALL_ARGUMENTS] = text
        if run is not None:
            self._recording.payload.complete = run.tool_uses.matcher(name)
        runtime.announce(self._recording, heartbeat=self._outer is None)
        self._token = calling.set(self)
        self._around = scope.put(self.scope)

    def is_session(self, client: Any) -> bool:
        """Whether a call of `client` inside this one is made by the SDK on its behalf."""
        return client is self._client or _session_of(self._client) is client

    @guard.guarded
    def leave(self) -> None:
        """The host's code goes on."""
        scope.put_back(self._around)
        calling.reset(self._token)

    @guard.guarded
    def returned(self, result: Any) -> None:
        failed = is_error(result)
        finish(self._recording, wire_form(result), error_text(result) if failed else None)
        if self._run is not None and failed:
            self._run.failed_attempts[self._key] = self._attempt
        elif self._run is not None:
            self._run.failed_attempts.pop(self._key, None)

    @guard.guarded
    def failed(self, error: BaseException) -> None:
        if self._run is not None:
            self._run.failed_attempts[self._key] = self._attempt
        fail(self._recording, error)


# --- what client and server share ---


def open_span(
    active: Runtime, name: str, kind: int, attributes: dict[str, Any], outer: scope.Scope | None
) -> tuple[Recording, scope.Scope]:
    """Begin a span inside `outer`, or as a run of its own; with its place."""
    parent = outer.span if outer is not None else host_span()
    attributes[at.MCP_METHOD_NAME] = METHOD
    recording = runtime.start(active, name, kind, parent, attributes)
    if outer is not None:
        run_id = outer.run_id
    else:
        run_id = f"{recording.ids.trace_id:032x}" if parent is None else recording_run_id()
    attributes[at.RUN_ID] = run_id
    return recording, scope.Scope(recording.ids, outer.run if outer is not None else None, run_id)


def finish(recording: Recording, result: object | None, error: str | None) -> None:
    """End with a result; `error` is the text of one that says that the tool failed."""
    if result is not None:
        recording.payload.texts[at.TOOL_CALL_RESULT] = json_text(result)
    if error is not None:
        recording.payload.failed = error[:MAX_ERROR_CHARS] or "the tool failed"
        recording.set({at.ERROR_TYPE: "tool_error", at.ERROR_CLASS: "unknown"})
    runtime.end(recording)


def fail(recording: Recording, error: BaseException, result: object | None = None) -> None:
    """End with an exception: a time-out, a cancelled call, a protocol error, a broken connection; or what a tool
    raised, with the result that was made of it."""
    if result is not None:
        recording.payload.texts[at.TOOL_CALL_RESULT] = json_text(result)
    code = getattr(getattr(error, "error", None), "code", None)
    kind = error_class_of(error)
    if code in _TRANSIENT_CODES:
        kind = TRANSIENT
    elif code in _DETERMINISTIC_CODES:
        kind = DETERMINISTIC
    recording.error(error, error_type=qualified_name(type(error)), error_class=kind)
    runtime.end(recording)


def wire_form(result: Any) -> object:
    """A result as it is on the wire, without its `_meta`."""
    if isinstance(result, Mapping):
        form: Any = dict(result)  # pyright: ignore[reportUnknownArgumentType]
    else:
        form = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    form.pop("_meta", None)
    return form


def is_error(result: Any) -> bool:
    """Whether a result, of either generation or as on the wire, says that the tool failed."""
    if isinstance(result, Mapping):
        return result.get("isError") is True  # pyright: ignore[reportUnknownMemberType]
    return getattr(result, "is_error", getattr(result, "isError", False)) is True


def error_text(result: Any) -> str:
    """The texts of a result."""
    content = result.get("content") if isinstance(result, Mapping) else getattr(result, "content", None)  # pyright: ignore[reportUnknownMemberType]
    texts: list[str] = []
    for block in content or ():  # pyright: ignore[reportUnknownVariableType]
        text: object = block.get("text") if isinstance(block, Mapping) else getattr(block, "text", None)  # pyright: ignore[reportUnknownMemberType]
        if isinstance(text, str):
            texts.append(text)
    return "\n".join(texts)


def _session_of(client: Any) -> Any:
    """The session of generation 2's `Client`; a session itself otherwise."""
    return getattr(client, "_session", None) or client


def _connection(client: Any) -> dict[str, Any]:
    """What is known of the server at the other end."""
    session = _session_of(client)
    attributes: dict[str, Any] = {}
    version = getattr(session, "protocol_version", None)
    if isinstance(version, str):
        attributes[at.MCP_PROTOCOL_VERSION] = version
    name = getattr(getattr(session, "server_info", None), "name", None) or _server_names.get(session)
    if isinstance(name, str):
        attributes[at.MCP_SERVER_NAME] = name
    return attributes

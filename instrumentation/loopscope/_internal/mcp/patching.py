"""Wrapping the MCP SDK's methods, and undoing it.

Client: `ClientSession.call_tool`, and generation 2's `Client.call_tool`, whose rounds go through the former. Server:
the one place that every request of any transport passes, `ServerRunner._on_request` (generation 2) or
`Server._handle_request` (generation 1); servers made with FastMCP or MCPServer are served by it too, and their
`Tool.run` tells what a tool raised, which the client is not told. What is called, returned and raised stays as it is.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Mapping, MutableMapping
from types import ModuleType
from typing import Any, cast

from loopscope._internal import guard
from loopscope._internal.imports import Apply
from loopscope._internal.wrapping import LibraryInstrumentation

from . import context
from .client import METHOD, ClientCall, begin_call, remember
from .server import Request, begin_serving, meta_of, serving

_lock = threading.Lock()
_installed: McpInstrumentation | None = None


class McpInstrumentation(LibraryInstrumentation):
    """The MCP SDK as instrumented by Loopscope. `undo()` restores it; also a context manager."""

    library = "mcp"

    def __init__(self) -> None:
        super().__init__()
        self.propagate = True
        """Whether calls carry the ids of their run to the server."""

    def targets(self) -> Mapping[str, Apply]:
        return {
            "mcp.client.session": self._apply_session,
            "mcp.client.client": self._apply_client,
            "mcp.server.runner": self._apply_runner,
            "mcp.server.lowlevel.server": self._apply_server,
            "mcp.server.mcpserver.tools.base": self._apply_tool,
            "mcp.server.fastmcp.tools.base": self._apply_tool,
        }

    def undo(self) -> None:
        """Put the SDK's own methods back. Twice is harmless."""
        global _installed
        super().undo()
        with _lock:
            if _installed is self:
                _installed = None

    def _apply_session(self, module: ModuleType) -> None:
        session = getattr(module, "ClientSession", None)
        self.replace(session, "call_tool", self._call_tool)
        if session is not None and not hasattr(session, "server_info"):
            self.replace(session, "initialize", self._initialize)

    def _apply_client(self, module: ModuleType) -> None:
        self.replace(getattr(module, "Client", None), "call_tool", self._call_tool)

    def _apply_runner(self, module: ModuleType) -> None:
        self.replace(getattr(module, "ServerRunner", None), "_on_request", self._on_request)

    def _apply_server(self, module: ModuleType) -> None:
        server = getattr(module, "Server", None)
        if "_handle_request" in vars(server or object):
            self.replace(server, "_handle_request", self._handle_request)

    def _apply_tool(self, module: ModuleType) -> None:
        self.replace(getattr(module, "Tool", None), "run", self._run)

    # --- client ---

    def _call_tool(self, original: Any) -> Any:
        takes_meta = "meta" in inspect.signature(original).parameters

        @functools.wraps(original)
        async def call_tool(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = begin_call(client, args, kwargs) if self.active else None
            if call is None:
                return await original(client, *args, **kwargs)
            sent = self._sent(call, kwargs) if takes_meta and self.propagate else None
            try:
                result = await original(client, *args, **(sent or kwargs))
            except BaseException as error:
                call.failed(error)
                raise
            finally:
                call.leave()
            call.returned(result)
            return result

        return call_tool

    @staticmethod
    @guard.guarded
    def _sent(call: ClientCall, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {**kwargs, "meta": context.inject(kwargs.get("meta"), call.scope)}

    def _initialize(self, original: Any) -> Any:
        @functools.wraps(original)
        async def initialize(session: Any, *args: Any, **kwargs: Any) -> Any:
            result = await original(session, *args, **kwargs)
            if self.active:
                remember(session, result)
            return result

        return initialize

    # --- server, generation 2 ---

    def _on_request(self, original: Any) -> Any:
        @functools.wraps(original)
        async def _on_request(runner: Any, dctx: Any, method: str, params: Any) -> Any:
            asked = _asked(runner, dctx, params) if self.active and method == METHOD else None
            served = begin_serving(asked) if asked is not None else None
            if served is None:
                return await original(runner, dctx, method, params)
            try:
                result = await original(runner, dctx, method, _as_sent(params) or params)
            except BaseException as error:
                served.failed(error)
                raise
            finally:
                served.leave()
            served.returned(result)
            return result

        return _on_request

    def _run(self, original: Any) -> Any:
        @functools.wraps(original)
        async def run(tool: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await original(tool, *args, **kwargs)
            except Exception as error:
                served = serving.get() if self.active else None
                if served is not None:
                    served.raised(error)
                raise

        return run

    # --- server, generation 1 ---

    def _handle_request(self, original: Any) -> Any:
        @functools.wraps(original)
        async def _handle_request(server: Any, message: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
            asked = _asked_1(server, message, req) if self.active and type(req).__name__ == "CallToolRequest" else None
            served = begin_serving(asked) if asked is not None else None
            if served is None:
                return await original(server, message, req, *args, **kwargs)
            respond = message.respond

            async def heard(response: Any) -> Any:
                served.returned(response)
                return await respond(response)

            message.respond = heard
            try:
                result = await original(server, message, req, *args, **kwargs)
            except BaseException as error:
                served.failed(error)
                raise
            finally:
                served.leave()
            served.abandoned()
            return result

        return _handle_request


@guard.guarded
def _as_sent(params: Any) -> Any:
    """The params without our keys."""
    return context.without(params) if isinstance(params, Mapping) else params  # pyright: ignore[reportUnknownArgumentType]


@guard.guarded
def _asked(runner: Any, dctx: Any, params: Any) -> Request:
    """What generation 2 is asked: raw params, of a client that may have sent anything."""
    given = cast("Mapping[str, Any]", params) if isinstance(params, Mapping) else {}
    connection = runner.connection
    return Request(
        name=given.get("name"),
        arguments=given.get("arguments"),
        meta=meta_of(given),
        server_name=getattr(runner.server, "name", None),
        session_id=getattr(connection, "session_id", None),
        protocol_version=getattr(connection, "protocol_version", None),
        request_id=getattr(dctx, "request_id", None),
    )


@guard.guarded
def _asked_1(server: Any, message: Any, req: Any) -> Request:
    """What generation 1 is asked. Our keys are taken out of its model of `_meta`, which the server's code may see."""
    found = meta_of(getattr(message, "request_meta", None))
    meta = dict(found) if found is not None else None
    if isinstance(found, MutableMapping):
        for key in (context.TRACEPARENT, context.RUN_ID):
            found.pop(key, None)
    return Request(
        name=req.params.name,
        arguments=req.params.arguments,
        meta=meta,
        server_name=getattr(server, "name", None),
        request_id=getattr(message, "request_id", None),
    )


def instrument_mcp(*, propagate: bool | None = None) -> McpInstrumentation:
    """Record every tool call that this process makes or serves over MCP. A second time gives the first's object.

    `configure()` calls this. `propagate=False`: calls do not carry the ids of their run (two random numbers, in the
    request's `_meta`) to the server, so that a server of yours no longer joins the run. The object's `undo()` restores
    the SDK. Connections that a server has open already are not recorded.
    """
    global _installed
    with _lock:
        if _installed is None:
            _installed = McpInstrumentation()
            _installed.install()
        if propagate is not None:
            _installed.propagate = propagate
        return _installed

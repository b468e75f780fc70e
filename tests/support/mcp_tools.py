"""A server of tools over MCP, in either generation of the SDK, and connections to it over three transports.

As a program it serves over stdio; with LOOPSCOPE_ENDPOINT it records what it serves.
"""

import asyncio
import importlib
import importlib.util
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

PROGRAM = str(Path(__file__).resolve())
GENERATION_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
_SERVER: Any = importlib.import_module("mcp.server.mcpserver" if GENERATION_2 else "mcp.server.fastmcp")
Context: Any = _SERVER.Context

TRANSPORTS = ["memory", "modern", "stdio", "http"] if GENERATION_2 else ["memory", "stdio", "http"]


def make_server() -> Any:
    """The server: add, fail, slow, nested and seen_meta."""
    import loopscope

    server: Any = (_SERVER.MCPServer if GENERATION_2 else _SERVER.FastMCP)("calc")

    @loopscope.tool
    def inner(number: int) -> int:
        return number + 1

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def fail(why: str) -> str:
        """Raise."""
        raise ValueError(why)

    @server.tool()
    async def slow(seconds: float) -> str:
        """Take a while."""
        await asyncio.sleep(seconds)
        return "done"

    @server.tool()
    def nested(number: int) -> int:
        """Call a tool of our own."""
        return inner(number)

    @server.tool()
    def seen_meta(ctx: Context) -> list[str]:  # pyright: ignore
        """The keys of `_meta` that code of the server sees."""
        meta: Any = ctx.request_context.meta
        found = meta if isinstance(meta, dict) or meta is None else meta.model_dump(exclude_none=True)
        return sorted(found or {})

    return server


@asynccontextmanager
async def connected(transport: str, **environment: str) -> AsyncGenerator[Any]:
    """A client with `call_tool`, connected over a real transport. `environment` is for the program behind stdio."""
    mcp: Any = importlib.import_module("mcp")
    async with AsyncExitStack() as stack:
        if transport in ("memory", "modern") and GENERATION_2:
            mode = "legacy" if transport == "memory" else "auto"
            yield await stack.enter_async_context(mcp.Client(make_server(), mode=mode))
            return
        if transport == "memory":
            memory: Any = importlib.import_module("mcp.shared.memory")
            server = make_server()._mcp_server
            yield await stack.enter_async_context(memory.create_connected_server_and_client_session(server))
            return
        if transport == "http":
            url = await stack.enter_async_context(_http_server())
            if GENERATION_2:
                yield await stack.enter_async_context(mcp.Client(url))
                return
            http: Any = importlib.import_module("mcp.client.streamable_http")
            streams: Any = await stack.enter_async_context(http.streamablehttp_client(url))
        else:
            program = mcp.StdioServerParameters(
                command=sys.executable,
                args=[PROGRAM],
                env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment},
            )
            streams = await stack.enter_async_context(mcp.stdio_client(program))
        session = await stack.enter_async_context(mcp.ClientSession(streams[0], streams[1]))
        await session.initialize()
        yield session


@asynccontextmanager
async def _http_server() -> AsyncGenerator[str]:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = make_server().streamable_http_app()
    running = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not running.started:
            assert time.monotonic() < deadline, "the server did not start"
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        running.should_exit = True
        await asyncio.to_thread(thread.join, 10)


def _serve() -> None:
    if os.environ.get("LOOPSCOPE_ENDPOINT"):
        import loopscope

        loopscope.configure(agent="calc-server", exit_flush_seconds=30)
    make_server().run("stdio")


if __name__ == "__main__":
    _serve()

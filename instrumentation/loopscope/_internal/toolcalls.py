"""The tool calls that are open in this process and known by the provider's id, so that code that runs for one, in
whatever task or thread, finds the span that it belongs to.

`claude_agent` enters the calls that it reads from the CLI's messages; `mcp` looks them up when an in-process server is
asked to execute one. Event loops on several threads may share it: single dict operations only.
"""

from __future__ import annotations

from . import scope

MAX_OPEN = 10_000
"""Beyond, calls are not entered: an id that is never closed must not fill the host's memory."""

_open: dict[str, scope.Scope] = {}


def opened(call_id: str, where: scope.Scope) -> None:
    """A tool call began."""
    if len(_open) < MAX_OPEN:
        _open[call_id] = where


def closed(call_id: str) -> None:
    """It ended. An unknown id does nothing."""
    _open.pop(call_id, None)


def find(call_id: object) -> scope.Scope | None:
    """Where the code of this tool call is; None when it is not known or not a text."""
    return _open.get(call_id) if isinstance(call_id, str) else None

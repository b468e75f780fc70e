"""The run of a call, carried in the `_meta` of an MCP request from a recorded client to a recorded server. Pure.

Keys of our own, not W3C's plain `traceparent`: that one belongs to the host's tracing (the SDK's generation 2 writes
and reads it), whose backend would get spans below a parent that it never sees. The ids are random and say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from loopscope._internal.recording import SpanIds
from loopscope._internal.scope import Scope

TRACEPARENT: Final = "loopscope/traceparent"
"""Trace and span of the client's call, in the form of W3C's traceparent."""
RUN_ID: Final = "loopscope/run-id"
"""Run of the client's call."""
CLAUDE_TOOL_USE_ID: Final = "claudecode/toolUseId"
"""Claude Code's key: the id of the model's tool call that it executes."""
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_RUN = re.compile(r"[0-9a-f]{32}")


def inject(meta: Mapping[str, Any] | None, where: Scope) -> dict[str, Any]:
    """The host's `meta`, which stays as it is, with the two keys."""
    span = where.span
    ours = {TRACEPARENT: f"00-{span.trace_id:032x}-{span.span_id:016x}-01", RUN_ID: where.run_id}
    return {**(meta or {}), **ours}


def extract(meta: Mapping[str, Any] | None) -> Scope | None:
    """Where the client's call is; None without the keys, or with values that are none of ours."""
    if not meta:
        return None
    parent, run_id = meta.get(TRACEPARENT), meta.get(RUN_ID)
    found = _FORM.fullmatch(parent) if isinstance(parent, str) else None
    if found is None or not isinstance(run_id, str) or not _RUN.fullmatch(run_id):
        return None
    ids = SpanIds(int(found[1], 16), int(found[2], 16))
    return Scope(ids, None, run_id) if ids.trace_id and ids.span_id else None


def without(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The params of a request as the client's owner made them: the server's own code sees no key of ours."""
    meta = params.get("_meta")
    if not isinstance(meta, Mapping) or (TRACEPARENT not in meta and RUN_ID not in meta):
        return params
    rest = {key: value for key, value in meta.items() if key not in (TRACEPARENT, RUN_ID)}  # pyright: ignore[reportUnknownVariableType]
    others = {key: value for key, value in params.items() if key != "_meta"}
    return {**others, "_meta": rest} if rest else others

"""Loopscope's public door: a flight recorder for LLM agents.

    import loopscope
    loopscope.configure()

records every Messages call of the anthropic SDK, with nothing else changed. `agent`, `run` and `tool` tell it what the
calls belong to. Importing this imports nothing heavy; nothing is recorded before `configure()`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Literal

from ._internal import guard as _guard
from ._internal import propagation as _propagation
from ._internal import runtime as _runtime
from ._internal.agents import agent
from ._internal.anthropic import Instrumentation, instrument_anthropic
from ._internal.capture import CaptureMode
from ._internal.claude_agent import instrument_claude_agent_sdk
from ._internal.ledger import RunStats
from ._internal.limits import Limits
from ._internal.mcp import instrument_mcp
from ._internal.rules import RedactionRule
from ._internal.runs import Run, current_run, run
from ._internal.steps import Step, event, route, step
from ._internal.tools import tool
from .exceptions import ConfigurationError, LimitExceeded, LoopscopeError

__version__ = _runtime.VERSION

__all__ = [
    "ConfigurationError",
    "Instrumentation",
    "LimitExceeded",
    "Limits",
    "LoopscopeError",
    "RedactionRule",
    "Run",
    "RunStats",
    "Step",
    "agent",
    "configure",
    "current_run",
    "event",
    "flush",
    "instrument_anthropic",
    "instrument_claude_agent_sdk",
    "instrument_mcp",
    "route",
    "run",
    "shutdown",
    "stats",
    "step",
    "tool",
]


def configure(
    *,
    agent: str | None = None,
    agent_version: str | None = None,
    endpoint: str | None = None,
    environment: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    service_name: str | None = None,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
    spool_dir: str | os.PathLike[str] | None = None,
    spool_max_bytes: int | None = None,
    memory_max_bytes: int | None = None,
    redact: bool | None = None,
    redact_rules: Mapping[str, str] | Iterable[RedactionRule] | None = None,
    redact_pii: bool | Iterable[str] | None = None,
    capture: CaptureMode | Mapping[str, CaptureMode] | None = None,
    capture_content: bool | None = None,
    price_overrides: Mapping[str, Mapping[str, float | int | str]] | None = None,
    exit_flush_seconds: float | None = None,
    backend: Literal["auto", "loopscope", "otlp"] | None = None,
    host_spans: Literal["off", "metadata", "full"] | None = None,
    limits: Limits | Mapping[str, float | int | str] | None = None,
    disabled: bool | None = None,
) -> None:
    """Start recording: instrument the anthropic SDK, claude-agent-sdk and MCP, and send to the collector. Again: change
    the settings.

    Every argument left out is read from LOOPSCOPE_* variables, then OTEL_*, then its default; docs/configuration.md
    lists them. `endpoint` is the collector's base URL (default http://127.0.0.1:4318). `redact=False` keeps
    credentials in the recorded text; `redact_rules` (name to regular expression, or RedactionRule) and `redact_pii`
    (True, or some of credit_card, email, iban, ip, phone, ssn) take out more. `capture` is "full", "metadata" (no text)
    or "off" (nothing), or a mapping of agent to one of these, `*` for the others; `capture_content=False` is
    "metadata". `price_overrides` maps a model to US dollars per million tokens (`input`, `output`, `cache_read`,
    `cache_write`, `cache_write_1h`). `limits` hold for every run that has none of its own, declared or found from the
    message history. `backend` says whose the endpoint is where asking it does not: any OTLP backend may stand there,
    and gets standard GenAI spans. `host_spans` adds such spans to the host's own OpenTelemetry pipeline, without
    content (`metadata`) or with it.

    Raises ConfigurationError for an argument that cannot be used, and nothing else.
    """
    _configure(
        {
            "agent": agent,
            "agent_version": agent_version,
            "endpoint": endpoint,
            "environment": environment,
            "user_id": user_id,
            "conversation_id": conversation_id,
            "service_name": service_name,
            "headers": headers,
            "api_key": api_key,
            "spool_dir": spool_dir,
            "spool_max_bytes": spool_max_bytes,
            "memory_max_bytes": memory_max_bytes,
            "redact": redact,
            "redact_rules": redact_rules,
            "redact_pii": redact_pii,
            "capture": capture,
            "capture_content": capture_content,
            "price_overrides": price_overrides,
            "exit_flush_seconds": exit_flush_seconds,
            "backend": backend,
            "host_spans": host_spans,
            "limits": limits,
            "disabled": disabled,
        }
    )


@_guard.door
def _configure(arguments: Mapping[str, object]) -> None:
    _runtime.configure(arguments)
    if _runtime.configured() is not None:
        _instrument()


def _instrument() -> None:
    """Everything that records or carries runs along; also in a process that was handed its configuration."""
    instrument_anthropic()
    instrument_claude_agent_sdk()
    instrument_mcp()
    _propagation.install()


def flush(timeout: float = 30.0) -> bool:
    """Wait until everything recorded so far is with the collector, at most `timeout` seconds.

    False when it is not, or when a span was dropped or refused meanwhile. What is not delivered stays in the spool.
    """
    return bool(_guard.guarded(_runtime.flush)(timeout))


def shutdown(timeout: float = 5.0) -> bool:
    """Stop recording and deliver what is pending, at most `timeout` seconds; True when all of it was delivered."""
    _guard.guarded(_propagation.undo)()
    return bool(_guard.guarded(_runtime.shutdown)(timeout))


def stats() -> dict[str, int]:
    """Counters of this process: `spans_recorded`, `spans_delivered`, `spans_dropped`, `spans_rejected`, `redactions`,
    `internal_errors` (errors of Loopscope that were swallowed), and what waits in queue and spool."""
    return _guard.guarded(_runtime.stats)() or _guard.counts()

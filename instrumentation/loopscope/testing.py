"""For the tests of your own agent: does it end gracefully when a limit stops it?

    from loopscope.testing import assert_graceful_limit

    def test_my_agent_ends_gracefully():
        assert_graceful_limit(lambda: my_agent("find all orders"))

Nothing is sent to a collector: recording goes to a temporary directory that is removed afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import replace
from typing import Any, cast

from ._internal import runtime
from ._internal.config import Config
from ._internal.limits import Limits
from ._internal.runs import Run, run

__all__ = ["assert_graceful_limit"]

MAX_CALLS_AFTER = 3
"""LLM calls that a loop may try after the one that was told of the limit; more means that it does not take the end of
turn for an answer."""


class _EndlessLoopError(BaseException):
    """Leaves an agent that goes on and on. No Exception, so that the agent's own handlers let it pass."""


def assert_graceful_limit(agent: Callable[[], Any], *, max_turns: int = 1, limits: Limits | None = None) -> Any:
    """Run `agent()` under a limit that it will hit, and assert that it ends by itself; gives what it returned.

    `agent` is called without arguments, in a run of its own; it may be a plain or an async function, and what it
    returns may be a generator, which is consumed. `limits` replaces the limit of `max_turns` LLM calls (those of
    sub-agents included); its `on_hit` is taken to be "partial".

    Raises AssertionError when the limit was never reached (the test would prove nothing), when the agent let an
    exception out, or when it went on asking: after the limit it may try at most 3 more calls. Needs the anthropic SDK
    and an API to talk to: a real one, or `loopscope stub`.
    """
    allowed = replace(limits or Limits(max_turns=max_turns), on_hit="partial")
    with tempfile.TemporaryDirectory(prefix="loopscope-testing-") as spool, _recording(spool):
        inside = run("assert_graceful_limit", limits=allowed)
        inside.allowance.counts_all_turns = True  # the agent may be a run of its own
        stopped = _Stopped()
        inside.allowance.on_stopped = stopped.again
        try:
            with inside:
                result = _finished(agent())
        except _EndlessLoopError:
            raise AssertionError(
                f"the agent went on asking after its limit: {stopped.calls} calls were answered by "
                f'"limit reached" with stop_reason "end_turn", and it asked again. {_used(inside)}'
            ) from None
        except Exception as error:
            if inside.limit_hit is None:
                raise
            raise AssertionError(
                f"the agent did not end gracefully at {inside.limit_hit}: it raised {type(error).__name__}: {error}"
            ) from error
        if inside.limit_hit is None:
            raise AssertionError(f"the limit was never reached, so nothing was tested: lower it. {_used(inside)}")
        return result


def _used(inside: Run) -> str:
    stats = inside.stats
    return f"The run used {stats.turns} turns and {stats.total_tokens} tokens."


class _Stopped:
    """Counts the calls that the limit answered."""

    def __init__(self) -> None:
        self.calls = 0

    def again(self) -> None:
        self.calls += 1
        if self.calls > MAX_CALLS_AFTER + 1:
            raise _EndlessLoopError


def _finished(result: Any) -> Any:
    """What an agent gives, in the end: coroutines are run, generators consumed."""
    if inspect.isawaitable(result) or isinstance(result, AsyncIterable):
        return asyncio.run(_awaited(result))
    if inspect.isgenerator(result):
        return list(cast("Iterable[Any]", result))
    return result


async def _awaited(result: Any) -> Any:
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterable):
        return [item async for item in cast("AsyncIterable[Any]", result)]
    return _finished(result) if inspect.isgenerator(result) else result


class _recording:  # noqa: N801 - reads as what it is for, in a with statement
    """Loopscope as it is configured, else configured to send nowhere."""

    def __init__(self, spool: str) -> None:
        self._spool = spool
        self._ours = False

    def __enter__(self) -> Config | None:
        from . import configure

        if runtime.active() is None:
            self._ours = True
            # Port 9 is "discard": nobody listens there, and nothing is retried for the length of a test.
            configure(agent="test", endpoint="http://127.0.0.1:9", spool_dir=self._spool, exit_flush_seconds=0)
        active = runtime.active()
        return active.config if active is not None else None

    def __exit__(self, *_: object) -> None:
        if self._ours:
            runtime.shutdown(0.0)

"""The one place that holds what is in force: configuration and pipeline. `configure`, `flush`, `shutdown`,
`stats`.

Everything that records asks `active()` first; it is None until `configure` was called, after `shutdown`, and while
disabled, and then nothing is recorded and nothing is slowed down. A fork gives the child a runtime of its own, with a
new process id, spool file and worker; nothing of the parent's is touched there.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopscope.exceptions import ConfigurationError

from . import guard, ledger, scope
from .capture import FULL, OFF
from .config import Config, resolve
from .recording import Recording, SpanIds

if TYPE_CHECKING:
    from .inferred import Chains
    from .pipeline import Pipeline

VERSION = "0.1.0"
SHUTDOWN_SECONDS = 5.0


class Runtime:
    """One configuration in force, in one process."""

    def __init__(self, config: Config, generation: int) -> None:
        from .pipeline import Pipeline

        self.config = config
        self.capture = config.capture.of(config.agent)
        """How much is recorded outside of any run."""
        self.generation = generation
        """Counts configurations of this process' family up across forks: a recording begun in a parent is not ours."""
        self.process_id = os.urandom(16).hex()
        self.pipeline: Pipeline = Pipeline(config, self.process_id, VERSION)
        self._chains: Chains | None = None
        self.models_checked: set[tuple[str, str]] = set()
        """Provider and model whose price was asked for, because of a cost cap."""

    @property
    def chains(self) -> Chains:
        """The runs of bare calls."""
        if self._chains is None:
            from .inferred import Chains

            with _lock:
                if self._chains is None:
                    self._chains = Chains()
                    self.pipeline.every_beat(self._chains.sweep)
        return self._chains

    def end_chains(self) -> None:
        """End the runs of bare calls that are under way."""
        if self._chains is not None:
            self._chains.close()


_runtime: Runtime | None = None
_lock = threading.Lock()
_generation = 0
_hooks_installed = False
_leaving: list[Pipeline] = []
"""Pipelines of earlier configurations that may still be delivering."""


def configured() -> Runtime | None:
    """The runtime in force, whatever is recorded where the running code is; None without one."""
    return _runtime


def active() -> Runtime | None:
    """The runtime that records the running code; None without one, and inside an agent whose capture is off."""
    runtime = _runtime
    if runtime is None or scope.capture_here(runtime.config) == OFF:
        return None
    return runtime


def recording_at(inside: scope.Scope | None) -> tuple[Runtime | None, str]:
    """As `active`, where the caller knows already where the code is; and how much is recorded there."""
    runtime = _runtime
    if runtime is None:
        return None, OFF
    capture = (inside.capture if inside is not None else None) or runtime.capture
    return (None if capture == OFF else runtime), capture


def configure(arguments: Mapping[str, Any]) -> None:
    """Resolve the configuration and start recording; again: change it. Raises ConfigurationError for a bad argument."""
    config = resolve(arguments)
    _check_prices(config)
    adopt(config)


def adopt(config: Config) -> None:
    """Record with this configuration from now on; a process that was handed work takes its parent's."""
    global _runtime
    _end_chains()
    with _lock:
        previous, _runtime = _runtime, None
        if previous is not None:
            previous.pipeline.close(0.0, deliver_seconds=SHUTDOWN_SECONDS)
            _leaving[:] = [pipeline for pipeline in _leaving if pipeline.busy]
            _leaving.append(previous.pipeline)
        if not config.enabled:
            return
        _install_process_hooks()
        _runtime = Runtime(config, _generation)
        _runtime.pipeline.recover_orphans()


def _check_prices(config: Config) -> None:
    if not config.price_overrides:
        return
    import datetime as dt

    from loopscope_schemas import prices

    for model in config.price_overrides:
        try:
            prices.resolve(None, model, dt.datetime.now(dt.UTC).date(), overrides=config.price_overrides)
        except (prices.PriceOverrideError, AttributeError, TypeError) as error:
            raise ConfigurationError(f"configure(price_overrides={{{model!r}: ...}}): {error}") from error


def start(
    runtime: Runtime,
    name: str,
    kind: int,
    parent: SpanIds | None,
    attributes: dict[str, Any],
    *,
    capture: str | None = None,
) -> Recording:
    """Begin a span. The caller adds the run id to `attributes` before `announce`, as it may follow from the span's.

    `capture` is given for a run; all else records as much as what encloses it.
    """
    content = (capture or scope.capture_here(runtime.config)) == FULL
    return Recording(runtime.generation, name, kind, parent, attributes, content=content)


def announce(recording: Recording, *, heartbeat: bool) -> None:
    """Send the start marker of a span whose attributes are complete; again every 5 s when `heartbeat`."""
    runtime = _runtime
    if runtime is not None:
        runtime.pipeline.started(recording.start, heartbeat=heartbeat)


def end(recording: Recording, *, at_time: int | None = None) -> bool:
    """End a span, once, and hand it to the worker. One that was begun before a fork is left to the parent process.

    `at_time`: when it ended, in Unix ns, where that was not now. False when it is not kept: the worker sees none of it.
    """
    runtime = _runtime
    if recording.close(at_time) and runtime is not None and recording.generation == _generation:
        return runtime.pipeline.finished(recording)
    return False


def owns(recording: Recording) -> bool:
    """Whether the span was begun by this process, and not by one that it was forked from."""
    return recording.generation == _generation


def flush(timeout: float) -> bool:
    """Wait until everything recorded so far is with the collector; False when it is not after `timeout` seconds."""
    runtime = _runtime
    return True if runtime is None else runtime.pipeline.flush(timeout)


def shutdown(timeout: float = SHUTDOWN_SECONDS) -> bool:
    """Stop recording, deliver what is pending for at most `timeout` seconds; True when all of it was delivered."""
    global _runtime
    deadline = time.monotonic() + timeout
    if (ending := _runtime) is not None:
        # The worker finds tool calls, and the ends of runs, in what it still has to read; they need a runtime.
        ending.pipeline.settle(timeout)
    _end_chains()
    with _lock:
        runtime, _runtime = _runtime, None
    if runtime is None:
        return True
    done = runtime.pipeline.flush(max(deadline - time.monotonic(), 0.0), give_up_when_away=True)
    runtime.pipeline.close(0.5)
    return done


@guard.guarded
def _end_chains() -> None:
    if _runtime is not None:
        _runtime.end_chains()


def stats() -> dict[str, int]:
    """Counters of this process since it began or forked; see `loopscope.stats`."""
    runtime = _runtime
    result = guard.counts()
    if runtime is not None:
        result |= runtime.pipeline.gauges()
    for name in (
        "spans_recorded",
        "spans_delivered",
        "spans_dropped",
        "spans_rejected",
        "redactions",
        "internal_errors",
    ):
        result.setdefault(name, 0)
    return result


def _install_process_hooks() -> None:
    global _hooks_installed
    if _hooks_installed:
        return
    _hooks_installed = True
    atexit.register(at_exit)
    if hasattr(os, "register_at_fork"):
        from . import forks

        forks.install()
        os.register_at_fork(after_in_child=_after_fork_in_child)


def at_exit() -> None:
    """The bounded flush at the end of the process."""
    runtime = _runtime
    if runtime is not None:
        shutdown(runtime.config.exit_flush_seconds)


def _after_fork_in_child() -> None:
    """Locks, threads and files of the parent are not the child's: replace all, touch none."""
    global _runtime, _lock, _generation
    _lock = threading.Lock()
    _generation += 1
    guard.reset()
    ledger.after_fork_in_child()
    inherited, _runtime = _runtime, None
    for pipeline in [*_leaving, *([inherited.pipeline] if inherited else [])]:
        pipeline.abandon_after_fork()
    _leaving.clear()
    if inherited is not None:
        _runtime = Runtime(inherited.config, _generation)

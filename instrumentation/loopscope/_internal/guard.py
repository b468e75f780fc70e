"""The guard around every hook of ours that runs inside the host application, and the counters of what went wrong.

Every function that the host's own calls pass through is `@guarded`: an error of ours is swallowed, logged once for each
place, and counted. It must not hide the host's own errors: a guarded function never calls code of the host that the
host did not ask us to call. Tests set `reraise = True` so that nothing swallowed goes unseen.
"""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from loopscope.exceptions import LoopscopeError

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("loopscope")
logger.addHandler(logging.NullHandler())

reraise = False
"""Tests of Loopscope itself set this: what the guard would swallow is raised."""

_counts: dict[str, int] = {}
_logged: set[str] = set()


def count(name: str, by: int = 1) -> None:
    """Add to a counter that `loopscope.stats()` shows. A lost increment under contention is accepted: no lock here."""
    _counts[name] = _counts.get(name, 0) + by


def counts() -> dict[str, int]:
    """A copy of all counters."""
    return dict(_counts)


def warn_once(place: str, message: str, *values: object) -> None:
    """Log a warning, the first time that this place has one."""
    if place not in _logged:
        _logged.add(place)
        logger.warning(message, *values)


def swallowed(place: str, error: Exception) -> None:
    """Count an error of ours, and log it the first time that it comes from this place."""
    count("internal_errors")
    if place not in _logged:
        _logged.add(place)
        logger.warning("loopscope: %s failed, recording goes on without it", place, exc_info=error)


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Make a hook safe to call from the host: an Exception inside becomes None, a log line and a count."""
    place = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if reraise:
                raise
            swallowed(place, error)
            return None

    return safe


def door(function: Callable[P, R]) -> Callable[P, R | None]:
    """As `guarded`, for what the host calls by its own will: errors that are meant for it (LoopscopeError) reach it."""
    place = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except LoopscopeError:
            raise
        except Exception as error:
            if reraise:
                raise
            swallowed(place, error)
            return None

    return safe


def reset() -> None:
    """Forget counts and what was logged (after a fork the child counts for itself; and for tests)."""
    _counts.clear()
    _logged.clear()

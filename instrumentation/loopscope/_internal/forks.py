"""Keeps a fork from landing in the middle of an import on one of our threads.

A module that is half imported when the host forks stays half imported in the child, for the host as well. So our
threads import under a lock, and a fork waits for it: once in a process' life, for a fraction of a second.
"""

import os
import threading

FORK_WAITS_SECONDS = 5.0
"""A fork never waits longer, whatever happens."""

importing = threading.Lock()
"""Held by a background thread while it imports."""

_held: list[bool] = []


def _before() -> None:
    _held.append(importing.acquire(timeout=FORK_WAITS_SECONDS))


def _after() -> None:
    if _held and _held.pop():
        importing.release()


def _after_in_child() -> None:
    global importing
    _held.clear()
    importing = threading.Lock()


def install() -> None:
    """Have forks wait; called once."""
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)

"""Errors that Loopscope raises to its caller.

    LoopscopeError
    ├── ConfigurationError (also a ValueError): an argument of `configure` cannot be used
    └── LimitExceeded (also a RuntimeError): a limit that its owner set with `on_hit="raise"` stopped a run

Nothing else of Loopscope raises into the application that it records: what goes wrong inside is logged once and
counted (`loopscope.stats()`).
"""

from __future__ import annotations


class LoopscopeError(Exception):
    """Base of every error of Loopscope."""


class ConfigurationError(LoopscopeError, ValueError):
    """An argument of `loopscope.configure` cannot be used; the message names it, its value and what is accepted."""


class LimitExceeded(LoopscopeError, RuntimeError):  # noqa: N818 - the name that users know from other agent loops
    """A limit was reached and its owner chose `on_hit="raise"`; the call that would have gone beyond it was not sent.

    `limit` is the limit's name (`max_turns`, `max_tokens`, `max_cost_usd`, `max_seconds`), `maximum` what was set and
    `used` what the run had used, both in the limit's unit; `run_id` is the run's.
    """

    def __init__(self, message: str, *, limit: str, maximum: float, used: float, run_id: str) -> None:
        super().__init__(message)
        self.limit = limit
        self.maximum = maximum
        self.used = used
        self.run_id = run_id

    def __reduce__(self) -> tuple[object, ...]:
        """For process pools: an exception with keyword arguments cannot be pickled otherwise."""
        return _limit_exceeded, (str(self), self.limit, self.maximum, self.used, self.run_id)


def _limit_exceeded(message: str, limit: str, maximum: float, used: float, run_id: str) -> LimitExceeded:
    return LimitExceeded(message, limit=limit, maximum=maximum, used=used, run_id=run_id)

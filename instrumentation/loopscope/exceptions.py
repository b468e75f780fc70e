"""Errors that Loopscope raises to its caller.

    LoopscopeError
    └── ConfigurationError (also a ValueError): an argument of `configure` cannot be used

Nothing else of Loopscope raises into the application that it records: what goes wrong inside is logged once and
counted (`loopscope.stats()`).
"""


class LoopscopeError(Exception):
    """Base of every error of Loopscope."""


class ConfigurationError(LoopscopeError, ValueError):
    """An argument of `loopscope.configure` cannot be used; the message names it, its value and what is accepted."""

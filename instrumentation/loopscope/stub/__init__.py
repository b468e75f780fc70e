"""A stand-in for the Anthropic Messages API over real HTTP: what `loopscope stub` runs, and tests use.

The real SDK talks to it by `base_url`. It validates as the API does, answers from scripts or sensibly without one,
fails on demand, and keeps a log of every request that other accounts can be checked against. Needs the `stub` extra.
"""

from loopscope.stub.errors import ApiError
from loopscope.stub.log import LogEntry, RequestLog, read_log
from loopscope.stub.script import Ask, Fault, Pacing, Script, ToolCall, Turn, call, say
from loopscope.stub.server import StubServer, serve

__all__ = [
    "ApiError",
    "Ask",
    "Fault",
    "LogEntry",
    "Pacing",
    "RequestLog",
    "Script",
    "StubServer",
    "ToolCall",
    "Turn",
    "call",
    "read_log",
    "say",
    "serve",
]

"""The embedded ClickHouse engine: a child process that serves the ClickHouse HTTP protocol on loopback.

The collector starts it through `EngineProcess`; everybody else talks to it over HTTP and never imports this package.
chDB is imported in `handles`, in the child only: importing this package does not load it.
"""

from loopscope_collector.engine.config import WRITER_USER, EngineConfig
from loopscope_collector.engine.process import EngineError, EngineProcess

__all__ = ["WRITER_USER", "EngineConfig", "EngineError", "EngineProcess"]

"""Loopscope as an instrumentor of OpenTelemetry: the entry point by which `opentelemetry-instrument` finds it.

    opentelemetry-instrument python my_agent.py

records as `loopscope.configure()` does, with the settings of the environment. To leave it out:
OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=loopscope. The package opentelemetry-instrumentation is optional; without it the
class works by itself. Imported by whoever wants the class, never by `import loopscope`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import loopscope

if TYPE_CHECKING:

    class _Base:
        """What is used of opentelemetry.instrumentation.instrumentor.BaseInstrumentor."""

        def instrument(self, **kwargs: Any) -> Any: ...
        def uninstrument(self, **kwargs: Any) -> Any: ...
else:
    try:
        from opentelemetry.instrumentation.instrumentor import BaseInstrumentor as _Base
    except ImportError:

        class _Base:
            """The same two doors, where the package is not installed."""

            def instrument(self, **kwargs: Any) -> Any:
                return self._instrument(**kwargs)

            def uninstrument(self, **kwargs: Any) -> Any:
                return self._uninstrument(**kwargs)


_SETTINGS = ("agent", "agent_version", "endpoint", "environment", "service_name", "user_id", "conversation_id")


class LoopscopeInstrumentor(_Base):
    """`instrument()` starts recording and `uninstrument()` ends it; settings of `loopscope.configure` may be passed."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: it waits for the SDKs to be imported, and records whichever are."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        # OpenTelemetry passes arguments of its own (a tracer provider, dependency checks); they are not for us.
        loopscope.configure(**{name: kwargs[name] for name in _SETTINGS if name in kwargs})

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002
        loopscope.shutdown()
        loopscope.instrument_anthropic().undo()

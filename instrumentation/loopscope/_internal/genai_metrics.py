"""OpenTelemetry's GenAI metrics of each LLM call, into the host's own MeterProvider. No-op where the host has none.

Called by the worker's thread with a call's finished attributes; knows neither content nor spans.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from loopscope_schemas import attributes as at

from . import guard

DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - the name of a metric
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
SECONDS_BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS = tuple(4**power for power in range(14))
"""Bucket boundaries that the conventions ask for: of seconds, and of tokens (1 to 67,108,864)."""
_DIMENSIONS = (
    at.OPERATION_NAME,
    at.PROVIDER_NAME,
    at.REQUEST_MODEL,
    at.RESPONSE_MODEL,
    at.SERVER_ADDRESS,
    at.SERVER_PORT,
)


class GenAIMetrics:
    def __init__(self, version: str) -> None:
        self._version = version
        self._instruments: tuple[Any, Any, Any] | None = None

    def record(self, attributes: Mapping[str, Any], seconds: float) -> None:
        """Record one finished span, if it is an LLM call. Never raises."""
        if attributes.get(at.OPERATION_NAME) != "chat":
            return
        try:
            self._record(attributes, seconds)
        except Exception as error:  # noqa: BLE001 - the host's provider; a span must not be lost to it
            guard.swallowed("loopscope metrics", error)

    def _record(self, attributes: Mapping[str, Any], seconds: float) -> None:
        # Whoever records metrics has imported this; until then there is no provider to record to.
        api: Any = sys.modules.get("opentelemetry.metrics")
        if api is None:
            return
        if self._instruments is None:
            self._instruments = self._create(api)
        duration, tokens, first_chunk = self._instruments
        dimensions = {name: attributes[name] for name in _DIMENSIONS if name in attributes}
        failed = attributes.get(at.ERROR_TYPE)
        duration.record(seconds, dimensions | ({at.ERROR_TYPE: failed} if failed else {}))
        for name, kind in ((at.USAGE_INPUT_TOKENS, "input"), (at.USAGE_OUTPUT_TOKENS, "output")):
            if (count := attributes.get(name)) is not None:
                tokens.record(count, dimensions | {at.TOKEN_TYPE: kind})
        if (waited := attributes.get(at.RESPONSE_TTFT)) is not None:
            first_chunk.record(waited, dimensions)

    def _create(self, api: Any) -> tuple[Any, Any, Any]:
        meter = api.get_meter("loopscope.genai", self._version)

        def histogram(name: str, unit: str, description: str, bounds: tuple[float, ...]) -> Any:
            return meter.create_histogram(
                name, unit=unit, description=description, explicit_bucket_boundaries_advisory=bounds
            )

        return (
            histogram(DURATION, "s", "GenAI operation duration.", SECONDS_BOUNDS),
            histogram(TOKEN_USAGE, "{token}", "Number of input and output tokens used.", TOKEN_BOUNDS),
            histogram(TIME_TO_FIRST_CHUNK, "s", "Time to receive the first chunk of a stream.", SECONDS_BOUNDS),
        )

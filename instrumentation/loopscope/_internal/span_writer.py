"""A finished span's way to the spool: completed, scrubbed, priced, encoded, appended. Worker's thread only.

The pipeline makes one and gives it each span that has ended. Between two steps on a large span it sleeps for a moment,
so that a host thread which waits for the interpreter gets it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loopscope_schemas import attributes as at

from . import guard
from .capture import NAMES, start_without_text, without_text
from .genai_metrics import GenAIMetrics

if TYPE_CHECKING:
    from .config import Config
    from .host_spans import HostSpans
    from .recording import Payload, Recording, Start
    from .redaction import Scrubber
    from .spool import Spool

BREATH_SECONDS = 0.0001
"""Between two steps the worker sleeps this long: a host thread that waits for the interpreter gets it at once, where it
would else wait for up to the switch interval (5 ms)."""
BREATH_MIN_BYTES = 64 * 1024
"""The steps of a smaller span are shorter than a pause costs."""


class SpanWriter:
    def __init__(
        self,
        config: Config,
        version: str,
        spool: Spool,
        scrubber: Scrubber,
        host_spans: HostSpans | None,
        busy: Callable[[], bool],
    ) -> None:
        self._config = config
        self._spool = spool
        self._scrubber = scrubber
        self._metrics = GenAIMetrics(version)
        self._host_spans = host_spans
        self._busy = busy
        """Whether so much waits that there is no time for pauses."""

    def write(self, recording: Recording) -> None:
        """Complete, scrub, encode and append a span that has ended. Raises what any of that raises."""
        from .encoding import small_texts, span_parts

        payload = recording.payload
        attributes: dict[str, Any] = {**recording.start.attributes, **payload.attributes}
        changed: dict[str, str] = {}
        if payload.complete is not None:
            try:
                attributes |= payload.complete(payload)
            except Exception as error:  # noqa: BLE001 - what could not be read is left out; the bodies are kept as they are
                guard.swallowed("loopscope completion of a span", error)
        if not recording.content:
            attributes = without_text(payload, attributes)
        self._breathe(payload.size)
        if not self._scrubber.idle:
            changed, redactions = self._scrubber.scrub_texts(small_texts(payload, attributes), _names(attributes))
            redactions += self._scrub(payload, attributes)
            if redactions:
                attributes[at.REDACTIONS] = redactions
                guard.count("redactions", redactions)
            self._breathe(payload.size)
        # A source that is stated already: a cost that somebody reported, or that stands on another span.
        if at.USAGE_RAW in attributes and at.COST_SOURCE not in attributes:
            attributes |= self._cost(attributes, recording.start)
            self._breathe(payload.size)
        if payload.settled is not None:
            payload.settled(attributes)
        parts = span_parts(recording, attributes, changed)
        self._breathe(payload.size)
        self._spool.append(parts)
        self._metrics.record(attributes, (recording.end_time - recording.start.start_time) / 1e9)
        if self._host_spans is not None:
            self._host_spans.ended(recording.start, recording.end_time, parts)
        payload.release()  # a Run that the host keeps must not keep what it recorded

    def cleaned(self, start: Start) -> Start:
        """A start without what is scrubbed; a name or an id may hold it."""
        if not start.content:
            start = start_without_text(start)
        if self._scrubber.idle:
            return start
        texts = [value for value in start.attributes.values() if isinstance(value, str)]
        changed, _ = self._scrubber.scrub_texts(texts, _names(start.attributes))
        if not changed:
            return start
        cleaned = {
            key: changed.get(value, value) if isinstance(value, str) else value
            for key, value in start.attributes.items()
        }
        return start._replace(attributes=cleaned)

    def _scrub(self, payload: Payload, attributes: Mapping[str, Any]) -> int:
        """Scrub everything large in the payload; the number of finds."""
        total = 0
        for name, text in payload.texts.items():
            payload.texts[name], found = self._scrubber.scrub(text)
            total += found
        for name, body in payload.bodies.items():
            if name == at.REQUEST_BODY:
                payload.bodies[name], found = self._scrubber.scrub_history(
                    body, str(attributes.get(at.RUN_ID)), body[:512]
                )
            else:
                payload.bodies[name], found = self._scrubber.scrub(body)
            total += found
        return total

    def _breathe(self, payload_bytes: int) -> None:
        if payload_bytes >= BREATH_MIN_BYTES and not self._busy():
            time.sleep(BREATH_SECONDS)

    def _cost(self, attributes: Mapping[str, Any], start: Start) -> Mapping[str, Any]:
        from .costs import cost_attributes

        return cost_attributes(attributes, start.start_time, self._config.price_overrides)


def _names(attributes: Mapping[str, Any]) -> set[str]:
    return {value for key in NAMES if isinstance(value := attributes.get(key), str)}

"""Counters, gauges and histograms of the collector, and their Prometheus text form.

Every part of the collector is handed one `Metrics` and reports to it; the receiver serves it at `/metrics`.
Thread-safe. Label values come from small fixed sets: whoever counts must not pass recorded text as a label.
"""

import re
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "loopscope_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of every histogram: from one fsync to an insert that waits for a busy store."""

MAX_SERIES_PER_NAME: Final = 1000
"""Bound on label combinations of one name; beyond it they are counted under `overflow="true"`."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_OVERFLOW: Final = (("overflow", "true"),)

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    sum: float = 0.0


class Metrics:
    """What the collector counts. Names are lower-case words with underscores; `loopscope_` is put in front."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._help: dict[str, str] = {}

    def describe(self, name: str, text: str) -> None:
        """Say in one line what a name means; shown as HELP."""
        with self._lock:
            self._help[_full(name)] = " ".join(text.split())

    def count(self, name: str, n: float = 1, **labels: str | int) -> None:
        """Add to a counter; `_total` is put at the end of its name. `n` may be 0, which makes the series visible."""
        full = _full(name if name.endswith("_total") else f"{name}_total")
        key = _labels(labels)
        with self._lock:
            series = self._counters.setdefault(full, {})
            key = _bounded(series, key)
            series[key] = series.get(key, 0) + n

    def gauge(self, name: str, value: float, **labels: str | int) -> None:
        """Set a gauge."""
        full, key = _full(name), _labels(labels)
        with self._lock:
            series = self._gauges.setdefault(full, {})
            series[_bounded(series, key)] = value

    def observe(self, name: str, seconds: float, **labels: str | int) -> None:
        """Add a duration in seconds to a histogram."""
        full, key = _full(name), _labels(labels)
        with self._lock:
            series = self._histograms.setdefault(full, {})
            histogram = series.setdefault(_bounded(series, key), _Histogram())
            histogram.counts[bisect_left(BUCKETS_SECONDS, seconds)] += 1
            histogram.sum += seconds

    def value(self, name: str, **labels: str | int) -> float:
        """Sum of the counter or gauge series that carry these labels; 0 when there is none."""
        wanted = set(_labels(labels))
        with self._lock:
            series = self._counters.get(_full(name)) or self._counters.get(_full(f"{name}_total"))
            series = series or self._gauges.get(_full(name)) or {}
            return sum(value for key, value in series.items() if wanted <= set(key))

    def exposition(self) -> str:
        """Everything in Prometheus' text format."""
        with self._lock:
            return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for kind, families in (("counter", self._counters), ("gauge", self._gauges)):
            for name, series in sorted(families.items()):
                yield from self._head(name, kind)
                for key, value in sorted(series.items()):
                    yield f"{name}{_rendered(key)} {value:.17g}\n"
        for name, histograms in sorted(self._histograms.items()):
            yield from self._head(name, "histogram")
            for key, histogram in sorted(histograms.items()):
                total = 0
                for bound, number in zip((*BUCKETS_SECONDS, "+Inf"), histogram.counts, strict=True):
                    total += number
                    yield f"{name}_bucket{_rendered((*key, ('le', str(bound))))} {total}\n"
                yield f"{name}_sum{_rendered(key)} {histogram.sum:.17g}\n"
                yield f"{name}_count{_rendered(key)} {total}\n"

    def _head(self, name: str, kind: str) -> Iterator[str]:
        text = self._help.get(name) or self._help.get(name.removesuffix("_total"))
        if text:
            yield f"# HELP {name} {text.replace(chr(92), chr(92) * 2)}\n"
        yield f"# TYPE {name} {kind}\n"


def _full(name: str) -> str:
    full = name if name.startswith(PREFIX) else PREFIX + name
    if not _NAME.fullmatch(full):
        raise ValueError(f"{name!r} is no name for a metric; use lower-case letters, digits and underscores")
    return full


def _labels(labels: dict[str, str | int]) -> Labels:
    return tuple(sorted((name, str(value)) for name, value in labels.items()))


def _bounded(series: dict[Labels, float] | dict[Labels, _Histogram], key: Labels) -> Labels:
    return key if key in series or len(series) < MAX_SERIES_PER_NAME else _OVERFLOW


def _rendered(key: Labels) -> str:
    if not key:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in key) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""A receiver on a real socket, in front of a real queue."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loopscope_collector.metrics import Metrics
from loopscope_collector.queue import DurableQueue, Record
from loopscope_collector.receiver import Receiver, ReceiverServer, bind_listener
from loopscope_collector.receiver.requests import Limits
from support.otlp import span_names


@dataclass
class Running:
    """The receiver and everything around it."""

    server: ReceiverServer
    queue: DurableQueue
    metrics: Metrics
    client: httpx.Client

    def kept(self) -> list[Record]:
        """Every record in the queue, taken out of it."""
        records: list[Record] = []
        while not self.queue.is_empty:
            segment = self.queue.next_sealed(timeout=10)
            assert segment is not None
            records += segment.records()
            self.queue.done(segment)
        return records

    def kept_spans(self) -> list[str]:
        """Names of the spans in the queue."""
        return [name for record in self.kept() for name in span_names(record.body)]

    def refused(self, reason: str) -> float:
        """How many requests were refused for a reason."""
        return self.metrics.value("receiver_refused", reason=reason)


StartReceiver = Callable[..., Running]


@contextmanager
def receivers(folder: Path) -> Generator[StartReceiver]:
    """Starts receivers; arguments are those of Receiver, and `queue_max_bytes`, `limits`, `files`."""
    running: list[Running] = []

    def start(
        *, queue_max_bytes: int = 1 << 26, limits: Limits | None = None, files: Any = None, **more: Any
    ) -> Running:
        metrics = Metrics()
        queue = DurableQueue(
            folder / f"queue{len(running)}",
            max_bytes=queue_max_bytes,
            segment_max_age_seconds=0.01,
            metrics=metrics,
            files=files,
        )
        app = Receiver(queue, limits=limits or Limits(1 << 20, 1 << 22, 1000), metrics=metrics, **more)
        server = ReceiverServer(app, bind_listener("127.0.0.1", 0, flag="--otlp-http-port")).start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False)
        running.append(Running(server, queue, metrics, client))
        return running[-1]

    try:
        yield start
    finally:
        for each in running:
            each.client.close()
            each.server.stop()
            each.queue.close()

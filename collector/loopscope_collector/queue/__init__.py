"""The durable queue between the receiver and the writer.

The receiver calls `DurableQueue.submit` and answers its client when the record is on disk (one fsync for all that
wait). One writer thread takes sealed segments in order: `next_sealed`, write, `done`. A segment never changes once it
was handed out and keeps its id through restarts, so that a replay is the same insert under the same token.
"""

from loopscope_collector.queue.durable import DurableQueue, QueueFullError, QueueHeldError, QueueUnavailableError
from loopscope_collector.queue.records import Record
from loopscope_collector.queue.segments import Segment, SegmentSource

__all__ = [
    "DurableQueue",
    "QueueFullError",
    "QueueHeldError",
    "QueueUnavailableError",
    "Record",
    "Segment",
    "SegmentSource",
]

"""OTLP/HTTP in, durable records out.

`Receiver` is a bare ASGI application (the hot path has no framework in front of it); `ReceiverServer` runs it with
uvicorn in a thread of its own. `process` makes both. Nothing here knows the store: a 200 means that the queue has the
body on disk.
"""

from loopscope_collector.receiver.app import Readiness, Receiver
from loopscope_collector.receiver.serving import PortTakenError, ReceiverServer, bind_listener

__all__ = ["PortTakenError", "Readiness", "Receiver", "ReceiverServer", "bind_listener"]

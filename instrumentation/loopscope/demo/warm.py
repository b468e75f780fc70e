"""Imported once, before the processes of the scenes are forked: all that they would each import again.

Nothing here may start a thread or open a connection: a fork would not take it along.
"""

from importlib import import_module
from typing import Final

import anthropic

from loopscope.demo.catalog import SCENES

for _needed in ("genai_prices.data", "opentelemetry.proto.collector.trace.v1.trace_service_pb2"):
    import_module(_needed)

with anthropic.Anthropic(api_key="unused") as _client:
    _ = _client.messages  # resources are imported when they are first touched

WARM: Final = tuple(scene.name for scene in SCENES)
"""The scenes that are ready."""

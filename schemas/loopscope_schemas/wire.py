"""The paths and the identity by which an agent's process and Loopscope's collector know each other.

Used by the receiver, which serves them, and by the instrumentation's delivery, which asks before the first span who is
there: what only our collector takes must never reach another backend.
"""

from typing import Final

TRACES_PATH: Final = "/v1/traces"
"""Finished spans; OTLP's own."""
STARTS_PATH: Final = "/loopscope/v1/starts"
"""Start markers and heartbeats."""
IDENTITY_PATH: Final = "/loopscope/v1/identity"
"""GET, without a key and without content: who listens here."""
PRODUCT: Final = "loopscope"
"""Value of `product` in the identity's JSON object."""
WIRE_VERSION: Final = 1
"""Value of `wire`: raised when a collector stops taking what an older instrumentation sends."""

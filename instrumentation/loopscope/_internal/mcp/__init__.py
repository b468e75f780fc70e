"""Tools over MCP, recorded on both sides of the official SDK. Door: `instrument_mcp`.

`patching` wraps the SDK's methods and nothing else; `client` is a call that this process makes, `server` one that it
serves; `context` carries the run from one to the other in the request's `_meta`. The SDK is never imported here; its
generations 1 and 2 are told apart by what they have.
"""

from .patching import instrument_mcp

__all__ = ["instrument_mcp"]

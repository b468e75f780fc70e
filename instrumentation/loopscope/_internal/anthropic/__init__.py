"""The anthropic SDK, recorded at the one funnel that all its calls pass. Door: `instrument_anthropic`.

`patching` wraps the SDK's methods and nothing else; `operations` says which request is what; `calls` is one call from
request to answer on the host's thread, `attempts` its HTTP requests; `streams` listens to a streamed body; `answers`
reads bodies, on the worker's thread. The SDK is never imported here: it is wrapped when the host has imported it, or as
soon as it does.
"""

from .patching import Instrumentation, instrument_anthropic

__all__ = ["Instrumentation", "instrument_anthropic"]

"""Who serves the model, and what a provider's client has moved from the request's body into its address. Pure.

The SDK's clients for Bedrock and Vertex take the model (Bedrock also the wish to stream) out of the body, after the
funnel and before the request is built. Called by `calls`, on the host's thread.
"""

from __future__ import annotations

import functools
import re
from typing import Any
from urllib.parse import unquote

from loopscope_schemas import attributes as at

# Part of a class' name -> OpenTelemetry's gen_ai.provider.name. `AnthropicAWS` and `AnthropicGoogleCloud` are
# Anthropic's own API, run by Anthropic, behind another login.
_PROVIDERS = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai", "Foundry": "azure.ai.inference"}

_BEDROCK = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream)(?:\?.*)?$")
_VERTEX = re.compile(r"/models/([^/:]+):(rawPredict|streamRawPredict)(?:\?.*)?$")
_STREAMING = {"invoke-with-response-stream", "streamRawPredict"}
_NOT_A_MODEL = "count-tokens"
"""Stands where the model would on Vertex' address for counting tokens."""


@functools.lru_cache(maxsize=256)
def _provider_of_class(cls: type) -> str:
    names = " ".join(base.__name__ for base in cls.__mro__)
    return next((name for part, name in _PROVIDERS.items() if part in names), "anthropic")


def provider_of(client: Any) -> str:
    """OpenTelemetry's name of who serves the model, by the client's class."""
    return _provider_of_class(type(client))


def address_attributes(url: str) -> dict[str, Any]:
    """What the address of a request says of it: the model, and whether it streams. Empty for Anthropic's own."""
    found = _BEDROCK.search(url) or _VERTEX.search(url)
    if found is None or found[1] == _NOT_A_MODEL:
        return {}
    attributes: dict[str, Any] = {at.REQUEST_MODEL: unquote(found[1])}
    if found[2] in _STREAMING:
        attributes[at.REQUEST_STREAM] = True
    return attributes

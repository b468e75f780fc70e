"""Who serves the model, and what a provider's client has moved from the request's body into its address. Pure.

The SDK's clients for Bedrock and Vertex take the model (Bedrock also the wish to stream) out of the body, after the
funnel and before the request is built. Called by `calls`, on the host's thread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from loopscope_schemas import attributes as at

# Part of a class' name -> OpenTelemetry's gen_ai.provider.name. `AnthropicAWS` and `AnthropicGoogleCloud` are
# Anthropic's own API, run by Anthropic, behind another login.
_PROVIDERS = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai", "Foundry": "azure.ai.inference"}

MAX_SERVERS = 64
"""URL objects whose answer is kept, of clients that live at once."""

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


_servers: dict[int, tuple[Any, str, int]] = {}
"""Identity of a client's URL object -> itself, so that the identity stays its own, and what it says."""


def server_of(base_url: Any) -> tuple[str, int]:
    """Host and port of a client's base URL. An HTTP library's URL object is slow to ask, so its answer is kept."""
    known = _servers.get(id(base_url))
    if known is None:
        port = base_url.port or (443 if base_url.scheme == "https" else 80)
        if len(_servers) >= MAX_SERVERS:
            _servers.clear()
        known = _servers[id(base_url)] = (base_url, base_url.host, port)
    return known[1], known[2]


@functools.lru_cache(maxsize=256)
def address_attributes(url: str) -> Mapping[str, Any]:
    """What the address of a request says of it: the model, and whether it streams. Empty for Anthropic's own."""
    found = _BEDROCK.search(url) or _VERTEX.search(url)
    if found is None or found[1] == _NOT_A_MODEL:
        return {}
    attributes: dict[str, Any] = {at.REQUEST_MODEL: unquote(found[1])}
    if found[2] in _STREAMING:
        attributes[at.REQUEST_STREAM] = True
    return attributes

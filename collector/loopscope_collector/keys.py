"""Who may talk to the collector: keys in requests, and names that web pages use to get around loopback.

Used by the receiver, and by the process for what it binds. Keys themselves are read in `loopscope_schemas.keys`.
"""

import hmac
from collections.abc import Mapping, Sequence

from loopscope_schemas.keys import KeysError, is_loopback, load_keys, require_keys

__all__ = ["KeysError", "accepts", "is_loopback", "key_of", "load_keys", "names_loopback", "require_keys"]


def accepts(keys: Sequence[str], given: bytes) -> bool:
    """Whether a key is one of these. All are compared, so that the time taken tells nothing."""
    return sum(hmac.compare_digest(key.encode(), given) for key in keys) > 0


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The key of a request, from `Authorization: Bearer` or `x-api-key`; empty when it has none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").strip()


def names_loopback(host_header: str) -> bool:
    """Whether a Host (or the host of an Origin) is this machine: not a name that somebody's DNS points at it."""
    host = host_header.strip()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return is_loopback(name) or name.lower().rstrip(".").endswith(".localhost")

"""Who may talk to the collector: keys, loopback, and names that web pages use to get around it.

Used by the receiver, and by the process for what it binds. Pure but for reading a key file.
"""

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path


class KeysError(ValueError):
    """Keys cannot be read, or are missing where something listens beyond loopback."""


def load_keys(text: str, *, name: str) -> tuple[str, ...]:
    """Keys from a comma-separated list, or from `@file` (one a line, `#` begins a comment). Raises KeysError.

    `name` is the setting, for the message; keys themselves never stand in one.
    """
    if text.startswith("@"):
        path = Path(text[1:]).expanduser()
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{name} names the file {path}, which cannot be read: {error}") from error
        found = [line.partition("#")[0].strip() for line in lines]
    else:
        found = [part.strip() for part in text.split(",")]
    keys = tuple(dict.fromkeys(key for key in found if key))
    for number, key in enumerate(keys, 1):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise KeysError(
                f"key {number} of {name} holds a blank or a character beyond printable ASCII, which no header carries; "
                'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
    if text.strip() and not keys:
        raise KeysError(f"{name} is set but holds no key; unset it, or give keys separated by commas or @file")
    return keys


def accepts(keys: Sequence[str], given: bytes) -> bool:
    """Whether a key is one of these. All are compared, so that the time taken tells nothing."""
    return sum(hmac.compare_digest(key.encode(), given) for key in keys) > 0


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The key of a request, from `Authorization: Bearer` or `x-api-key`; empty when it has none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").strip()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_loopback(host_header: str) -> bool:
    """Whether a Host (or the host of an Origin) is this machine: not a name that somebody's DNS points at it."""
    host = host_header.strip()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return is_loopback(name) or name.lower().rstrip(".").endswith(".localhost")


def require_keys(bind: str, needed: Mapping[str, Sequence[str]]) -> None:
    """Refuse to listen beyond loopback when one of the needed key lists is empty. Raises KeysError."""
    missing = [name for name, keys in needed.items() if not keys]
    if missing and not is_loopback(bind):
        raise KeysError(f"refusing to listen on {bind} without keys: set {' and '.join(missing)}, or bind to 127.0.0.1")

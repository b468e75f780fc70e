"""Keys and loopback: what must hold before anything of Loopscope listens. Used by every room that does.

Pure but for reading a key file.
"""

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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_keys(bind: str, needed: Mapping[str, Sequence[str]]) -> None:
    """Refuse to listen beyond loopback when one of the needed key lists is empty. Raises KeysError."""
    missing = [name for name, keys in needed.items() if not keys]
    if missing and not is_loopback(bind):
        raise KeysError(f"refusing to listen on {bind} without keys: set {' and '.join(missing)}, or bind to 127.0.0.1")

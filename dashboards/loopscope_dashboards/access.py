"""Who may look: with LOOPSCOPE_READ_KEYS set, a key is asked for before anything is shown.

The key is kept in the session of the browser's tab alone, never in the address, never in a cookie.
"""

import hashlib
import hmac
import os
import time
from typing import Final

import streamlit as st

from loopscope_dashboards.command import READ_KEYS
from loopscope_schemas.keys import load_keys

_ADMITTED: Final = "loopscope_admitted"
_WRONG_KEY_SECONDS: Final = 0.5
"""Guessing through one connection is held to two keys a second; a key should be long enough not to care."""


def read_keys() -> list[str]:
    """The keys that admit, from the environment; empty when none is asked for. Raises KeysError for unreadable ones."""
    return list(load_keys(os.environ.get(READ_KEYS, ""), name=READ_KEYS))


def is_key(given: str, keys: list[str]) -> bool:
    """Whether a key admits. Compares with every key in constant time, whatever is wrong."""
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
    found = [hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in keys]
    return any(found)


def admitted() -> bool:
    """True when this session may look. Else draws the form that asks for a key and answers False."""
    keys = read_keys()
    if not keys:
        return True
    fingerprint = hashlib.sha256("\0".join(keys).encode()).hexdigest()
    if st.session_state.get(_ADMITTED) == fingerprint:
        return True
    _, middle, _ = st.columns([1, 1.2, 1])
    with middle, st.form("access", enter_to_submit=True):
        st.subheader("Loopscope")
        given = st.text_input(
            "Read key", type="password", autocomplete="current-password", help="One of LOOPSCOPE_READ_KEYS."
        )
        if st.form_submit_button("Open", type="primary", width="stretch"):
            if is_key(given.strip(), keys):
                st.session_state[_ADMITTED] = fingerprint
                st.rerun()
            time.sleep(_WRONG_KEY_SECONDS)
            st.error("This is not one of the read keys that the dashboards were started with.")
    return False

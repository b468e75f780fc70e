"""What stands in the page's address, read with suspicion: anybody can type anything there."""

import re
from typing import Final

import streamlit as st

_RUN_ID: Final = re.compile(r"[0-9a-f]{16,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,7}")


class AddressError(ValueError):
    """The address names something that cannot be. The message says what was expected."""


def run_in_address() -> str | None:
    """The run of `?run=`; None without one. Raises AddressError."""
    value = st.query_params.get("run", "").strip().lower()
    if not value:
        return None
    if not _RUN_ID.fullmatch(value):
        raise AddressError("A run id is 32 hexadecimal digits; the address has something else.")
    return value


def turn_in_address() -> int | None:
    """The turn of `?turn=`; None without one. Raises AddressError."""
    return number_in_address("turn", "A turn is a number from 1 on; the address has something else.")


def number_in_address(name: str, message: str) -> int | None:
    """A small whole number; None without one. Raises AddressError with `message`."""
    value = st.query_params.get(name, "").strip()
    if not value:
        return None
    if not _NUMBER.fullmatch(value):
        raise AddressError(message)
    return int(value)

"""Object ids: 128 random bits in base 36, lower case, padded to 25 characters (the form that Docker Swarm uses)."""

from __future__ import annotations

import secrets
from collections.abc import Callable

ID_LENGTH = 25
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

IdSource = Callable[[], str]
"""Makes a new id. Injected wherever ids are made, so that a simulation is exact."""


def base36(number: int, length: int) -> str:
    """`number` in base 36, padded with zeros to `length` characters."""
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits)).rjust(length, "0")


def new_id() -> str:
    """A new object id from the operating system's randomness."""
    return base36(secrets.randbits(128), ID_LENGTH)

"""Unlock keys: what a person keeps so that a stolen disk of a manager is worth nothing."""

from __future__ import annotations

import base64
import re
import secrets

from agent.api_types.errors import InvalidArgument

KEY_BYTES = 32
_PREFIX = "SWMKEY-1-"
_KEY = re.compile(r"SWMKEY-1-([A-Za-z0-9+/]{43})")


class InvalidUnlockKey(InvalidArgument):
    """The text is no unlock key, or not the one that locked this manager. Never holds the key."""


def make_unlock_key() -> str:
    """A new key: `SWMKEY-1-` and 32 random bytes in base64 without padding (SwarmKit: ca/keyreadwriter, 43 characters)."""
    return format_unlock_key(secrets.token_bytes(KEY_BYTES))


def format_unlock_key(key: bytes) -> str:
    """32 bytes as people see them."""
    return _PREFIX + base64.b64encode(key).rstrip(b"=").decode()


def parse_unlock_key(text: str) -> bytes:
    """The 32 bytes of an unlock key; InvalidUnlockKey when it is none."""
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise InvalidUnlockKey("invalid unlock key: it has the form SWMKEY-1- and 43 letters and digits")
    return base64.b64decode(match[1] + "=")

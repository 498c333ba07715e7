"""Join tokens: who may become a node, and which cluster's root certificate the newcomer may trust.

`SWMTKN-1-<sha256 of the root certificate (DER), 50 characters base 36>-<a 16-byte secret, 25 characters base 36>`, the
form that SwarmKit uses (ca/config.go). The digest is no secret; the last part is.
"""

from __future__ import annotations

import hmac
import re
import secrets

from agent.api_types.errors import Unknown
from agent.api_types.identity import base36
from agent.api_types.node import NodeRole

DIGEST_BYTES = 32
SECRET_BYTES = 16
_DIGEST_LENGTH = 50
_SECRET_LENGTH = 25
_TOKEN = re.compile(rf"SWMTKN-1-([0-9a-z]{{{_DIGEST_LENGTH}}})-([0-9a-z]{{{_SECRET_LENGTH}}})")


class InvalidJoinToken(Unknown):
    """The token is none, or none of this cluster (status 500 in the recorded traffic). Never holds the token."""

    def __init__(self, text: str = "invalid join token") -> None:
        super().__init__(text)


def make_secret() -> str:
    """A new secret from the operating system's randomness; rotating a token is storing a new one."""
    return base36(int.from_bytes(secrets.token_bytes(SECRET_BYTES), "big"), _SECRET_LENGTH)


def join_token(root_digest: bytes, secret: str) -> str:
    """The token that admits a node to the cluster with this root (sha256, 32 bytes)."""
    return f"SWMTKN-1-{base36(int.from_bytes(root_digest, 'big'), _DIGEST_LENGTH)}-{secret}"


def parse_token(text: str) -> tuple[bytes, str]:
    """Root digest (32 bytes) and secret of a token; InvalidJoinToken when it is none."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise InvalidJoinToken()
    digest, secret = int(match[1], 36), match[2]
    if digest >= 1 << (8 * DIGEST_BYTES) or int(secret, 36) >= 1 << (8 * SECRET_BYTES):
        raise InvalidJoinToken()
    return digest.to_bytes(DIGEST_BYTES, "big"), secret


def role_of_secret(secret: str, *, worker_secret: str, manager_secret: str) -> NodeRole:
    """The role that `secret` admits to; InvalidJoinToken when it admits to none.

    Both comparisons are made and take the same time whatever the secret is, so time tells nothing of it. An empty
    stored secret admits nobody.
    """
    given = secret.encode()
    is_manager = hmac.compare_digest(given, manager_secret.encode()) and bool(manager_secret)
    is_worker = hmac.compare_digest(given, worker_secret.encode()) and bool(worker_secret)
    if is_manager:
        return NodeRole.MANAGER
    if is_worker:
        return NodeRole.WORKER
    raise InvalidJoinToken()

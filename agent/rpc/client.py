"""Dialling another node, and joining a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from agent.api_types.node import NodeRole
from agent.api_types.times import Clock, now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import JoinAnswer
from agent.rpc.peer import Purpose


async def dial(
    address: str,
    identity: NodeIdentity,
    *,
    purpose: Purpose,
    handlers: Mapping[str, Handler] | None = None,
    expect_node: str | None = None,
    expect_role: NodeRole | None = None,
    clock: Clock = now_ns,
    timeout: float = 10.0,
) -> Connection:
    """Connect to the listener at `address` (`host:port`). Raises Unreachable or Refused.

    `expect_role` and `expect_node` refuse a peer that is another: a session wants a manager.
    """
    raise NotImplementedError


async def fetch_root(address: str, digest: bytes, *, clock: Clock = now_ns, timeout: float = 10.0) -> bytes:
    """The cluster's root certificate (PEM), which must have the token's `digest`. Raises Unreachable or Refused."""
    raise NotImplementedError


async def join(
    address: str,
    token: str,
    key: NodeKey,
    *,
    listen_address: str = "",
    hostname: str = "",
    availability: str = "",
    clock: Clock = now_ns,
    timeout: float = 30.0,
) -> JoinAnswer:
    """Ask the manager at `address` for a certificate. Raises InvalidJoinToken, Unreachable or Refused.

    `NodeIdentity.from_answer` style use: `NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)`.
    """
    raise NotImplementedError

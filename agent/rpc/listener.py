"""The node's one TLS listener: lets in who may come in, and says why to those who may not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from agent.api_types.times import Clock, now_ns
from agent.pki.identity import NodeIdentity
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import JoinAnswer, JoinOpen
from agent.rpc.peer import Peer


class JoinService(Protocol):
    """Who admits new nodes; a manager implements it on the store."""

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """Compare `request.secret` (agent.pki.tokens.role_of_secret), sign the request, record the node.

        An ApiError's text reaches the node that asked.
        """
        ...


class Listener:
    """`async with Listener("0.0.0.0:2377", lambda: identity, handlers={...}) as listener:`

    `identity` is asked for each new handshake, so a renewed certificate is used at once. `handlers` is looked up live.
    `join` may be None (a worker: `join` and `ca` are answered with a text) and may be set later. `accept` may refuse an
    authenticated peer with a text that reaches it (a removed node). `on_connection` is told of every authenticated
    connection before its first message is handled.
    """

    join: JoinService | None

    def __init__(
        self,
        address: str,
        identity: Callable[[], NodeIdentity],
        *,
        handlers: Mapping[str, Handler],
        join: JoinService | None = None,
        accept: Callable[[Peer], str | None] | None = None,
        on_connection: Callable[[Connection], None] | None = None,
        clock: Clock = now_ns,
    ) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """`host:port` that is bound."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

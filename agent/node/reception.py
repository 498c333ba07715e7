"""Newcomers at any manager: the leader admits them, and a question that a leader is lost over is asked again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from agent.api_types.errors import Unavailable
from agent.api_types.identity import IdSource, new_id
from agent.manager.membership import LeaderLost, Membership, Referral
from agent.node.leader_link import Leadership
from agent.rpc.errors import RpcError
from agent.rpc.messages import JoinAnswer, JoinOpen, Message
from agent.rpc.peer import Peer

logger = logging.getLogger(__name__)

PATIENCE = 6.0
"""Seconds in which a newcomer's question is asked again: a lost leader is found out, and the next one is elected."""

PAUSE = 0.1
"""Seconds between two attempts."""


class Leaders(Protocol):
    """The way to the leader; `LeaderLink` is one."""

    async def until_leader(self) -> Leadership:
        """See `LeaderLink.until_leader`."""
        ...

    async def ask(self, method: str, question: Message) -> Message:
        """See `LeaderLink.ask`."""
        ...


class Reception:
    """Implements `agent.rpc.listener.JoinService` on every manager.

    `own_id` is this manager, `membership` the leader's room, None while this manager does not lead. The newcomer's id is
    chosen here: attempts of which nobody knows what became of them make one node together.
    """

    def __init__(
        self, own_id: str, link: Leaders, membership: Callable[[], Membership | None], *, ids: IdSource = new_id
    ) -> None:
        self._own_id = own_id
        self._link = link
        self._membership = membership
        self._ids = ids

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """See `JoinService`. Unavailable when no leader is found in time."""
        node_id = self._ids()
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while True:
            try:
                return await self._ask(request, peer, node_id)
            except (LeaderLost, RpcError) as error:
                if loop.time() >= end:
                    raise Unavailable(f"the leader could not be asked: {error}; try again in a moment") from None
                logger.info("the leader has not admitted %s yet: %s", peer, error)
            await asyncio.sleep(PAUSE)

    async def _ask(self, request: JoinOpen, peer: Peer, node_id: str) -> JoinAnswer:
        leader = await self._link.until_leader()
        membership = self._membership()
        if leader.node_id == self._own_id and membership is not None:
            return await membership.issue(request, peer, node_id)
        return await Referral(lambda question: self._link.ask("join", question)).issue(request, peer, node_id)

"""What a client without a certificate may call on a listener: `ca` and `join`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from agent.api_types.errors import ApiError, Unavailable
from agent.pki.identity import NodeIdentity
from agent.pki.tokens import InvalidJoinToken
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import JoinAnswer, JoinOpen, JoinRefused, Message, RootAnswer
from agent.rpc.peer import Peer
from agent.rpc.stream import Stream

logger = logging.getLogger("agent.rpc")

CA = "ca"
JOIN = "join"


class JoinService(Protocol):
    """Who admits new nodes; a manager implements it on the store."""

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """Compare `request.secret` (agent.pki.tokens.role_of_secret), sign the request, record the node.

        An ApiError's text reaches the node that asked.
        """
        ...


def joining_handlers(
    identity: Callable[[], NodeIdentity], service: Callable[[], JoinService | None]
) -> Mapping[str, Handler]:
    """The two handlers. Without a service this node is no manager, and says so."""

    def present() -> JoinService:
        found = service()
        if found is None:
            raise Unavailable(f"node {identity().node_id} is not a manager: give the address of one")
        return found

    async def ca(stream: Stream, opening: Message, connection: Connection) -> None:
        present()
        await stream.send(RootAnswer(root=identity().root_pem))

    async def join(stream: Stream, opening: Message, connection: Connection) -> None:
        if not isinstance(opening, JoinOpen):
            raise Unavailable(f"a {type(opening).__name__} where a JoinOpen was expected")
        try:
            answer: Message = await present().issue(opening, connection.peer)
        except ApiError as error:
            logger.warning("refused to let %s join: %s", connection.peer, error)
            answer = JoinRefused(text=str(error), wrong_token=isinstance(error, InvalidJoinToken))
        await stream.send(answer)

    return {CA: ca, JOIN: join}

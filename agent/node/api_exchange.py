"""The leader's side of exchanges with its API that another manager asks for: spliced to the own unix socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from agent.api_types.errors import InvalidArgument
from agent.node.carrying import carry
from agent.raft.interface import GroupStatus
from agent.rpc.connection import Connection
from agent.rpc.messages import ApiOpen, ApiReady, Message
from agent.rpc.stream import Stream

logger = logging.getLogger(__name__)


class ApiExchange:
    """Handler of `api`. `status` tells whether this manager leads; `own_socket` is where its API answers."""

    def __init__(self, status: Callable[[], GroupStatus], own_socket: Path) -> None:
        self._status = status
        self._own_socket = own_socket

    async def __call__(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """One exchange, unless its term is not the one that this manager leads in: then nothing is done."""
        if not isinstance(opening, ApiOpen):
            raise InvalidArgument(f"an exchange is opened with ApiOpen, not {type(opening).__name__}")
        status = self._status()
        if not status.leading or status.term != opening.term:
            await stream.send(ApiReady(f"this manager does not lead term {opening.term}; it is in term {status.term}"))
            return
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._own_socket))
        except OSError as error:
            await stream.send(ApiReady(f"the leader's own API does not answer: {error.strerror or error}"))
            return
        logger.debug("an exchange of %s for %s", connection.peer.node_id, opening.caller)
        try:
            await stream.send(ApiReady())
        except BaseException:
            writer.transport.abort()
            raise
        await carry(stream, reader, writer)

"""Many streams over one connection to another node; either side opens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from agent.rpc.messages import Message
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import Stream

Handler = Callable[[Stream, Message, "Connection"], Awaitable[None]]
"""Answers a stream that the other side opened: the stream, its opening message, its connection.

When it returns, the stream is closed in both directions. An ApiError or RpcError that it raises fails the stream with
that text. It is not cancelled at once when the stream fails: `receive` and `send` raise StreamFailed (use
`Stream.guard` around other waits); one that still runs 5 s after is cancelled.
"""


class Connection:
    """A connection to `peer`. `async with` closes it. Lives on the loop that made it."""

    peer: Peer
    purpose: Purpose

    async def open(self, method: str, opening: Message) -> Stream:
        """A new stream to the other side's handler of `method`. Raises ConnectionLost."""
        raise NotImplementedError

    def close(self, reason: str) -> None:
        """Say goodbye with `reason` and end the connection; every stream fails on both sides. Returns at once."""
        raise NotImplementedError

    async def wait_closed(self) -> str:
        """Wait until the connection has ended, whoever ended it; returns why."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the connection has ended or is ending."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


def only(role: object, handler: Handler) -> Handler:
    """`handler` for peers of this role alone (NodeRole); others are told why not."""
    raise NotImplementedError

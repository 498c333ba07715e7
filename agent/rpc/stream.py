"""One conversation on a connection: messages and bytes both ways, each direction with credit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.rpc.messages import Message


class Stream:
    """One conversation of a connection.

    Sending waits for the other side's credit, so a slow reader stops its writer and nobody else. Several tasks may send,
    one may receive. A cancelled call leaves the stream usable: a message is sent whole or not at all; of cancelled
    `send_bytes` a part may have been sent.
    """

    async def send(self, message: Message) -> None:
        """Send a message; returns once it is on its way. Raises StreamFailed; StreamEnded when nobody will read it."""
        raise NotImplementedError

    async def receive(self) -> Message:
        """The next message. Raises StreamEnded when the other side is done, StreamFailed when the stream broke."""
        raise NotImplementedError

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send raw bytes of any length, for relays."""
        raise NotImplementedError

    async def receive_bytes(self) -> bytes:
        """Some raw bytes, as many as have arrived; b"" once the other side is done. Raises StreamFailed."""
        raise NotImplementedError

    async def end(self) -> None:
        """Send nothing more; receiving goes on. A second call does nothing."""
        raise NotImplementedError

    async def fail(self, text: str) -> None:
        """Break the stream off in both directions; the other side's calls raise StreamFailed(text)."""
        raise NotImplementedError

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Work that ends with the stream: when the stream fails, the body is cancelled and StreamFailed raised.

        For handlers that wait for something else than the stream, such as the next line of a log.
        """
        raise NotImplementedError
        yield

    @property
    def failed(self) -> bool:
        """Whether the stream broke."""
        raise NotImplementedError

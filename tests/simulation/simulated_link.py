"""Connections between simulated nodes and a manager: streams in memory that can be cut, held up and broken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from agent.api_types.node import NodeRole
from agent.rpc.errors import ConnectionLost, StreamEnded, StreamFailed
from agent.rpc.messages import Message
from agent.rpc.peer import Peer, Purpose


class End:
    """One end of a stream; what it sends arrives at the other."""

    def __init__(self, link: Link, *, of_node: bool = False) -> None:
        self._link = link
        self.of_node = of_node
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._over = ""
        self._done = False
        self.other: End

    async def send(self, message: Message) -> None:
        if self.failed:
            raise self._failure()
        self._link.carry(lambda: self.other.deliver(message))
        await asyncio.sleep(0)

    def send_now(self, message: Message) -> bool:
        """There is always room."""
        if self.failed:
            raise self._failure()
        self._link.carry(lambda: self.other.deliver(message))
        return True

    async def receive(self) -> Message:
        while not self._arrived:
            if self.failed:
                raise self._failure()
            if self._done:
                raise StreamEnded("the other side is done")
            self._wake.clear()
            await self._wake.wait()
        return self._arrived.popleft()

    def _failure(self) -> StreamFailed:
        return ConnectionLost(self._link.broken) if self._link.broken else StreamFailed(self._over)

    async def end(self) -> None:
        self._link.carry(self.other.finish)

    async def fail(self, text: str) -> None:
        self.stop(text)
        self._link.carry(lambda: self.other.stop(text))

    @property
    def failed(self) -> bool:
        return bool(self._link.broken or self._over)

    def deliver(self, message: Message) -> None:
        self._arrived.append(message)
        self._wake.set()

    def finish(self) -> None:
        self._done = True
        self._wake.set()

    def stop(self, text: str) -> None:
        self._over = text
        self._wake.set()


class Link:
    """A connection of a node. `hold` delays everything, as a network does that loses packets; `break_off` resets it."""

    def __init__(
        self, node_id: str, address: str, purpose: Purpose = Purpose.CONTROL, clock_difference: int = 0
    ) -> None:
        self.peer = Peer(node_id, NodeRole.WORKER, address, clock_difference)
        self.purpose = purpose
        self.broken = ""
        self.to = ""
        """The manager at the other end, where there are several."""
        self.answer: Callable[[End, Message], Coroutine[Any, Any, None]]
        """The node's handler of streams that the manager opens."""
        self.answering: list[asyncio.Task[None]] = []
        self._held = False
        self._given_up = ""
        self._waiting: list[Callable[[], None]] = []
        self._ends: list[End] = []

    def stream(self) -> tuple[End, End]:
        """A new stream: the end of the node and the end of the manager."""
        one, other = End(self, of_node=True), End(self)
        one.other, other.other = other, one
        self._ends += [one, other]
        return one, other

    async def open(self, method: str, opening: Message) -> End:
        """The manager opens a stream to the node."""
        if self.broken:
            raise ConnectionLost(self.broken)
        node_end, manager_end = self.stream()
        self.answering.append(asyncio.ensure_future(self.answer(node_end, opening)))
        return manager_end

    def carry(self, arrival: Callable[[], None]) -> None:
        """Let something arrive at the other end: now, or when the network carries again."""
        if self._held:
            self._waiting.append(arrival)
        else:
            arrival()

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for arrival in waiting:
            arrival()
        if self._given_up:
            self.break_off(self._given_up)

    def break_off(self, reason: str) -> None:
        self.broken = self.broken or reason
        for end in self._ends:
            end.stop(self.broken)

    def give_up(self, reason: str) -> None:
        """The node lets go; the manager learns it as soon as the network carries anything."""
        if not self._held:
            self.break_off(reason)
            return
        self._given_up = reason
        for end in self._ends:
            if end.of_node:
                end.stop(reason)

    def close(self, reason: str) -> None:
        self.break_off(reason)

    @property
    def closed(self) -> bool:
        return bool(self.broken)


__all__ = ["End", "Link", "StreamEnded", "StreamFailed"]

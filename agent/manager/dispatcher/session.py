"""One node's session: what it is sent, in order, by one task; what it says is the dispatcher's affair."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from agent.api_types.node import NodeRole
from agent.manager.dispatcher.assignments import NodeAssignments
from agent.manager.dispatcher.networks import NOTHING, NetworkNews, NodeNetworks
from agent.rpc.errors import RpcError
from agent.rpc.messages import Assignments, Heartbeat, IngressTable, NetworkKeys, NodeUpdate, SessionEnd, SessionReady
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.transactions import ReadTx

GATHER = 0.01
"""Seconds in which changes for a node are gathered into one message."""

PARTING = 5.0
"""Seconds in which a node takes in why its session ends."""


class Session:
    """The sending half of a session. Callers mark what changed; the sender looks it up when it gets to send."""

    def __init__(
        self,
        session_id: str,
        node_id: str,
        address: str,
        stream: Stream,
        store: Store,
        *,
        role: NodeRole | None,
        protocol: int,
        update: Callable[[], NodeUpdate | None],
        ingress: Callable[[], IngressTable | None],
        networks: NodeNetworks,
        keys: Callable[[], NetworkKeys | None] = lambda: None,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self.session_id = session_id
        self.node_id = node_id
        self.address = address
        """The node's own listener."""
        self.role = role
        """The role in the certificate that the node came with."""
        self.protocol = protocol
        """What the node and this manager speak."""
        self.orderly = False
        """Whether the session's end is no reason for suspicion."""
        self._stream = stream
        self._store = store
        self._update = update
        self._sent_update: NodeUpdate | None = None
        self._is_updated = False
        self._ingress = ingress
        self._turn = turn
        self._sent_table: IngressTable | None = None
        self._assignments = NodeAssignments(node_id)
        self.networks = networks
        """What the node was told of overlay networks."""
        self._is_networked = False
        self._keys = keys
        self._sent_keys: NetworkKeys | None = None
        self._changed: dict[str, None] = {}
        self._is_complete = False
        self._is_open = False
        self._owes_answer = False
        self._end: SessionEnd | None = None
        self._ending = asyncio.Event()
        self._wake = asyncio.Event()

    def tasks_changed(self, task_ids: Iterable[str]) -> None:
        """Tasks of the node were made, changed or removed."""
        self._changed.update(dict.fromkeys(task_ids))
        self._wake.set()

    def networks_changed(self) -> None:
        """A network of the node's changed, or it may need other ones."""
        self._is_networked = False
        self._wake.set()

    def start_over(self) -> None:
        """What changed is not known any more: send everything again."""
        self._is_complete = False
        self._wake.set()

    def table_changed(self) -> None:
        """There is another table of published ports."""
        self._wake.set()

    def update_changed(self) -> None:
        """The node may have to be told something else of itself or of its cluster."""
        self._is_updated = False
        self._wake.set()

    def answer(self) -> None:
        """Answer a heartbeat: at once, or as soon as the node takes something in."""
        if self._is_open and self._end is None and not self._stream.send_now(Heartbeat()):
            self._owes_answer = True
            self._wake.set()

    def end(self, end: SessionEnd) -> None:
        """Say why and end; no reason to suspect the node."""
        self.orderly = True
        self._end = self._end or end
        self._ending.set()
        self._wake.set()

    async def overdue(self) -> None:
        """Return once the session should have ended: its node takes in nothing, not even the reason."""
        await self._ending.wait()
        await asyncio.sleep(PARTING)

    async def send_all(self, ready: SessionReady) -> None:
        """Send everything until the session is ended from this side. StreamFailed when it breaks."""
        await self._turn()
        await self._stream.send(ready)
        self._is_open = True
        while self._end is None:
            self._wake.clear()
            await self._send_update()
            await self._send_assignments()
            await self._send_table()
            if self._owes_answer:
                self._owes_answer = False
                await self._stream.send(Heartbeat())
            await self._wake.wait()
            # What belongs together (the tasks of one scheduling pass) mostly comes together.
            await asyncio.sleep(GATHER)
            await self._turn()
        await self._stream.send(self._end)

    async def _send_update(self) -> None:
        if self._is_updated:
            return
        self._is_updated = True
        update = self._update()
        if update is not None and update != self._sent_update:
            self._sent_update = update
            await self._stream.send(update)

    async def _send_assignments(self) -> None:
        """Assignments, after the networks that they use and before the end of those that they do not use any more."""
        news, message = self._store.view(self._compose)
        keys = self._keys() if self.networks.is_encrypted else None
        if keys is not None and keys != self._sent_keys:
            self._sent_keys = keys
            await self._stream.send(keys)
        for update in news.first:
            await self._stream.send(update)
        if message is not None:
            await self._stream.send(message)
        for update in news.last:
            await self._stream.send(update)

    def _compose(self, tx: ReadTx) -> tuple[NetworkNews, Assignments | None]:
        """What changed of networks and of tasks, of one and the same moment."""
        changed, self._changed = self._changed, {}
        if self._is_complete and self._is_networked and not changed:
            return NOTHING, None
        self._is_networked = True
        if self._is_complete:
            message = self._assignments.difference(tx, self._store.index, changed) if changed else None
            return self.networks.news(tx), message
        self._is_complete = True
        self.networks.start_over()
        return self.networks.news(tx), self._assignments.complete(tx, self._store.index)

    async def _send_table(self) -> None:
        table = self._ingress()
        if table is not None and table is not self._sent_table:
            self._sent_table = table
            await self._stream.send(table)


async def converse(session: Session, ready: SessionReady, listening: Coroutine[None, None, None]) -> None:
    """Both directions until one of them ends."""
    tasks = [
        asyncio.ensure_future(session.send_all(ready)),
        asyncio.ensure_future(listening),
        asyncio.ensure_future(session.overdue()),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(RpcError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                with contextlib.suppress(RpcError):
                    task.result()

"""Several managers behind several front doors, on one log in memory; what happens to leader and links is the test's to say."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
from api_scripted import Client, ScriptedBackend, ScriptedExplainer, ScriptedLogs, init_body

from agent.api.backend import LocalState
from agent.api.server import ApiServer
from agent.api.swarm import complete_spec
from agent.api_types.codec import from_builtins
from agent.api_types.node import ManagerStatus, Node, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from agent.api_types.swarm import Cluster, InitRequest
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus, NotLeader, OutcomeUnknown
from agent.rpc.messages import ManagerAddress
from agent.store.store import Store

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AgreedLog:
    """Entries that all stores apply in one order, those of the stores that are cut off later."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.seats: list[Seat] = []
        self.leader: Seat | None = None
        self.quorum = True

    def catch_up(self) -> None:
        """Every store that hears the others applies what it does not have yet."""
        for seat in self.seats:
            if not seat.cut_off:
                while seat.store.index < len(self.entries):
                    index = seat.store.index
                    seat.store.apply(index + 1, self.entries[index])


class Seat:
    """One manager's place at the log: its store's `Consensus`."""

    def __init__(self, log: AgreedLog, store: Store) -> None:
        self.log, self.store = log, store
        self.cut_off = False
        self.waiting: list[tuple[bytes, asyncio.Future[int]]] = []
        log.seats.append(self)

    @property
    def leading(self) -> bool:
        return self.log.leader is self

    def propose(self, data: bytes) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self.leading:
            future.set_exception(NotLeader())
            return future
        self.waiting.append((data, future))
        asyncio.get_running_loop().call_soon(self.commit)
        return future

    def commit(self) -> None:
        """What was proposed is agreed on, unless nobody hears it."""
        if self.cut_off or not self.log.quorum or not self.leading:
            return
        waiting, self.waiting = self.waiting, []
        for data, future in waiting:
            self.log.entries.append(data)
            self.log.catch_up()
            if not future.done():
                future.set_result(len(self.log.entries))

    def lose(self) -> None:
        """This one leads no more: nobody can say what becomes of what was proposed."""
        waiting, self.waiting = self.waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(OutcomeUnknown())

    async def read_index(self) -> int:
        if self.cut_off or not self.log.quorum or self.log.leader is None or self.log.leader.cut_off:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.log.catch_up()
        return self.store.index


class ManagerBackend(ScriptedBackend):
    """A manager of the group."""

    def __init__(self, group: Managers, name: str) -> None:
        super().__init__()
        self.hostname = name
        self.managers = group
        self.callers: list[str] = []
        self.way: Callable[[ManagerBackend, str], Awaitable[Link]] | None = None
        """How the leader is reached; None: as it should be."""

    @asynccontextmanager
    async def leader_link(self, caller: str) -> AsyncIterator[Link]:
        self.callers.append(caller)
        way = self.way or dial
        reader, writer = await way(self, caller)
        self.managers.open_links += 1
        try:
            yield reader, writer
        finally:
            self.managers.open_links -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def dial(backend: ManagerBackend, caller: str) -> Link:
    """The API of whom this manager takes for the leader."""
    assert backend.group is not None
    return await asyncio.open_unix_connection(backend.managers.sockets[backend.group.leader])


class Managers:
    """`h1`, `h2`, ... with a front door each. `h1` leads term 1."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.log = AgreedLog()
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.backends: dict[str, ManagerBackend] = {}
        self.seats: dict[str, Seat] = {}
        self.servers: dict[str, ApiServer] = {}
        self.clients: dict[str, Client] = {}
        self.sockets: dict[str, str] = {}
        """By node id."""
        self.ids: dict[str, str] = {}
        self.term = 0
        self.open_links = 0
        self.frozen: list[socket.socket] = []
        """The far ends of links that nobody answers on."""
        self.tasks: list[asyncio.Task[None]] = []
        """Whoever stands between two managers."""

    async def start(self, stack: AsyncExitStack) -> None:
        for name in self.names:
            self.backends[name] = backend = ManagerBackend(self, name)
            await self._be_manager(name, backend)
            path = self.folder / f"{name}.sock"
            self.servers[name] = await stack.enter_async_context(ApiServer(backend, str(path), group=None))
            session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=0))
            self.clients[name] = Client(await stack.enter_async_context(session))
            self.sockets[self.ids[name]] = str(path)
        first = self.backends["h1"]
        founded = first.store
        assert founded is not None
        self.elect("h1")
        await first.put(*[self._node(name) for name in self.names[1:]])

    async def _be_manager(self, name: str, backend: ManagerBackend) -> None:
        store = Store(clock=backend.clock, ids=backend.ids)
        seat = self.seats[name] = Seat(self.log, store)
        store.connect(seat)
        if name == "h1":
            self.log.leader = seat
            self.ids[name] = await self._found(backend, store)
        else:
            self.ids[name] = backend.node_id = backend.ids()
            backend.store, backend.node_address = store, f"10.0.0.{name[1:]}"
            backend.local_state, backend.is_manager = LocalState.ACTIVE, True
            self.log.catch_up()
        backend.remote_managers = [ManagerAddress(self.ids[other], _address(other)) for other in self.ids]

    async def _found(self, backend: ManagerBackend, store: Store) -> str:
        """What `init` makes, on the shared log."""
        scratch = ScriptedBackend()
        request = from_builtins(init_body(AdvertiseAddr="10.0.0.1"), InitRequest)
        scratch.hostname = backend.hostname
        backend.node_id = await scratch.init(msgspec.structs.replace(request, spec=complete_spec(request.spec)))
        backend.store, backend.node_address = store, scratch.node_address
        backend.local_state, backend.is_manager = LocalState.ACTIVE, True
        assert scratch.store is not None
        await backend.put(*scratch.store.view(lambda tx: [*tx.all(Node), *tx.all(Cluster)]))
        return backend.node_id

    def _node(self, name: str) -> Node:
        return Node(
            id=self.ids[name],
            spec=NodeSpec(role=NodeRole.MANAGER),
            description=NodeDescription(hostname=name),
            status=NodeStatus(state=NodeState.READY, addr=f"10.0.0.{name[1:]}"),
            manager_status=ManagerStatus(reachability="reachable", addr=_address(name)),
        )

    # -- what happens to the group

    def elect(self, leader: str, *, deaf: tuple[str, ...] = ()) -> None:
        """`leader` leads a new term; the `deaf` do not hear of it."""
        self.term += 1
        before, self.log.leader = self.log.leader, self.seats[leader]
        for name in self.names:
            if name not in deaf:
                self.tell(name, leader)
        if before is not None and before is not self.log.leader:
            before.lose()

    def tell(self, name: str, leader: str, *, leading: bool = True, term: int = 0) -> None:
        """`name` hears that `leader` leads; nobody does when it is empty."""
        backend = self.backends[name]
        leads = leader == name
        role = MemberRole.LEADER if leads else MemberRole.FOLLOWER if leader else MemberRole.CANDIDATE
        index = self.seats[name].store.index
        backend.logs, backend.explainer = (ScriptedLogs(), ScriptedExplainer()) if leads else (None, None)
        status = GroupStatus(
            member_id=self.ids[name],
            role=role,
            term=term or self.term,
            leader=self.ids[leader] if leader else "",
            leading=leads and leading,
            committed=index,
            applied=index,
            last_index=index,
            members=tuple(
                MemberStatus(
                    self.ids[other], _address(other), True, index if leads else -1, leads or other in (name, leader)
                )
                for other in self.names
            ),
            leaderless_since=0 if leader else time.monotonic_ns(),
        )
        backend.show_group(status)

    def lose_quorum(self, *, since: float = 0.0) -> None:
        """No manager hears a leader any more, for `since` seconds already."""
        self.log.quorum, self.log.leader = False, None
        self.term += 1
        for name in self.names:
            self.tell(name, "")
            group = self.backends[name].group
            assert group is not None
            self.backends[name].show_group(
                dataclasses.replace(group, leaderless_since=time.monotonic_ns() - int(since * 1e9))
            )


def _address(name: str) -> str:
    return f"10.0.0.{name[1:]}:2377"


@asynccontextmanager
async def managers(folder: Path, count: int = 2) -> AsyncIterator[Managers]:
    """A group whose first manager leads."""
    async with AsyncExitStack() as stack:
        group = Managers(folder, count)
        await group.start(stack)
        try:
            yield group
        finally:
            for end in group.frozen:
                end.close()
            await asyncio.gather(*group.tasks)

"""The calls of the raftos library on this group of members, with what raftos promises and does not keep.

    raftos.configure({"log_path": "/var/lib/example", "transport": transport, "on_leader": start, "on_follower": stop})
    await raftos.register("127.0.0.1:8000", cluster=["127.0.0.1:8001", "127.0.0.1:8002"])
    counter = raftos.Replicated(name="counter")
    await counter.set(42)
    await raftos.wait_until_leader("127.0.0.1:8000")
    await raftos.stop()

What is the same: the names, the arguments, a cluster of addresses that everybody is given alike, changes on the leader.
What is not: a command is acknowledged when it is durable on a majority, has a future of its own, and fails with
`NotLeader` or `OutcomeUnknown` when the leader is lost instead of waiting for ever; a change of a dict or a list is one
command; values are read from any member and are never old; a member's id is its address, and its certificate's, for there
is no `secret_key`: `transport` makes the connections (`agent.rpc` has one with mutual TLS).

Nothing here is shared by all of a process: `configure` in a context (a task, say) that has no group yet begins one, and
every later call in that context, or in a task that it starts, is about that group. `Raftos` is the same without contexts.

The agent's own wiring (`agent.node`) does not use this module. Which rooms run depends there on the term, not only on who
leads; members join, are promoted and leave while the group runs; the state machine is the store; and unlocking, forced
recovery and a member's expulsion are no part of raftos' calls. Each of these would be a detour around this module to the
`RaftMember` behind it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.raft.core.membership import Membership, encode_membership
from agent.raft.core.messages import Entry, EntryKind, HardState
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.core.settings import Settings
from agent.raft.folder import FolderLock
from agent.raft.interface import GroupStatus, NotLeader, OutcomeUnknown, Sealer, Transport
from agent.raft.member import RaftMember
from agent.raft.registers import Command, Extend, Merge, Put, Registers, Take
from agent.raft.storage import MemberStorage

__all__ = [
    "NotLeader",
    "OutcomeUnknown",
    "Raftos",
    "Replicated",
    "ReplicatedDict",
    "ReplicatedList",
    "configure",
    "get_leader",
    "register",
    "stop",
    "wait_until_leader",
]

Callback = Callable[[], Awaitable[None] | None]
MakeTransport = Callable[[str], AbstractAsyncContextManager[Transport]]

_NOT_TAKEN = {
    "secret_key": "certificates take its place; give a transport",
    "salt": "certificates take its place; give a transport",
    "cryptor": "certificates take its place; give a transport",
    "serializer": "commands have one form on the wire and on disk",
    "election_interval_spread": "an election begins after one to two times the step-down interval",
}


class _Unsealed:
    """A sealer for values that may lie readable on the disk."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


@dataclass(frozen=True)
class Configuration:
    """What `configure` takes; times in seconds."""

    log_path: str | Path = ""
    """Each member has a folder of its own in it."""
    transport: MakeTransport | None = None
    """Called with a member's address; what it yields carries messages while that member runs."""
    sealer: Sealer = field(default_factory=_Unsealed)
    """Encrypts what lies on the disk; readable without one."""
    heartbeat_interval: float = 0.1
    step_down_missed_heartbeats: int = 5
    """A leader that missed so many answers of a majority leads no more, and an election begins after as long."""
    on_leader: Callback = lambda: None
    """Called, or run as a task, when a member of this process begins to lead: all that was acknowledged is applied by then."""
    on_follower: Callback = lambda: None
    """The same when it does not lead any more."""

    def with_settings(self, settings: Mapping[str, Any]) -> Configuration:
        """Raises ValueError for what is not taken."""
        known = {name.lower(): value for name, value in settings.items()}
        for name in known:
            if name in _NOT_TAKEN:
                raise ValueError(f"{name} is not taken: {_NOT_TAKEN[name]}")
            if name not in Configuration.__dataclass_fields__:
                raise ValueError(f"there is no setting {name}")
        return replace(self, **known)

    @property
    def settings(self) -> Settings:
        """The same in ticks, two a heartbeat."""
        return Settings(heartbeat_ticks=2, election_ticks=2 * self.step_down_missed_heartbeats)


@dataclass(frozen=True)
class _Node:
    id: str
    member: RaftMember
    registers: Registers


class Raftos:
    """One process' part of one group: usually one member, as with raftos several where several addresses are given."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self._stack = AsyncExitStack()
        self._nodes: list[_Node] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change some settings; those of members that run already stay, but for the callbacks."""
        self.configuration = self.configuration.with_settings(settings)

    async def register(self, *addresses: str, cluster: Iterable[str] = ()) -> None:
        """Run a member for each address, in a group of these and of `cluster`; returns when they run.

        Every member must be given the same addresses the first time; what is in the folder counts from then on.
        """
        config = self.configuration
        if config.transport is None or not config.log_path:
            raise ValueError("configure log_path and transport first")
        everyone = tuple(sorted({*addresses, *cluster}))
        membership = Membership(everyone, (), {address: address for address in everyone})
        for address in addresses:
            folder = Path(config.log_path) / address.replace(":", "_")
            await asyncio.to_thread(_begin, folder, config.sealer, membership)
            registers = Registers()
            transport = await self._stack.enter_async_context(config.transport(address))
            member = RaftMember(
                folder,
                registers,
                config.sealer,
                address,
                transport,
                address=address,
                settings=config.settings,
                tick=config.heartbeat_interval / 2,
            )
            await self._stack.enter_async_context(member)
            node = _Node(address, member, registers)
            self._nodes.append(node)
            self._run(self._watch(node))

    def stop(self) -> asyncio.Task[None]:
        """Stop every member of this process; done, for those who wait, when they have."""
        return asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        self._nodes.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._turn()

    # -- who leads

    def get_leader(self) -> str | None:
        """The leader's address; None while none is known. A member here counts once it can take commands."""
        for node in self._nodes:
            leader = _leader_in(node.member.status)
            if leader is not None:
                return leader
        return None

    async def wait_until_leader(self, node_id: str | None) -> None:
        """Return once that member leads."""
        if node_id is None:
            raise ValueError("a member's id cannot be None")
        await self._until(lambda: self.get_leader() == node_id)

    # -- values

    async def get_value(self, name: str) -> Any:
        """A value that is not older than this call; KeyError where there is none."""
        await self._until(lambda: self.get_leader() is not None)
        node = self._nodes[0]
        await node.member.read_index()
        return node.registers.read(name)

    async def run(self, command: Command) -> Any:
        """Have a command agreed on. Waits while there is no leader; `NotLeader` where another process leads."""
        await self._until(lambda: self.get_leader() is not None)
        leader = self.get_leader()
        for node in self._nodes:
            if node.id == leader:
                return await node.registers.run(command, node.member.propose)
        raise NotLeader(f"the leader is {leader}")

    # -- what goes on

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if not self._nodes:
                raise NotLeader("no member runs here; register one")
            await self._changed.wait()

    def _turn(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, node: _Node) -> None:
        """Tell of every change of leader."""
        leads = False
        status = node.member.status
        while True:
            if status.leading != leads:
                leads = status.leading
                self._call(self.configuration.on_leader if leads else self.configuration.on_follower)
            self._turn()
            status = await node.member.status_changed(status)

    def _call(self, callback: Callback) -> None:
        result = callback()
        if inspect.isawaitable(result):
            self._run(_finish(result))

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _finish(work: Awaitable[None]) -> None:
    await work


def _leader_in(status: GroupStatus) -> str | None:
    if status.leader == status.member_id:
        return status.leader if status.leading else None
    return status.leader or None


def _begin(folder: Path, sealer: Sealer, membership: Membership) -> None:
    """Write the first membership into an empty folder. It is the same entry everywhere, so that all logs agree."""
    lock = FolderLock(folder)
    storage = MemberStorage(folder, sealer)
    try:
        recovered = storage.recover(Membership(), lambda chunks: None)
        if not recovered.entries and not recovered.snapshot.index:
            first = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(membership))
            storage.write(
                Ready(0, Status(RoleName.FOLLOWER, 1, ""), (), None, HardState(1), (first,), True, (), (), ())
            )
    finally:
        storage.close()
        lock.release()


_current: ContextVar[Raftos] = ContextVar("raftos")


def _group() -> Raftos:
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("no group in this context; call configure first") from None


def configure(settings: Mapping[str, Any]) -> None:
    """See `Raftos.configure`. Begins a group where this context has none."""
    group = _current.get(None)
    if group is None:
        group = Raftos()
        _current.set(group)
    group.configure(settings)


async def register(*addresses: str, cluster: Iterable[str] = ()) -> None:
    """See `Raftos.register`."""
    await _group().register(*addresses, cluster=cluster)


def stop() -> asyncio.Task[None]:
    """See `Raftos.stop`."""
    return _group().stop()


def get_leader() -> str | None:
    """See `Raftos.get_leader`."""
    return _group().get_leader()


async def wait_until_leader(node_id: str | None) -> None:
    """See `Raftos.wait_until_leader`."""
    await _group().wait_until_leader(node_id)


V = TypeVar("V")


class Replicated(Generic[V]):
    """A value with a name. Everyone may read it; who leads may set it, others are told by `NotLeader` who does.

    `group` is the context's unless it is given.
    """

    def __init__(self, name: str, default: V | None = None, *, group: Raftos | None = None) -> None:
        self.name = name
        self._default = default
        self._given = group

    async def get(self) -> Any:
        """The value, or the default while nobody has set one."""
        try:
            return await self._group.get_value(self.name)
        except KeyError:
            return self._empty()

    async def set(self, value: V) -> None:
        """Replace the value; it is safe on a majority when this returns."""
        await self._group.run(Put(self.name, value))

    @property
    def _group(self) -> Raftos:
        return self._given or _group()

    def _empty(self) -> Any:
        return self._default


class ReplicatedContainer(Replicated[V]):
    """What a dict and a list have in common."""

    async def __getitem__(self, key: Any) -> Any:
        return (await self.get())[key]

    async def length(self) -> int:
        """How many there are."""
        return len(await self.get())


class ReplicatedDict(ReplicatedContainer[dict[Any, Any]]):
    """A dict; each change is one command, so that changes of two members never undo each other."""

    async def update(self, items: Mapping[Any, Any]) -> None:
        """Set some keys."""
        await self._group.run(Merge(self.name, dict(items)))

    async def pop(self, key: Any, *default: Any) -> Any:
        """Remove a key; what it held, or the default. KeyError without one."""
        if len(default) > 1:
            raise TypeError("one default at most")
        return await self._group.run(Take(self.name, key, (default[0],) if default else None))

    async def delete(self, key: Any) -> None:
        """Remove a key; KeyError where it is not."""
        await self._group.run(Take(self.name, key))

    async def keys(self) -> Any:
        """As of a dict."""
        return (await self.get()).keys()

    async def values(self) -> Any:
        """As of a dict."""
        return (await self.get()).values()

    async def items(self) -> Any:
        """As of a dict."""
        return (await self.get()).items()

    def _empty(self) -> Any:
        return dict(self._default or {})


class ReplicatedList(ReplicatedContainer[list[Any]]):
    """A list; each change is one command."""

    async def append(self, item: Any) -> None:
        """Put an item at the end."""
        await self.extend([item])

    async def extend(self, items: Iterable[Any]) -> None:
        """Put items at the end."""
        await self._group.run(Extend(self.name, list(items)))

    def _empty(self) -> Any:
        return list(self._default or [])

"""Real members over the real transport: elections, writes, a snapshot for a newcomer, another address, another root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from raft_driver_network import Plain, Remembering, when
from rpc_cluster import TestCluster

from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.raft.member import RaftMember
from agent.rpc.listener import Listener
from agent.rpc.raft_transport import RaftTransport


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


class Manager:
    """A member with its listener; `async with` runs it."""

    def __init__(self, cluster: TestCluster, folder: Path, name: str) -> None:
        self.name = name
        self.identity = cluster.identity(name, NodeRole.MANAGER)
        self.machine = Remembering()
        self._folder = folder / name
        self._stack = AsyncExitStack()

    async def start(self, *, founding: bool = False) -> None:
        """Listen on a free port, and take part."""
        transport = RaftTransport(lambda: self.identity)
        listener = Listener("127.0.0.1:0", lambda: self.identity, handlers={}, on_raft=transport.adopt)
        self.address = (await self._stack.enter_async_context(listener)).address
        self.machine = Remembering()
        self.member = await self._stack.enter_async_context(
            RaftMember(
                self._folder,
                self.machine,
                Plain(),
                self.name,
                transport,
                address=self.address,
                founding=founding,
                snapshot_interval=50,
                keep_entries=5,
            )
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def join(self, leader: Manager) -> None:
        await leader.member.add_learner(self.name, self.address)
        await when(
            leader.member,
            lambda status: any(m.id == self.name and m.match >= status.last_index for m in status.members),
        )
        await leader.member.promote(self.name)


@asynccontextmanager
async def group(cluster: TestCluster, folder: Path, *names: str) -> AsyncIterator[list[Manager]]:
    """Managers in one group, the first of them leading."""
    managers = [Manager(cluster, folder, name) for name in names]
    async with AsyncExitStack() as stack:
        for manager in managers:
            stack.push_async_callback(manager.stop)
            await manager.start(founding=manager is managers[0])
            if manager is not managers[0]:
                await manager.join(managers[0])
        yield managers


async def write(managers: list[Manager], data: bytes) -> Manager:
    """Through whoever leads, once it is sure; returns who that was."""
    while True:
        leading = [manager for manager in managers if manager.member.status.leading]
        if not leading:
            waits = [asyncio.ensure_future(each.member.status_changed(each.member.status)) for each in managers]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            continue
        try:
            await leading[0].member.propose(data)
        except (NotLeader, OutcomeUnknown):
            continue
        return leading[0]


async def test_a_newcomer_gets_a_snapshot_and_all_agree(cluster: TestCluster, tmp_path: Path) -> None:
    async with group(cluster, tmp_path, "a", "b", "c") as (a, b, c):
        writes = [a.member.propose(b"%d" % number * 1000) for number in range(300)]
        await asyncio.gather(*writes)
        late = Manager(cluster, tmp_path, "late")
        try:
            await late.start()
            await late.join(a)
            last = await a.member.propose(b"last")
            await when(late.member, lambda status: status.applied >= last)
            assert late.machine.restores == 1
            assert late.machine.data == a.machine.data
            await when(b.member, lambda status: status.applied >= last)
            await when(c.member, lambda status: status.applied >= last)
            assert b.machine.data == c.machine.data == a.machine.data
        finally:
            await late.stop()


async def test_another_leader_and_another_address(cluster: TestCluster, tmp_path: Path) -> None:
    """The leader stops; the others elect one of them; it comes back on another port, and is moved there."""
    async with group(cluster, tmp_path, "a", "b", "c") as (a, b, c):
        await write([a], b"before")
        await a.stop()
        leader = await write([b, c], b"without a")
        assert leader is not a
        back = Manager(cluster, tmp_path, "a")
        try:
            await back.start()
            await leader.member.move("a", back.address)
            last = await leader.member.propose(b"moved")
            await when(back.member, lambda status: status.applied >= last)
            assert back.machine.data == leader.machine.data
            assert back.machine.data[0] == b"before"
        finally:
            await back.stop()


async def test_a_rotated_root_is_no_outage(cluster: TestCluster, tmp_path: Path) -> None:
    """Certificates change under a group that writes: first all trust both roots, then each shows a new one."""
    new = RootCA.create(now_ns)
    bridge = new.cross_sign(cluster.root)
    both = cluster.root.cert_pem + new.cert_pem

    def renewed(name: str, roots: bytes) -> NodeIdentity:
        key = NodeKey.create()
        leaf = new.sign(key.request(), name, NodeRole.MANAGER, cluster_id=cluster.cluster_id, clock=now_ns)
        return NodeIdentity.from_pem(leaf + bridge, key.pem, roots)

    async with group(cluster, tmp_path, "a", "b", "c") as managers:
        term = managers[0].member.status.term
        for manager in managers:
            # This one is ahead of the others: they know the old root alone, and trust it by the bridge.
            manager.identity = renewed(manager.name, both)
            for number in range(20):
                await write(managers, b"%d" % number)
        for manager in managers:
            manager.identity = manager.identity.with_roots(new.cert_pem)
            for number in range(20):
                await write(managers, b"%d" % number)
        assert managers[0].member.status.term == term
        assert managers[0].member.status.leading

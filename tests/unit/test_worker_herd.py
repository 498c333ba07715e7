"""A thousand nodes that lose their leader together, against managers that take so many handshakes a second and no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import pytest
from worker_fakes import NODE, FakeStream, VirtualLoop, run_virtual

from agent.api_types.node import Node, NodeDescription
from agent.api_types.times import SECOND
from agent.rpc.errors import RpcError, Unreachable
from agent.rpc.messages import Heartbeat, ManagerAddress, Message, SessionEnd, SessionReady
from agent.rpc.peer import Purpose
from agent.worker.reports import Outbox
from agent.worker.session import SessionKeeper, Surface

NODES = 1000
HANDSHAKES = 300
"""Handshakes that a manager completes in a second: three thousandths of a second each."""
ASK = 0.0002
"""Seconds that the opening of a session costs a manager on a connection that stands."""
SETTLING = 5
"""Seconds over which a node spreads what can wait."""


class Cluster:
    """Managers, one of which leads."""

    def __init__(self) -> None:
        self.managers: dict[str, Manager] = {}
        self.leader: str | None = None

    def add(self, address: str) -> Manager:
        self.managers[address] = Manager(self, address)
        return self.managers[address]

    async def dial(self, address: str, purpose: Purpose, handlers: Mapping[str, object]) -> Connection:
        return await self.managers[address].dial(purpose)


class Manager:
    """Works on one thing after the other, and on what nobody waits for any more as long as on the rest."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self.cluster = cluster
        self.address = address
        self.state = "up"
        self.dials: list[float] = []
        self.asked: list[float] = []
        self.connections: set[Connection] = set()
        self._busy_until = 0.0

    async def work(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._busy_until = max(self._busy_until, loop.time()) + seconds
        await asyncio.sleep(self._busy_until - loop.time())

    async def dial(self, purpose: Purpose) -> Connection:
        self.dials.append(asyncio.get_running_loop().time())
        if self.state == "killed":
            raise Unreachable(f"{self.address}: connection refused")
        if self.state == "frozen":
            await asyncio.get_running_loop().create_future()
        await self.work(1 / HANDSHAKES)
        if self.state != "up":
            raise Unreachable(f"{self.address}: connection reset")
        connection = Connection(self, purpose)
        self.connections.add(connection)
        return connection

    def kill(self) -> None:
        self.state = "killed"
        for connection in list(self.connections):
            connection.close(f"{self.address} was killed")


class Connection:
    """What a keeper uses of a connection."""

    class Peer:
        def __init__(self, address: str) -> None:
            self.address = self.node_id = address

    def __init__(self, manager: Manager, purpose: Purpose) -> None:
        self.manager = manager
        self.peer = self.Peer(manager.address)
        self.purpose = purpose
        self.streams: list[FakeStream] = []
        self.serving: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        return self.ended.done()

    async def open(self, method: str, opening: Message) -> FakeStream:
        if self.closed:
            raise Unreachable("closed")
        ours, theirs = FakeStream.pair()
        self.streams.append(ours)
        serving = asyncio.ensure_future(self._serve(theirs))
        self.serving.add(serving)
        serving.add_done_callback(self.serving.discard)
        return ours

    async def _serve(self, stream: FakeStream) -> None:
        manager = self.manager
        manager.asked.append(asyncio.get_running_loop().time())
        await manager.work(ASK)
        leader = manager.cluster.leader
        try:
            if leader != manager.address:
                named = ManagerAddress("leader", leader) if leader is not None else None
                stream.put(SessionEnd("this manager does not lead", leader=named))
                return
            managers = [ManagerAddress(address, address) for address in manager.cluster.managers]
            stream.put(SessionReady("s", SECOND, managers, Node(id=NODE), "c", settling=SETTLING * SECOND))
            while True:
                await stream.receive()
                if manager.state == "up":
                    stream.put(Heartbeat())
        except RpcError:
            return

    def close(self, reason: str) -> None:
        if not self.ended.done():
            self.manager.connections.discard(self)
            self.ended.set_result(reason)
            for stream in self.streams:
                stream.break_off(reason)

    def give_up_after(self, seconds: float) -> None: ...

    async def wait_closed(self) -> str:
        return await asyncio.shield(self.ended)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close("done")


class Worker:
    """What a keeper uses of a worker."""

    executor = None

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.managers: list[ManagerAddress] = []
        self.restored = asyncio.Event()
        self.restored.set()

    def handlers(self) -> Mapping[str, object]:
        return {}

    def remember_managers(self, managers: list[ManagerAddress]) -> None:
        self.managers = managers

    def set_leaderless(self, leaderless: bool) -> None: ...

    def resend(self) -> None: ...


async def describe() -> NodeDescription:
    return NodeDescription(hostname="host")


class Herd:
    """The nodes, and when each had its newest session."""

    def __init__(self, cluster: Cluster, loop: VirtualLoop, size: int) -> None:
        self.loop = loop
        self.size = size
        self.ready: dict[int, float] = {}
        self.all_ready = asyncio.Event()
        seeds = tuple(cluster.managers)
        self.keepers = [
            SessionKeeper(
                Worker(),
                cluster.dial,
                describe,
                "10.0.0.9:2377",
                seeds,
                Surface(on_ready=self._note(number)),
                random=random.Random(number),
            )
            for number in range(size)
        ]
        self.running = [asyncio.create_task(keeper.run()) for keeper in self.keepers]

    def _note(self, number: int) -> Callable[[SessionReady], None]:
        def note(ready: SessionReady) -> None:
            self.ready[number] = self.loop.now
            if len(self.ready) == self.size:
                self.all_ready.set()

        return note

    def forget(self) -> None:
        self.ready.clear()
        self.all_ready.clear()

    async def end(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.wait(self.running)


@pytest.mark.parametrize(("failure", "detected"), [("killed", 0.0), ("frozen", 3.0)])
def test_a_thousand_nodes_are_back_without_a_handshake(failure: str, detected: float) -> None:
    async def main(loop: VirtualLoop) -> None:
        cluster = Cluster()
        first, *others = [cluster.add(f"m{number}:1") for number in range(3)]
        cluster.leader = first.address
        herd = Herd(cluster, loop, NODES)
        await herd.all_ready.wait()
        joined = max(herd.ready.values()) - 1_000
        await asyncio.sleep(2 * SETTLING)
        # A node has two connections to the leader and one to each of the others.
        assert sorted(len(manager.connections) for manager in cluster.managers.values()) == [NODES, NODES, 2 * NODES]
        for manager in cluster.managers.values():
            manager.dials.clear()
            manager.asked.clear()
        herd.forget()
        lost = loop.now
        cluster.leader = None
        if failure == "killed":
            first.kill()
        else:
            first.state = "frozen"
        await asyncio.sleep(1.0)
        cluster.leader = others[1].address
        await herd.all_ready.wait()
        times = sorted(when - lost for when in herd.ready.values())
        dials = {manager.address: len(manager.dials) for manager in others}
        print(
            f"joined {joined:.1f} s; {failure}: half back after {times[NODES // 2]:.1f} s, all after {times[-1]:.1f} s; "
            f"dials {dials}, questions { {manager.address: len(manager.asked) for manager in others} }"
        )
        assert times[-1] < detected + 2.5
        # What a node needs was made long before; bulk connections come at leisure, and a few are there by now.
        assert not others[0].dials
        assert len(others[1].dials) <= NODES / 2
        # Nobody runs against the one that is dead without pause.
        spent = loop.now - lost - detected
        assert len(first.dials) <= NODES * (spent / 0.25 + 2)
        await asyncio.sleep(2 * SETTLING)
        assert [len(manager.connections) for manager in others] == [NODES, 2 * NODES]
        assert [len(manager.dials) for manager in others] == [0, NODES]
        await herd.end()
        assert not any(manager.connections for manager in cluster.managers.values())

    run_virtual(main)


def test_nodes_without_a_leader_cost_the_managers_little() -> None:
    async def main(loop: VirtualLoop) -> None:
        cluster, size = Cluster(), 100
        managers = [cluster.add(f"m{number}:1") for number in range(3)]
        herd = Herd(cluster, loop, size)
        await asyncio.sleep(5)
        for manager in managers:
            assert len(manager.dials) == size
            manager.asked.clear()
        await asyncio.sleep(10)
        for manager in managers:
            assert len(manager.dials) == size
            assert len(manager.asked) / 10 < 1.5 * size
        cluster.leader, elected = managers[0].address, loop.now
        await herd.all_ready.wait()
        assert max(herd.ready.values()) - elected < 1.1
        await herd.end()

    run_virtual(main)

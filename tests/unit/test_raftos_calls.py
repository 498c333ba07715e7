"""raftos' calls on this group of members: the scenarios of its README, and what it loses there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rpc_cluster import TestCluster

from agent.api_types.node import NodeRole
from agent.pki.identity import NodeIdentity
from agent.raft import raftos
from agent.raft.interface import NotLeader, OutcomeUnknown, Transport
from agent.rpc.listener import Listener
from agent.rpc.raft_transport import RaftTransport

T = TypeVar("T")


class Machine:
    """One process of an application that uses raftos: a context, an address with mutual TLS, and what it was told."""

    def __init__(self, cluster: TestCluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._context = Context()
        self._identity: NodeIdentity
        self._listener = Listener("127.0.0.1:0", lambda: self._identity, handlers={})
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.address = ""

    async def __aenter__(self) -> Machine:
        await self._listener.__aenter__()
        self.address = self._listener.address
        self._identity = self._cluster.identity(self.address, NodeRole.MANAGER)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._listener.__aexit__(None, None, None)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in this process."""
        return await asyncio.create_task(work, context=self._context)

    async def start(self, *others: str) -> None:
        """A new process on the same folder."""
        self._context = copy_context()

        async def on_follower() -> None:
            self.told.put_nowait("follower")

        async def begin() -> None:
            raftos.configure(
                {
                    "log_path": self._folder,
                    "transport": self._transport,
                    "on_leader": lambda: self.told.put_nowait("leader"),
                    "on_follower": on_follower,
                    "heartbeat_interval": 0.05,
                }
            )
            await raftos.register(self.address, cluster=others)

        await self.run(begin())

    async def stop(self) -> None:
        async def end() -> None:
            await raftos.stop()

        await self.run(end())

    @asynccontextmanager
    async def _transport(self, address: str) -> AsyncIterator[Transport]:
        assert address == self.address
        transport = RaftTransport(lambda: self._identity)
        self._listener.on_raft = transport.adopt
        yield transport
        self._listener.on_raft = None


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[list[Machine]]:
    """Three that form a group."""
    cluster = TestCluster()
    async with AsyncExitStack() as stack:
        three = [await stack.enter_async_context(Machine(cluster, tmp_path / name)) for name in "abc"]
        await asyncio.gather(*(start(machine, three) for machine in three))
        yield three


async def start(machine: Machine, group: list[Machine]) -> None:
    await machine.start(*(other.address for other in group if other is not machine))


async def leader_of(machines: list[Machine]) -> Machine:
    """The first of these that comes to lead."""
    waiting = {
        asyncio.create_task(machine.run(raftos.wait_until_leader(machine.address))): machine for machine in machines
    }
    done, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return waiting[done.pop()]


async def test_values_set_on_the_leader_are_read_everywhere(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    counter = raftos.Replicated(name="counter")
    data = raftos.ReplicatedDict(name="data")
    await leader.run(counter.set(42))
    await leader.run(data.update({"id": 337, "data": {"amount": 20000, "created_at": "7/11/16 18:45"}}))
    for machine in machines:
        assert await machine.run(counter.get()) == 42
        assert (await machine.run(data["data"]))["amount"] == 20000
        assert sorted(await machine.run(data.keys())) == ["data", "id"]


async def test_everyone_knows_who_leads_and_the_leader_is_told(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    for machine in machines:
        await machine.run(raftos.wait_until_leader(leader.address))
    assert await leader.told.get() == "leader"
    for machine in machines:
        if machine is not leader:
            assert machine.told.empty()


async def test_whenever_the_leader_falls_someone_takes_its_place(machines: list[Machine]) -> None:
    counter = raftos.Replicated(name="counter")
    first = await leader_of(machines)
    await first.run(counter.set(1))
    await first.stop()
    rest = [machine for machine in machines if machine is not first]
    second = await leader_of(rest)
    assert await second.told.get() == "leader"
    assert await second.run(counter.get()) == 1
    await second.run(counter.set(2))
    await start(first, machines)
    await first.run(raftos.wait_until_leader(second.address))
    assert await first.run(counter.get()) == 2


async def test_a_leader_that_nobody_hears_is_told_that_it_leads_no_more(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    assert await leader.told.get() == "leader"
    for machine in machines:
        if machine is not leader:
            await machine.stop()
    late = asyncio.create_task(leader.run(raftos.Replicated(name="late").set(1)))
    assert await leader.told.get() == "follower"
    with pytest.raises((NotLeader, OutcomeUnknown)):
        await late


async def test_changes_at_once_lose_nothing_and_each_has_its_own_answer(machines: list[Machine]) -> None:
    """raftos reads the dict, changes it and sends all of it, and has one future for whatever is applied next."""
    leader = await leader_of(machines)
    one, other = raftos.ReplicatedDict(name="d"), raftos.ReplicatedDict(name="d")
    entries = raftos.ReplicatedList(name="l")
    await asyncio.gather(
        *(leader.run((one, other)[number % 2].update({str(number): number})) for number in range(60)),
        *(leader.run(entries.append(number)) for number in range(60)),
    )
    assert await leader.run(one.length()) == 60
    assert sorted(await leader.run(entries.get())) == list(range(60))
    taken = await asyncio.gather(*(leader.run(one.pop(str(number))) for number in range(60)))
    assert taken == list(range(60))
    assert await leader.run(other.get()) == {}


async def test_a_command_that_cannot_be_done_says_why_and_changes_nothing(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    entries, table = raftos.ReplicatedList(name="v"), raftos.ReplicatedDict(name="d")
    await leader.run(entries.extend([1, 2]))
    with pytest.raises(KeyError, match="missing"):
        await leader.run(table.delete("missing"))
    assert await leader.run(table.pop("missing", None)) is None
    with pytest.raises(TypeError, match="no dict"):
        await leader.run(raftos.ReplicatedDict(name="v").update({"a": 1}))
    assert [await machine.run(entries[1]) for machine in machines] == [2, 2, 2]


async def test_a_follower_says_who_leads(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    follower = next(machine for machine in machines if machine is not leader)
    await follower.run(raftos.wait_until_leader(leader.address))
    with pytest.raises(NotLeader, match=leader.address):
        await follower.run(raftos.Replicated(name="x").set(1))


async def test_values_larger_than_a_datagram_are_agreed_on(machines: list[Machine]) -> None:
    leader = await leader_of(machines)
    value = raftos.Replicated(name="large")
    await leader.run(value.set("x" * 300_000))
    assert len(await machines[0].run(value.get())) == 300_000


async def test_all_that_was_acknowledged_is_there_after_a_restart_of_all_and_more_can_be_written(
    machines: list[Machine],
) -> None:
    """raftos takes no command any more then: it waits for entries of the terms before."""
    value = raftos.Replicated(name="number")
    for round_ in range(3):
        leader = await leader_of(machines)
        assert await leader.run(value.get()) == (round_ or None)
        await leader.run(value.set(round_ + 1))
        await asyncio.gather(*(machine.stop() for machine in machines))
        await asyncio.gather(*(start(machine, machines) for machine in machines))
    assert await (await leader_of(machines)).run(value.get()) == 3


async def test_two_groups_in_one_process_know_nothing_of_each_other(tmp_path: Path) -> None:
    cluster = TestCluster()
    async with Machine(cluster, tmp_path / "one") as one, Machine(cluster, tmp_path / "other") as other:
        for machine in (one, other):
            await machine.start()
            await machine.run(raftos.wait_until_leader(machine.address))
        value = raftos.Replicated(name="same", default="nothing")
        await one.run(value.set("of one"))
        assert await other.run(value.get()) == "nothing"
        assert await one.run(value.get()) == "of one"


async def test_without_a_group_and_with_settings_that_are_not_taken_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="configure first"):
        raftos.get_leader()
    group = raftos.Raftos()
    with pytest.raises(ValueError, match="secret_key is not taken: certificates take its place"):
        group.configure({"secret_key": b"raftos sample secret key"})
    with pytest.raises(ValueError, match="no setting hearbeat"):
        group.configure({"hearbeat": 1})
    with pytest.raises(ValueError, match="log_path and transport"):
        await group.register("127.0.0.1:8000")
    with pytest.raises(NotLeader, match="register one"):
        await raftos.Replicated("x", group=group).get()
    with pytest.raises(ValueError, match="cannot be None"):
        await group.wait_until_leader(None)

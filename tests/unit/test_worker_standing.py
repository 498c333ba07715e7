"""Connections to managers that do not lead: kept, made again, let go."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from test_worker_session import FakeManager, agent
from worker_fakes import VirtualLoop, run_virtual

from agent.api_types.node import NodeRole
from agent.rpc.messages import Heartbeat, ManagerAddress, NodeUpdate, SessionEnd


def test_the_next_leader_is_asked_without_a_handshake(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        managers = [FakeManager("m0:1"), FakeManager("m1:1", mode="follower"), FakeManager("m2:1", mode="follower")]
        for manager in managers:
            manager.dial_time = 2.0
        async with agent(tmp_path, loop, *managers):
            await (await managers[0].sessions.get()).ready("m0:1", "m1:1", "m2:1")
            await asyncio.sleep(10)
            assert [len(manager.open_connections) for manager in managers] == [2, 1, 1]
            for manager in managers:
                manager.dials.clear()
            managers[0].mode, managers[2].mode, lost = "away", "accept", loop.now
            for connection in list(managers[0].open_connections):
                connection.close("killed")
            await (await managers[2].sessions.get()).ready("m0:1", "m1:1", "m2:1")
            assert loop.now - lost < 0.1
            await asyncio.sleep(10)
            assert not managers[1].dials
            assert not managers[2].dials
            # The one that was killed is tried at leisure, and held as soon as it is back.
            assert len(managers[0].dials) < 10
            managers[0].mode = "follower"
            await asyncio.sleep(35)
            assert [len(manager.open_connections) for manager in managers] == [1, 1, 2]

    run_virtual(main)


def test_a_connection_that_is_lost_alone_is_made_again(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        leader, other = FakeManager("m0:1"), FakeManager("m1:1", mode="follower")
        async with agent(tmp_path, loop, leader, other):
            await (await leader.sessions.get()).ready("m0:1", "m1:1")
            for dials in range(1, 6):
                await asyncio.sleep(2)
                assert len(other.dials) == dials
                next(iter(other.open_connections)).close("lost")
            assert leader.opened == 1

    run_virtual(main)


def test_only_managers_are_held(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        leader, *others = [FakeManager("m0:1"), *(FakeManager(f"m{number}:1", mode="follower") for number in (1, 2, 3))]
        async with agent(tmp_path, loop, leader, *others, seeds=("m0:1", "m1:1", "m2:1")):
            session = await leader.sessions.get()
            await session.ready("m0:1", "m1:1")
            await asyncio.sleep(1)
            assert [len(manager.open_connections) for manager in others] == [1, 0, 0]
            managers = [ManagerAddress(address, address) for address in ("m0:1", "m2:1", "m3:1")]
            await session.stream.send(NodeUpdate(NodeRole.WORKER, managers, b"roots", "issuer"))
            await asyncio.sleep(1)
            assert [len(manager.open_connections) for manager in others] == [0, 1, 1]

    run_virtual(main)


def test_the_leader_is_not_held_twice_under_another_name(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        named, numbered = FakeManager("name:1"), FakeManager("10.0.0.1:1", mode="follower")
        async with agent(tmp_path, loop, named, numbered, seeds=("name:1",)):
            session = await named.sessions.get()
            # `FakeManager.node_id` is its address.
            update = NodeUpdate(NodeRole.WORKER, [ManagerAddress("name:1", "10.0.0.1:1")], b"roots", "issuer")
            await session.ready("name:1")
            await session.stream.send(update)
            await asyncio.sleep(5)
            assert not numbered.dials

    run_virtual(main)


def test_another_certificate_makes_every_connection_anew(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        leader, other = FakeManager("m0:1"), FakeManager("m1:1", mode="follower")
        async with agent(tmp_path, loop, leader, other) as one:
            await (await leader.sessions.get()).ready("m0:1", "m1:1")
            await asyncio.sleep(5)
            [before] = other.open_connections
            one.keeper.dial_anew()
            await (await leader.sessions.get()).ready("m0:1", "m1:1")
            await asyncio.sleep(5)
            [after] = other.open_connections
            assert after is not before
            assert before.closed

    run_virtual(main)


def test_one_that_does_not_answer_is_asked_on_a_new_connection(tmp_path: Path) -> None:
    """A question that is answered too late says something against its connection; one that was asked in vain does not."""

    async def main(loop: VirtualLoop) -> None:
        leader, mute = FakeManager("m0:1"), FakeManager("m1:1", mode="hush")
        chance = random.Random(3)
        async with agent(tmp_path, loop, leader, mute):
            for _ in range(20):
                session = await leader.sessions.get()
                await session.ready("m0:1", "m1:1")
                await asyncio.sleep(chance.uniform(1, 3))
                session.stream.put(SessionEnd("again"))
            assert len(mute.dials) == 1
            leader.mode = "follower"
            await asyncio.sleep(20)
            assert 3 <= len(mute.dials) <= 5

    run_virtual(main)


def test_managers_are_told_which_one_was_lost(tmp_path: Path) -> None:
    """Not, however, of one that said itself that it leads no more: whom the others believe in then is another one."""

    async def main(loop: VirtualLoop) -> None:
        leader, other = FakeManager("m0:1"), FakeManager("m1:1", mode="follower")
        async with agent(tmp_path, loop, leader, other):
            session = await leader.sessions.get()
            assert session.opening.lost == ""
            await session.ready("m0:1", "m1:1")
            await session.next(Heartbeat)
            leader.mode, other.mode = "away", "accept"
            for connection in list(leader.open_connections):
                connection.close("killed")
            session = await other.sessions.get()
            assert session.opening.lost == "m0:1"
            await session.ready("m0:1", "m1:1")
            await session.next(Heartbeat)
            leader.mode, other.mode = "accept", "follower"
            session.stream.put(SessionEnd("I lead no more"))
            assert (await leader.sessions.get()).opening.lost == ""

    run_virtual(main)

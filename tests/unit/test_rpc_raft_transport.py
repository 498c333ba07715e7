"""The group's messages between managers: order, bounds, lost and frozen members, snapshots, hand-over between loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rpc_cluster import TestCluster
from rpc_raft_member import manager

from agent.api_types.node import NodeRole
from agent.rpc.client import dial
from agent.rpc.errors import Refused
from agent.rpc.peer import Purpose


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


async def test_messages_arrive_in_order_on_the_drivers_loop(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        for turn in range(200):
            await one.send(two, b"%d" % turn, b"x" * (turn * 997 % 200_000))
        for turn in range(200):
            await two.receiver.expect(b"%d" % turn, b"x" * (turn * 997 % 200_000))
        await two.send(one, b"back")
        await one.receiver.expect(b"back")
        assert two.receiver.threads == {"driver"}
        assert two.receiver.messages.empty()


async def test_the_members_id_is_that_of_its_certificate(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.send(two, b"who")
        assert await two.receiver.messages.get() == ("m1", b"who")


async def test_a_message_of_the_largest_entry(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.send(two, b"a" * 3_000_000, b"b", b"c" * 65_000, b"d")
        await two.receiver.expect(b"a" * 3_000_000, b"b", b"c" * 65_000, b"d")


@pytest.mark.parametrize(
    ("role", "text"), [(NodeRole.WORKER, "only managers"), (NodeRole.MANAGER, "no member of the group")]
)
async def test_who_may_not_speak_is_told(cluster: TestCluster, role: NodeRole, text: str) -> None:
    async with manager(cluster, "m1") as one:
        if role is NodeRole.MANAGER:
            one.listener.on_raft = None
        with pytest.raises(Refused, match=text):
            await dial(one.address, cluster.identity("n2", role), purpose=Purpose.RAFT)


async def test_a_snapshot_is_taken_piece_by_piece(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        made = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal made
            for turn in range(5):
                made += 1
                yield bytes([turn]) * 300_000

        held = asyncio.run_coroutine_threadsafe(_future(), two.driver.loop).result

        release = await asyncio.to_thread(held)

        async def take(member: str, chunk: bytes) -> None:
            if chunk[0] == 2:
                await release

        two.receiver.take = take
        sending = asyncio.create_task(one.driver.run(one.transport.send_snapshot("m2", two.address, chunks())))
        for turn in range(2):
            assert await two.receiver.chunks.get() == ("m1", bytes([turn]) * 300_000)
        for turn in range(20):
            # The third is being taken; the group's messages go their own way.
            await one.send(two, b"%d" % turn)
            await two.receiver.expect(b"%d" % turn)
        assert made == 3
        two.driver.loop.call_soon_threadsafe(release.set_result, None)
        await sending
        for turn in range(2, 5):
            assert await two.receiver.chunks.get() == ("m1", bytes([turn]) * 300_000)


async def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_what_taking_a_snapshot_raises_ends_it(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:

        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"

        async def take(member: str, chunk: bytes) -> None:
            raise ValueError("no room")

        two.receiver.take = take
        with pytest.raises(OSError, match=r"manager m2 did not take the snapshot: .*no room"):
            await one.driver.run(one.transport.send_snapshot("m2", two.address, chunks()))
        await one.link_up(two)

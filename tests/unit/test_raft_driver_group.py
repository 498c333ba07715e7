"""Members with real folders and threads: agreement, loss of the leader, of messages, of connections; restarts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from raft_driver_network import Group, when

from agent.raft.core.errors import ChangeRefused, ProposalRefused
from agent.raft.core.messages import Heartbeat
from agent.raft.folder import FolderInUse
from agent.raft.interface import MemberRole, NotLeader, OutcomeUnknown
from agent.raft.wire import encode


async def test_alone_it_leads_at_once_and_keeps_everything(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        assert member.leading
        indexes = await asyncio.gather(*(member.propose(b"%d" % n) for n in range(500)))
        assert indexes == list(range(indexes[0], indexes[0] + 500))
        assert await member.read_index() == indexes[-1]
        term = member.status.term
        with pytest.raises(FolderInUse):
            await group.start("a")
        await group.stop("a")
        with pytest.raises(NotLeader):
            await member.propose(b"late")
        with pytest.raises(NotLeader):
            await member.read_index()
        again = await group.start("a")
        assert group.machines["a"].data == [b"%d" % n for n in range(500)]
        assert again.leading
        assert again.status.term == term + 1


async def test_an_empty_folder_waits_to_be_added(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a")
        assert not member.leading
        with pytest.raises(NotLeader):
            await member.propose(b"x")
        with pytest.raises(NotLeader):
            await member.read_index()
        assert member.status.members == ()


async def test_three_agree(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await asyncio.gather(*(leader.propose(b"%d" % n) for n in range(300)))
        await group.converge()
        assert {tuple(machine.data) for machine in group.machines.values()} == {tuple(b"%d" % n for n in range(300))}
        status = await when(group.members["b"], lambda status: len([m for m in status.members if m.voter]) == 3)
        assert status.role is MemberRole.FOLLOWER
        assert (status.leader, status.leading) == ("a", False)
        assert await group.members["b"].read_index() >= leader.applied
        with pytest.raises(NotLeader, match="a does"):
            await group.members["b"].propose(b"x")


async def test_the_leader_dies_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.propose(b"one")
        await group.stop("a")
        second = await group.leader("b", "c")
        await second.propose(b"two")
        await group.start("a")
        await group.converge()
        assert {tuple(machine.data) for machine in group.machines.values()} == {(b"one", b"two")}


async def test_all_start_again(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await group.found("a", "b", "c")
        for _ in range(2):
            leader = await group.leader()
            await leader.propose(b"x")
            await group.converge()
            before = group.machines["a"].data
            for name in "abc":
                await group.stop(name)
            for name in "abc":
                await group.start(name)
            await (await group.leader()).read_index()
            await group.converge()
            assert all(machine.data == before for machine in group.machines.values())


async def test_a_cut_off_leader_answers_what_it_can_and_the_rest_is_decided_by_its_successor(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.propose(b"before")
        group.network.cut("a", off="bc")
        lost = [leader.propose(b"lost %d" % n) for n in range(5)]
        second = await group.leader("b", "c")
        await asyncio.gather(*(second.propose(b"after %d" % n) for n in range(20)))
        await when(leader, lambda status: not status.leading)
        group.network.heal()
        results = await asyncio.gather(*lost, return_exceptions=True)
        assert all(isinstance(result, NotLeader) for result in results), results
        await group.converge()
        assert group.machines["a"].data == [b"before", *(b"after %d" % n for n in range(20))]


async def test_a_leader_that_stays_cut_off_leaves_nobody_hanging(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        group.network.cut("a", off="bc")
        with pytest.raises(OutcomeUnknown):
            await leader.propose(b"lost")
        with pytest.raises(NotLeader):
            await leader.read_index()
        status = leader.status
        assert status.leader == ""
        assert status.leaderless_since > 0


async def test_loss_and_delay_cost_time_only(tmp_path: Path) -> None:
    async with Group(tmp_path, seed=7) as group:
        leader = await group.found("a", "b", "c")
        group.network.loss, group.network.delay = 0.1, 0.01
        acknowledged = []
        for n in range(60):
            data = b"%d" % n
            while True:
                try:
                    await leader.propose(data)
                    acknowledged.append(data)
                    break
                except (NotLeader, OutcomeUnknown):
                    leader = await group.leader()
        group.network.loss = group.network.delay = 0.0
        await (await group.leader()).read_index()
        await group.converge()
        kept = group.machines["a"].data
        assert list(dict.fromkeys(kept)) == acknowledged
        assert all(machine.data == kept for machine in group.machines.values())


async def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.transfer_leadership("c")
        assert await group.leader_name() == "c"
        with pytest.raises(NotLeader):
            await leader.transfer_leadership()
        await group.members["c"].transfer_leadership()
        assert await group.leader_name("a", "b") in "ab"
        with pytest.raises(ProposalRefused):
            await (await group.leader()).transfer_leadership("nobody")


async def test_leadership_cannot_be_handed_to_one_that_is_not_there(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await group.stop("c")
        with pytest.raises(TimeoutError):
            await leader.transfer_leadership("c")
        assert await leader.propose(b"still")


async def test_membership_changes(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        with pytest.raises(ChangeRefused, match="already"):
            await leader.add_learner("b", "b:1")
        with pytest.raises(ChangeRefused, match="not a learner"):
            await leader.promote("d")
        await leader.remove("c")
        assert "removed" in await asyncio.wait_for(group.members["c"].expelled, 10)
        await leader.remove("a")
        assert await asyncio.wait_for(leader.expelled, 10)
        alone = await group.leader("b")
        await alone.propose(b"x")
        assert [member.id for member in alone.status.members] == ["b"]
        with pytest.raises(ChangeRefused, match="last voter"):
            await alone.remove("b")


async def test_a_member_that_moved_is_found_again(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await group.stop("b")
        await group.stop("c")
        await asyncio.gather(group.start("b", address="b:2"), group.start("c", address="c:2"))
        leader = await group.leader()
        await leader.propose(b"x")
        await leader.move("b", "b:2")
        await group.converge()
        assert {member.id: member.address for member in leader.status.members}["b"] == "b:2"


async def test_one_that_was_removed_while_it_was_away_is_told_when_it_comes_back(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await group.stop("c")
        await leader.remove("c")
        back = await group.start("c", address="c:2")
        assert "a" in await back.expelled


async def test_one_that_comes_back_after_its_removal_replays_it_without_being_expelled_again(tmp_path: Path) -> None:
    """Its log tells that it was added, removed and added: only what a leader says now counts."""
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.remove("c")
        await group.members["c"].expelled
        await group.stop("c")
        shutil.rmtree(group.path("c"))
        again = await group.join("c", leader)
        await leader.propose(b"x")
        await group.converge()
        assert not again.expelled.done()
        assert again.status.role is MemberRole.FOLLOWER


async def test_messages_that_make_no_sense_are_dropped(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b")
        wire = group.wires["a"]
        for data in (b"", b"\xff" * 20, encode(Heartbeat("b", "a", 99, 0)), encode(Heartbeat("c", "nobody", 99, 0))):
            wire.loop.call_soon_threadsafe(wire.receiver.received, "c", [data])
        assert await leader.propose(b"x")
        assert leader.leading


async def test_two_leaders_in_a_term_end_the_member_with_a_clear_text(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b")
        wire = group.wires["a"]
        wire.loop.call_soon_threadsafe(
            wire.receiver.received, "b", [encode(Heartbeat("b", "a", leader.status.term, 0))]
        )
        assert "leads in term" in await leader.broken
        with pytest.raises(NotLeader, match="leads in term"):
            await leader.propose(b"x")

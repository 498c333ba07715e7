"""The role manager at work on a group that has bad luck: refusals, lost leaders, learners that never catch up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from simulated_group import SimulatedGroup
from virtual_time import VirtualLoop, run_virtual

from agent.api_types.node import Node, NodeRole, NodeSpec
from agent.api_types.swarm import Cluster, SwarmSpec
from agent.manager.group import survives_without
from agent.manager.role_manager import RoleManager
from agent.raft.core.errors import ChangeRefused
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.rpc.protocols import SPOKEN
from agent.store.store import Store
from agent.store.transactions import WriteTx


class Managers:
    """A group, a store that all its members share, and the role manager of whoever leads."""

    def __init__(self, *members: str, workers: tuple[str, ...] = ("w1", "w2"), **group: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.group = SimulatedGroup(*members, **group)
        self.store = Store.in_memory(clock=loop.clock)
        self.sessions = {each: f"{each}:2377" for each in members}
        """Nodes that have a session with a manager's certificate."""
        self.protocols: dict[str, int] = {}
        """What nodes with a session speak."""
        self.workers = workers
        self.terms = 0
        """Terms in which somebody led here."""

    async def __aenter__(self) -> Managers:
        def create(tx: WriteTx) -> None:
            for node_id in self.group.membership.voters:
                tx.create(Node(id=node_id, spec=NodeSpec(role=NodeRole.MANAGER)))
            for node_id in self.workers:
                tx.create(Node(id=node_id))
            tx.create(Cluster(spec=SwarmSpec(name="default")))

        await self.store.update(create)
        self._leading = asyncio.ensure_future(self._lead())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._leading
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing may linger"

    async def _lead(self) -> None:
        """As a node does: a role manager made anew for every term, wherever the leader is."""
        while True:
            status = self.group.status
            if not status.leading:
                if self.group.leader:
                    await asyncio.sleep(0.05)
                    self.group.view_from(self.group.leader)
                else:
                    await self.group.status_changed(status)
                continue
            self.terms += 1
            self.manager = RoleManager(
                self.store, self.group, self.sessions.get, self.protocols.get, monotonic=self.loop.monotonic
            )
            try:
                await self.manager.run()
            except* (NotLeader, OutcomeUnknown):
                assert not self.group.status.leading or self.group.term > status.term

    # -- what people and nodes do

    async def set_role(self, node_id: str, role: NodeRole) -> None:
        def change(tx: WriteTx) -> None:
            node = tx.get(Node, node_id)
            if node is not None:
                tx.update(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, role=role)))

        await self.store.update(change)

    async def promote(self, node_id: str, after: float | None = 0.1) -> None:
        """A person promotes a node, which shows up as a manager a moment later (None: never)."""
        await self.set_role(node_id, NodeRole.MANAGER)
        if after is not None:
            await asyncio.sleep(after)
            self.show_up(node_id)

    def show_up(self, node_id: str, address: str = "") -> None:
        self.sessions[node_id] = address or f"{node_id}:2377"
        if hasattr(self, "manager"):
            self.manager.look_again()

    async def demote(self, node_id: str) -> None:
        await self.set_role(node_id, NodeRole.WORKER)

    async def remove_node(self, node_id: str) -> None:
        await self.store.update(lambda tx: tx.delete(Node, node_id))

    # -- looking

    def nodes(self) -> dict[str, Node]:
        return {node.id: node for node in self.store.view(lambda tx: tx.all(Node))}

    def wrong(self) -> str | None:
        nodes = self.nodes()
        wanted = {node.id for node in nodes.values() if node.spec.role is NodeRole.MANAGER and node.id in self.sessions}
        if set(self.group.membership.members) != wanted:
            return f"members {self.group.membership} instead of {wanted}"
        if self.group.membership.learners:
            return f"learners are left: {self.group.membership.learners}"
        for node in nodes.values():
            status = node.manager_status
            if (status is not None) != (node.id in wanted):
                return f"{node.id} shows {status}"
            if status is not None:
                reachable = "reachable" if node.id not in self.group.dead else "unreachable"
                if (status.leader, status.reachability) != (node.id == self.group.leader, reachable):
                    return f"{node.id} shows {status}"
                if status.addr != self.sessions[node.id]:
                    return f"{node.id} is at {self.sessions[node.id]}, shown {status}"
        return None

    async def settled(self, within: float = 20.0) -> float:
        began = self.loop.time()
        while (wrong := self.wrong()) is not None:
            assert self.loop.time() - began < within, wrong
            assert not self._leading.done(), self._leading.result()
            await asyncio.sleep(0.02)
        return self.loop.time() - began


def managers(story: Callable[[Managers], Awaitable[None]], *members: str, **options: Any) -> None:
    async def main() -> None:
        async with Managers(*members, **options) as world:
            await world.settled()
            await story(world)

    run_virtual(main(), VirtualLoop())


def test_a_promoted_node_becomes_a_learner_and_then_a_voter() -> None:
    async def story(world: Managers) -> None:
        await world.promote("w1", after=None)
        await asyncio.sleep(5)
        assert world.group.membership.members == ("m1",), "it has not shown up as a manager yet"
        world.show_up("w1")
        assert await world.settled() < 1
        assert world.group.log == ["add a learner w1", "promote a learner to voter w1"]
        status = world.nodes()["w1"].manager_status
        assert status is not None
        assert (status.leader, status.reachability, status.addr) == (False, "reachable", "w1:2377")

    managers(story, "m1")


def test_a_learner_is_no_manager_in_the_eyes_of_people() -> None:
    async def story(world: Managers) -> None:
        await world.promote("w1")
        await asyncio.sleep(5)
        assert world.group.membership.learners == ("w1",)
        assert world.nodes()["w1"].manager_status is None
        # It holds nobody up, and goes when it is no longer wanted.
        world.group.catch_up = 0.2
        await world.promote("w2")
        await asyncio.sleep(2)
        assert world.group.membership.voters == ("m1", "w2")
        await world.demote("w1")
        await world.settled()
        assert world.group.log[-1] == "remove a member w1"

    managers(story, "m1", catch_up=None)


def test_a_learner_that_falls_behind_is_not_promoted() -> None:
    async def story(world: Managers) -> None:
        await world.promote("w1")
        await asyncio.sleep(0.15)
        world.group.write(100_000)
        world.group.die("w1")
        await asyncio.sleep(5)
        assert world.group.membership.learners == ("w1",)
        world.group.revive("w1")
        world.group._catch_up("w1")
        await world.settled()

    managers(story, "m1", catch_up=None)


def test_a_demoted_leader_hands_over_and_is_taken_out_by_the_next() -> None:
    async def story(world: Managers) -> None:
        await world.demote("m1")
        assert await world.settled() < 2
        assert world.group.leader in ("m2", "m3")
        assert world.group.log == [f"hand over to {world.group.leader}", "remove a member m1"]

    managers(story, "m1", "m2", "m3")


def test_a_demoted_leader_never_hands_over_to_a_dead_or_demoted_one() -> None:
    async def story(world: Managers) -> None:
        await world.demote("m2")
        await world.demote("m1")
        await world.settled()
        assert world.group.leader == "m3"
        assert set(world.group.membership.members) == {"m3"}

    managers(story, "m1", "m2", "m3")


def test_a_demoted_leader_stays_until_somebody_can_take_over() -> None:
    async def story(world: Managers) -> None:
        world.group.heir_takes_over = False
        await world.demote("m1")
        await asyncio.sleep(30)
        assert world.group.leader == "m1"
        assert set(world.group.membership.members) == {"m1", "m2", "m3"}
        world.group.heir_takes_over = True
        assert await world.settled() < 8

    managers(story, "m1", "m2", "m3")


def test_two_demotes_at_once_of_three_managers() -> None:
    async def story(world: Managers) -> None:
        await asyncio.gather(world.demote("m2"), world.demote("m3"))
        assert await world.settled() < 1
        assert world.group.membership.voters == ("m1",)

    managers(story, "m1", "m2", "m3")


def test_a_demote_while_a_promote_is_under_way() -> None:
    async def story(world: Managers) -> None:
        await world.promote("w1", after=0.0)
        await asyncio.sleep(0.005)
        await world.demote("m2")
        await world.settled()
        assert set(world.group.membership.voters) == {"m1", "m3", "w1"}

    managers(story, "m1", "m2", "m3")


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.015, 0.1, 0.25])
def test_a_node_that_is_removed_while_it_is_promoted(pause: float) -> None:
    async def story(world: Managers) -> None:
        promoting = asyncio.ensure_future(world.promote("w1", after=0.0))
        await asyncio.sleep(pause)
        await world.remove_node("w1")
        world.sessions.pop("w1", None)
        await promoting
        world.sessions.pop("w1", None)
        await world.settled()
        assert set(world.group.membership.members) == {"m1", "m2", "m3"}

    managers(story, "m1", "m2", "m3")


def test_a_dead_manager_that_is_demoted_is_taken_out() -> None:
    async def story(world: Managers) -> None:
        world.group.die("m2")
        await world.settled()
        await world.demote("m2")
        assert await world.settled() < 1

    managers(story, "m1", "m2", "m3")


def test_a_removal_that_would_cost_the_majority_waits() -> None:
    async def story(world: Managers) -> None:
        world.group.die("m3")
        await world.demote("m2")
        await asyncio.sleep(60)
        assert set(world.group.membership.voters) == {"m1", "m2", "m3"}
        world.group.revive("m3")
        assert await world.settled() < 1

    managers(story, "m1", "m2", "m3")


def test_dead_members_go_before_living_ones() -> None:
    async def story(world: Managers) -> None:
        world.group.die("m5")
        await asyncio.gather(*(world.demote(each) for each in ("m2", "m4", "m5")))
        await world.settled()
        assert world.group.log[0] == "remove a member m5"

    managers(story, "m1", "m2", "m3", "m4", "m5")


def test_a_moved_member_is_reached_at_its_new_address() -> None:
    async def story(world: Managers) -> None:
        world.show_up("m2", "10.9.9.9:2377")
        world.show_up("m1", "10.9.9.8:2377")
        assert await world.settled() < 1
        assert world.group.membership.addresses["m2"] == "10.9.9.9:2377"

    managers(story, "m1", "m2", "m3")


def test_a_silent_member_is_unknown_to_a_new_leader_and_then_unreachable() -> None:
    async def story(world: Managers) -> None:
        world.group.die("m1")
        world.group.lead("m2")
        await asyncio.sleep(1)
        shown = world.nodes()["m1"].manager_status
        assert shown is not None
        assert (shown.leader, shown.reachability) == (False, "unknown")
        await world.settled(within=2)
        shown = world.nodes()["m1"].manager_status
        assert shown is not None
        assert shown.reachability == "unreachable"

    managers(story, "m1", "m2", "m3")


def test_a_refused_step_is_tried_again_less_and_less_often() -> None:
    async def story(world: Managers) -> None:
        tries: list[float] = []

        def refuse(step: str) -> None:
            tries.append(world.loop.time())
            if len(tries) < 9:
                raise ChangeRefused("nothing of this term is committed yet")

        world.group.before = refuse
        await world.demote("m2")
        assert await world.settled(within=40) > 15
        pauses = [round(after - before, 1) for before, after in pairwise(tries)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    managers(story, "m1", "m2", "m3")


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.015, 0.019, 0.021])
def test_a_change_of_role_right_after_another_change_of_nodes_is_seen(pause: float) -> None:
    """What comes while the nodes' changes are gathered is looked at too, although nothing follows it."""

    async def story(world: Managers) -> None:
        await world.settled()
        await asyncio.sleep(10)
        await world.promote("w1", after=None)
        await asyncio.sleep(pause)
        await world.demote("m2")
        assert await world.settled(within=1) < 0.5

    managers(story, "m1", "m2", "m3")


def test_the_feature_level_rises_to_what_all_managers_read() -> None:
    async def story(world: Managers) -> None:
        def level() -> int:
            return world.store.view(lambda tx: tx.all(Cluster))[0].feature_level

        async def heard(node_id: str, protocol: int) -> None:
            world.protocols[node_id] = protocol
            world.manager.look_again()
            await asyncio.sleep(0.1)

        await heard("m2", SPOKEN.newest)
        assert level() == 1, "m3 has not been heard"
        await heard("m3", 1)
        assert level() == 1
        await heard("m3", SPOKEN.newest)
        assert level() == SPOKEN.newest
        await heard("m3", 1)
        assert level() == SPOKEN.newest, "it never sinks: the log may hold entries of that level"

    managers(story, "m1", "m2", "m3")


STEPS = ("add a learner w1", "promote a learner to voter w1", "remove a member m3", "hand over to m2")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "meanwhile", "after"])
@pytest.mark.parametrize("next_leader", ["m2", "m1", ""])
def test_leadership_that_is_lost_in_the_middle_of_a_step(step: str, moment: str, next_leader: str) -> None:
    """Whether it was done or not: the next leader (or the same one in another term) finishes what is left."""

    async def story(world: Managers) -> None:
        struck: list[str] = []

        def lose() -> None:
            world.group.lead(next_leader)
            if not next_leader:
                world.loop.call_later(1.0, world.group.lead, "m2")

        def strike(here: str) -> Callable[[str], None]:
            def strike_once(now: str) -> None:
                if struck or not now.startswith(step.rsplit(" ", 1)[0]) or here not in ("before", "after"):
                    return
                struck.append(now)
                if moment == "meanwhile":
                    world.loop.call_later(world.group.latency / 2, lose)
                    return
                lose()
                if here == "before":
                    raise NotLeader("lost")

            return strike_once

        if moment == "after":
            world.group.after = strike("after")
        else:
            world.group.before = strike("before")
        await asyncio.gather(world.promote("w1"), world.demote("m1" if step.startswith("hand over") else "m3"))
        await world.settled(within=30)
        assert struck or (step.startswith("hand over") and moment == "after")
        assert "w1" in world.group.membership.voters

    managers(story, "m1", "m2", "m3")


@pytest.mark.parametrize("seed", range(60))
def test_any_bad_luck_ends_in_what_was_asked_for(seed: int) -> None:
    async def story(world: Managers) -> None:
        rng = random.Random(f"roles {seed}")

        def sometimes_refuse(step: str) -> None:
            if rng.random() < 0.1:
                raise ChangeRefused("bad luck")

        world.group.before = sometimes_refuse
        everybody = sorted(world.nodes())
        for _ in range(40):
            await asyncio.sleep(rng.choice([0.0, 0.004, 0.05, 0.5]))
            node_id = rng.choice(everybody)
            node = world.nodes().get(node_id)
            status = world.group.status
            match rng.choice(["promote", "demote", "demote", "die", "revive", "elect", "write", "move", "remove"]):
                case "promote" if node is not None and node.spec.role is NodeRole.WORKER:
                    await world.promote(node_id, after=0.0)
                case "demote" if node is not None and node.spec.role is NodeRole.MANAGER and status.leading:
                    # The API's own refusals.
                    others = [
                        each
                        for each in world.nodes().values()
                        if each.spec.role is NodeRole.MANAGER and each.id in world.group.membership.voters
                    ]
                    if len(others) > 1 and survives_without(status, node_id):
                        await world.demote(node_id)
                case "die" if node_id != world.group.leader:
                    living = [each for each in world.group.membership.voters if each not in world.group.dead]
                    if len(living) - (node_id in living) > len(world.group.membership.voters) // 2:
                        world.group.die(node_id)
                case "revive":
                    world.group.revive(node_id)
                    world.group._catch_up(node_id)
                case "elect" if node_id in world.group.membership.voters and node_id not in world.group.dead:
                    world.group.lead(node_id)
                case "write":
                    world.group.write(rng.choice([1, 5000]))
                case "move" if node_id in world.sessions:
                    world.show_up(node_id, f"{node_id}:{rng.randint(2000, 3000)}")
                case "remove" if node is not None and node.spec.role is NodeRole.WORKER and len(everybody) > 4:
                    everybody.remove(node_id)
                    await world.remove_node(node_id)
        world.group.before = lambda step: None
        world.group.revive(*world.group.dead)
        for each in world.group.membership.members:
            world.group._catch_up(each)
        await world.settled(within=60)
        for before, after in pairwise(world.group.memberships):
            assert len(set(before.voters) ^ set(after.voters)) <= 1, "one voter at a time"

    managers(story, "m1", "m2", "m3", workers=("w1", "w2", "w3", "w4"))

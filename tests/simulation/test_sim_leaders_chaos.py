"""Random changes and failures of a cluster with three managers, the leadership moving at random; then all must be well.

`SEEDS=n` runs n seeds instead of the usual number.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator

import pytest
import test_sim_leaders as stories
from chaos import Chaos
from invariants import Broken
from replicated_world import ReplicatedWorld
from virtual_time import VirtualLoop, run_virtual
from world import make_spec

from agent.api_types.node import Node, NodeState
from agent.manager.dispatcher.dispatcher import Dispatcher
from agent.manager.dispatcher.liveness import Liveness
from agent.manager.dispatcher.published_ports import PublishedPorts

SEEDS = int(os.environ.get("SEEDS", "40"))
BLOCK = 10
"""Seeds in one test."""

KNOWN_WITHIN = 8.0
"""Seconds after which every death is known, an election included."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class ManagersChaos(Chaos):
    """As `Chaos`, with managers that die, are cut off and take turns. A majority is always there: a person must get on."""

    world: ReplicatedWorld

    def actions(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            *(each for each in super().actions() if each.__name__ != "restart_agent"),
            self.restart_agent,
            self.change_leader,
            self.kill_manager,
            self.kill_manager,
            self.kill_leader_and_node,
            self.revive_manager,
            self.cut_manager,
            self.mend_manager,
        ]

    async def run(self) -> None:
        published = make_spec(replicas=2, ports=[stories.INGRESS])
        self.services[await self.world.create_service("published", published)] = True
        await super().run()

    def pick_worker(self) -> str | None:
        workers = sorted(set(self.world.nodes) - set(self.world._managers))
        return self.rng.choice(workers) if workers else None

    def spare(self) -> list[str]:
        """Managers of which one can be lost."""
        reachable = [name for name in self.world._managers if self.world.reachable(name)]
        return reachable if len(reachable) > len(self.world._managers) // 2 + 1 else []

    async def power_off(self) -> None:
        node = self.pick_worker()
        if node is not None:
            self.world.nodes[node].power_off()

    async def cut_off(self) -> None:
        node = self.pick_worker()
        if node is not None:
            self.world.nodes[node].cut_off()

    async def reconnect(self) -> None:
        node = self.pick_worker()
        if node is not None:
            self.world.nodes[node].reconnect()

    async def power_on(self) -> None:
        node = self.pick_worker()
        if node is not None:
            self.world.nodes[node].power_on()

    async def restart_agent(self) -> None:
        node = self.pick_worker()
        if node is not None:
            restart = self.world.nodes[node].restart_agent(self.rng.uniform(0.1, 20))
            self._background.append(self.world.spawn(restart))

    async def remove_node(self) -> None:
        node = self.pick_worker()
        if node is not None and self.rng.random() < 0.3:
            self.world.nodes.pop(node)
            await self.world.remove_node(node)
            await self.world.add_node(f"n{self.world.new_id()[-4:]}", zone=self.rng.choice("ab"))

    async def change_leader(self) -> None:
        await self.world.change_leader(self.rng.choice([0.0, 0.0, 0.3]))

    async def kill_manager(self) -> None:
        if spare := self.spare():
            name = self.world.log.leader if self.rng.random() < 0.7 else self.rng.choice(spare)
            if name in spare:
                await self.world.kill(name, with_its_host=self.rng.random() < 0.5)

    async def kill_leader_and_node(self) -> None:
        if self.world.log.leader in self.spare():
            await self.world.kill_leader(with_its_host=True)
            await self.power_off()

    async def revive_manager(self) -> None:
        self.world.revive(self.rng.choice(self.world._managers))

    async def cut_manager(self) -> None:
        if spare := self.spare():
            self.world.cut(self.world.log.leader if self.world.log.leader in spare else self.rng.choice(spare))

    async def mend_manager(self) -> None:
        for name in self.world._managers:
            if name in self.world.log.cut and self.rng.random() < 0.7:
                self.world.mend(name)

    async def make_peace(self) -> None:
        await self.let_lives_be_known()
        for name in self.world._managers:
            self.world.mend(name)
            self.world.revive(name)
        await super().make_peace()

    async def let_lives_be_known(self) -> None:
        """Nothing happens for a while: then the leader knows who lives, whoever led when they died."""
        await asyncio.sleep(KNOWN_WITHIN)
        self.world.check()
        stored = {node.id: node.status.state for node in self.world.store.view(lambda tx: tx.all(Node))}
        for node_id, node in self.world.nodes.items():
            expected = NodeState.READY if node.answers else NodeState.DOWN
            if stored[node_id] not in (expected, NodeState.DISCONNECTED):
                raise Broken(f"node {node_id} answers: {node.answers}, and is {stored[node_id]}")


def run_managers_chaos(seed: int) -> list[str]:
    """One run; what was done, in order. AssertionError when an invariant broke or the cluster did not recover."""

    async def main() -> list[str]:
        async with ReplicatedWorld(f"managers {seed}") as world:
            chaos = ManagersChaos(world, seed)
            try:
                await chaos.run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(chaos.log)) from error
            return chaos.log

    return run_virtual(main(), VirtualLoop())


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
@pytest.mark.timeout(120)
def test_all_is_well_whoever_leads(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        run_managers_chaos(seed)


# -- bugs that were planted, to see whether the simulation finds them


def _expect_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader takes every node for alive until it was heard once."""
    monkeypatch.setattr(Dispatcher, "_expect_nodes", lambda self: None)


def _blame_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader gives nobody the time to come back."""
    expect = Liveness.expect_back

    def impatient(self: Liveness, node_id: str, lease: int = 0) -> None:
        expect(self, node_id, lease)
        self._nodes[node_id].patience = self.period
        self._nodes[node_id].returns = False

    monkeypatch.setattr(Liveness, "expect_back", impatient)


def _publish_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader tells nodes of a table before it has heard who serves."""
    monkeypatch.setattr(PublishedPorts, "awaits_backends", lambda self: False)


PLANTS = [
    (_expect_nobody, run_managers_chaos),
    (_blame_at_once, run_managers_chaos),
    (_publish_what_is_known, stories.test_published_ports_stay_through_changes_of_leader),
]


@pytest.mark.parametrize(("plant", "run"), PLANTS)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], run: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(20):
        try:
            run(seed)
        except (AssertionError, ExceptionGroup):
            break
    else:
        pytest.fail("no seed found it")
    monkeypatch.undo()
    run(seed)

"""A story that random mishaps hardly ever tell: an entry that a majority has, and that is overwritten all the same.

It is figure 3.7 of the thesis with times drawn from the seed. One leader writes what only a part of the group gets, another
one writes in its place and is heard by nobody, the first comes back, spreads its old entry and falls before anything of its
new term is there. A group that took the old entry for committed loses it to the second leader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from raft_chaos import make_peace
from raft_invariants import Violation
from raft_linearizability import Kind, Operation
from raft_machine import Command
from raft_member import SimulatedMember
from raft_world import World

from agent.raft.core.ready import RoleName

PATIENCE = 3000
"""Milliseconds for each election."""


class ToldOtherwise(Exception):
    """Somebody else won an election; this seed tells another story."""


def tell_of_an_old_entry(seed: int, member_type: type[SimulatedMember] = SimulatedMember) -> bool:
    """Whether the story came to its end. Raises `Violation` with the seed and the last events when anything is wrong."""
    world = World(seed, 5, member_type)
    # Entries travel one by one, else the old one never arrives alone.
    world.settings = replace(world.settings, max_message_bytes=1, max_inflight_messages=1)
    try:
        try:
            _Story(world).tell()
            told = True
        except ToldOtherwise:
            told = False
        make_peace(world)
    except Exception as error:  # whatever it is, it must name its seed
        raise Violation(f"seed {seed}: {error!r}\n{world.story()}") from error
    return told


class _Story:
    """Five members, and who falls when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.random())

    def tell(self) -> None:
        world = self._world
        first = self._leader_among(set(world.members))
        names = [name for name in world.members if name != first]
        self._random.shuffle(names)
        second, partner, *rest = names
        # The first leader writes, and at most one other member gets it.
        heard_by = {partner} if self._random.random() < 0.7 else set()
        world.cut = {(first, name) for name in names if name not in heard_by}
        for number in range(self._random.randint(1, 3)):
            world.members[first].propose(_command(number), _ignore, _ignore)
        self._pass(1, 40)
        self._fall(first, partner)
        # The second one wins, and is not heard any more once it has.
        gagged = {(name, other) for name in rest for other in world.members if other != second}
        world.cut = gagged
        self._until(lambda: self._asks_for_votes(second))
        world.cut = gagged | {(second, other) for other in names}
        self._until(lambda: world.members[second].core.role.name is RoleName.LEADER)
        self._pass(1, 40)
        self._fall(second)
        world.cut = set()
        # The first is back, brings what it wrote to a majority, and falls.
        self._rise(first, partner)
        again = self._leader_among({first, partner})
        log, end = world.members[again].core.log, world.now + self._random.randint(1, 80)
        committed = log.committed
        while log.committed == committed and world.now < end:
            self._step()
        # Its partner holds its place against the second if it has heard of the new term.
        self._fall(*({first, partner} if self._random.random() < 0.7 else {again}))
        # The second one's log ends in the later term.
        self._rise(second)
        self._pass(300, 1500)

    def _leader_among(self, names: set[str]) -> str:
        self._until(lambda: self._world.leader() is not None)
        leader = self._world.leader()
        if leader is None or leader.id not in names:
            raise ToldOtherwise
        return leader.id

    def _asks_for_votes(self, name: str) -> bool:
        core = self._world.members[name].core
        return core.role.name is RoleName.CANDIDATE and (core.durable.term, core.durable.vote) == (core.term, name)

    def _until(self, condition: Callable[[], bool]) -> None:
        end = self._world.now + PATIENCE
        while not condition():
            if self._world.now >= end:
                raise ToldOtherwise
            self._step()

    def _step(self) -> None:
        self._world.run(self._world.now + 1)

    def _pass(self, least: int, most: int) -> None:
        self._world.run(self._world.now + self._random.randint(least, most))

    def _fall(self, *names: str) -> None:
        for name in names:
            self._world.note(f"{name} falls")
            self._world.members[name].crash()

    def _rise(self, *names: str) -> None:
        for name in names:
            self._world.note(f"{name} is back")
            self._world.members[name].start()


def _command(number: int) -> bytes:
    return Command.of(number, Operation("a", Kind.WRITE, number))


def _ignore(_: object) -> None:
    """Nobody waits for it."""

"""One seed's story: a group, clients, and everything that can go wrong; then peace, and the reckoning."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from raft_clients import Clients
from raft_invariants import Violation
from raft_linearizability import Kind, Operation, check_linearizable
from raft_machine import Command
from raft_member import SimulatedMember
from raft_world import World

from agent.raft.core.errors import ProposalRefused
from agent.raft.core.membership import ChangeKind, MembershipChange
from agent.raft.interface import NotLeader

DURATION = 5000
"""Milliseconds of trouble."""
RECOVERY = 20_000
"""Milliseconds within which a group in peace must work again."""


class Chaos:
    """Draws one mishap after another."""

    def __init__(self, world: World, focus: tuple[str, ...] = ()) -> None:
        self._world = world
        self._random = Random(world.random.random())
        self._next_name = 6
        self._pause = self._random.choice((60, 150, 400))
        mishaps: tuple[Callable[[], None], ...] = (
            self._crash,
            self._crash_all,
            self._partition,
            self._isolate_leader,
            self._cut_one_way,
            self._freeze,
            self._slow_disk,
            self._transfer,
            self._grow,
            self._remove,
            self._change_in_haste,
            self._crash_while_saving,
            self._crash_in_election,
        )
        # Each seed leaves some kinds out: a rare story is often one in which little else happens.
        self._mishaps = [mishap for mishap in mishaps if self._random.random() < 0.5] or [self._crash]
        if focus:
            self._mishaps = [mishap for mishap in mishaps if mishap.__name__.strip("_") in focus]
        self._calm = self._random.choice((0.2, 0.5))
        world.after(self._pause, "", self._mishap)

    def _mishap(self) -> None:
        if self._world.now < DURATION:
            if self._random.random() < self._calm:
                self._heal()
            else:
                self._random.choice(self._mishaps)()
            self._world.after(self._random.randint(1, self._pause), "", self._mishap)

    def _any(self) -> SimulatedMember:
        return self._random.choice(list(self._world.members.values()))

    def _crash(self, member: SimulatedMember | None = None) -> None:
        member = member or self._any()
        if member.running:
            self._world.note(f"{member.id} crashes")
            member.crash()
            self._world.paused.pop(member.id, None)
            self._world.after(self._random.choice((1, 50, 300, 900)), "", self._restart, member)

    def _restart(self, member: SimulatedMember) -> None:
        if not member.running:
            self._world.note(f"{member.id} starts")
            member.start()

    def _crash_all(self) -> None:
        if self._random.random() < 0.3:
            for member in self._world.members.values():
                self._crash(member)

    def _partition(self) -> None:
        names = list(self._world.members)
        self._random.shuffle(names)
        border = self._random.randint(1, len(names))
        self._split(names[:border], names[border:])

    def _split(self, left: list[str], right: list[str]) -> None:
        self._world.note(f"partition {left} {right}")
        self._world.cut = {pair for a in left for b in right for pair in ((a, b), (b, a))}

    def _isolate_leader(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            self._world.note(f"{leader.id} is cut off")
            others = [name for name in self._world.members if name != leader.id]
            self._world.cut = {pair for name in others for pair in ((name, leader.id), (leader.id, name))}

    def _cut_one_way(self) -> None:
        pair = (self._any().id, self._any().id)
        self._world.note(f"{pair} is cut")
        self._world.cut.add(pair)

    def _heal(self) -> None:
        self._world.note("healed")
        self._world.cut.clear()

    def _freeze(self) -> None:
        member = self._any()
        self._world.note(f"{member.id} freezes")
        self._world.paused[member.id] = self._world.now + self._random.choice((30, 250, 700))

    def _slow_disk(self) -> None:
        self._any().sync_time = self._random.choice((1, 4, 30, 120))

    def _transfer(self) -> None:
        self._ask(lambda leader: leader.core.transfer_leadership(self._any().id))

    def _grow(self) -> None:
        leader = self._world.leader()
        if leader is not None and leader.core.membership.learners and self._random.random() < 0.7:
            self._change(ChangeKind.PROMOTE, self._random.choice(leader.core.membership.learners))
            return
        name = self._any().id
        if len(self._world.members) < 7:
            name = f"m{self._next_name}"
            self._next_name += 1
            self._world.add(name)
        self._change(ChangeKind.ADD_LEARNER, name)

    def _remove(self) -> None:
        leader = self._world.leader()
        if leader is not None and len(leader.core.membership.voters) > self._random.choice((1, 2, 3)):
            self._change(ChangeKind.REMOVE, self._random.choice(leader.core.membership.members))

    def _change_in_haste(self) -> None:
        """Several removals at once, and those who are left on their own side of a partition."""
        leader = self._world.leader()
        if leader is None:
            return
        for _ in range(3):
            self._change(ChangeKind.REMOVE, self._random.choice(leader.core.membership.voters))
        left = leader.core.membership.members
        self._split(list(left), [name for name in self._world.members if name not in left])

    def _crash_while_saving(self) -> None:
        """The moment in which a snapshot takes the place of a part of the log."""
        saving = [member for member in self._world.members.values() if member.running and member.saving]
        if saving:
            self._crash(self._random.choice(saving))

    def _crash_in_election(self) -> None:
        """Everyone who has just voted, and is back before the election is over."""
        members = list(self._world.members.values())
        for member in members:
            if member.running and member.core.vote and not member.core.leader and self._random.random() < 0.7:
                member.crash()
                member.start()

    def _change(self, kind: ChangeKind, name: str) -> None:
        self._world.note(f"{kind.value}: {name}")
        self._ask(lambda leader: leader.core.propose_membership(MembershipChange(kind, name)))

    def _ask(self, request: Callable[[SimulatedMember], object]) -> None:
        leaders = [m for m in self._world.members.values() if m.running and m.core.leader == m.id]
        for leader in leaders:
            try:
                request(leader)
            except (ProposalRefused, NotLeader):
                continue
            leader.act(lambda core: None)


def make_peace(world: World) -> None:
    """Everything works again: what was promised must now come true."""
    world.note("peace")
    world.cut.clear()
    world.paused.clear()
    world.loss = world.duplication = 0.0
    world.delay = (1, 5)
    for member in world.members.values():
        member.sync_time = 3
        if not member.running:
            member.start()
    outcomes: list[bool] = []

    def works() -> bool:
        leader = world.leader()
        if leader is None:
            return False
        if not outcomes and not leader.core.log.membership_index > leader.core.log.committed:
            leader.propose(_last_command(), lambda _: outcomes.append(True), lambda _: None)
        if not outcomes:
            return False
        members = [world.members[name] for name in leader.core.membership.members]
        return all(member.machine.applied == leader.core.log.committed for member in members)

    world.run_until(works, RECOVERY, "the group agrees and takes a write")


def _last_command() -> bytes:
    return Command.of(0, Operation("z", Kind.WRITE, 0))


def run_chaos(seed: int, member_type: type[SimulatedMember] = SimulatedMember, focus: tuple[str, ...] = ()) -> World:
    """One story, with the mishaps named in `focus` where there is one.

    Raises `Violation` with the seed and the last events when anything is wrong.
    """
    random = Random(seed)
    world = World(seed, random.choice((1, 2, 3, 3, 3, 4, 4, 5)), member_type)
    try:
        clients = Clients(world, random.randint(1, 5), random.choice((5, 40, 120)))
        Chaos(world, focus)
        world.run(DURATION)
        clients.stop()
        make_peace(world)
        wrong = check_linearizable(clients.history)
        if wrong:
            listing = "\n".join(map(repr, wrong))
            raise Violation(f"not linearizable:\n{listing}")
    except Exception as error:  # whatever it is, it must name its seed
        raise Violation(f"seed {seed}: {error!r}\n{world.story()}\nreplay: RAFT_SEED={seed}") from error
    return world

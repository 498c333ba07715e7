"""Clients that write to and read from a few registers, and remember what they were told."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from raft_linearizability import UNKNOWN, Kind, Operation, Value
from raft_machine import Command
from raft_member import SimulatedMember
from raft_world import World

KEYS = ("a", "b")
PATIENCE = 400
"""Milliseconds after which a client gives up; the outcome is unknown then."""


class Clients:
    """A number of clients, each with one operation at a time."""

    def __init__(self, world: World, count: int, pace: int) -> None:
        self._world = world
        self._random = Random(world.random.random())
        self._pace = pace
        self._next_value = 0
        self._stopped = False
        self.history: list[Operation] = []
        for number in range(count):
            world.after(self._random.randint(1, pace), "", self._begin, number)

    def stop(self) -> None:
        self._stopped = True

    def _begin(self, client: int) -> None:
        if self._stopped:
            return
        running = [member for member in self._world.members.values() if member.running]
        if not running:
            self._later(client)
            return
        # More than one may believe that it leads, and those are asked the most.
        leaders = [member for member in running if member.core.leader == member.id]
        if self._random.random() < 0.4:
            self._read(client, self._random.choice(leaders if leaders and self._random.random() < 0.6 else running))
        else:
            self._write(client, self._random.choice(leaders or running))

    def _later(self, client: int) -> None:
        self._world.after(self._random.randint(1, self._pace), "", self._begin, client)

    def _write(self, client: int, member: SimulatedMember) -> None:
        self._next_value += 1
        key = self._random.choice(KEYS)
        operation = Operation(key, Kind.WRITE, self._next_value, invoked=self._world.now)
        if self._random.random() < 0.4:
            operation.kind = Kind.SWAP
            operation.expected = member.machine.read(key)
        self.history.append(operation)
        self._call(client, operation, member)

    def _call(self, client: int, operation: Operation, member: SimulatedMember) -> None:
        over = False

        def done(result: Value) -> None:
            nonlocal over
            if not over:
                over = True
                operation.returned, operation.result = self._world.now, result
                self._later(client)

        def failed(surely: bool) -> None:
            nonlocal over
            if not over:
                over = True
                if surely:
                    self.history.remove(operation)
                self._later(client)

        assert operation.value is not None
        data = Command.of(operation.value, operation)
        self._request(member, lambda: member.propose(data, done, failed), lambda: failed(True))
        self._world.after(PATIENCE, "", failed, False)

    def _read(self, client: int, member: SimulatedMember) -> None:
        operation = Operation(self._random.choice(KEYS), Kind.READ, invoked=self._world.now)
        over = False

        def done(result: Value) -> None:
            nonlocal over
            if not over:
                over = True
                operation.returned, operation.result = self._world.now, result
                self.history.append(operation)
                self._later(client)

        def give_up() -> None:
            nonlocal over
            if not over:
                over = True
                self._later(client)

        self._request(member, lambda: member.read(operation.key, done), give_up)
        self._world.after(PATIENCE, "", give_up)

    def _request(self, member: SimulatedMember, call: Callable[[], None], refused: Callable[[], None]) -> None:
        """On its way to the member, which may be frozen by then, or gone."""
        self._world.after(self._random.randint(0, 3), member.id, lambda: call() if member.running else refused())

    @property
    def acknowledged(self) -> int:
        return sum(operation.returned is not UNKNOWN for operation in self.history)

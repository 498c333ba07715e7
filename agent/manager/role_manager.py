"""The role manager: makes the group of managers what the nodes' specs ask for, one change at a time, until it is.

A node that is to be a manager becomes a learner once it shows up with a manager's certificate, and a voter once it has
caught up. One that is to be one no more is taken out; when it leads it hands the leadership over first, and the next
leader goes on. What people see of it (`Node.manager_status`) is written from the group's own status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from agent.api_types.node import ManagerStatus, Node, NodeRole
from agent.api_types.times import MILLISECOND, SECOND, Clock
from agent.manager.control_loop import BATCH
from agent.manager.feature_level import ProtocolOf, common_level, level_of, raise_level
from agent.manager.group import Group, leads, lives, member_of, survives_without, voters
from agent.raft.core.errors import ProposalRefused
from agent.raft.interface import GroupStatus, MemberStatus, NotLeader
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import WatchOverflow

log = logging.getLogger(__name__)

AddressOf = Callable[[str], str | None]
"""The listener of a node that has a session as a manager."""

PROMOTION_LAG = 1000
"""Entries that a learner may lack when it becomes a voter: it has them within a moment, and the others wait no longer."""
FIRST_RETRY, LAST_RETRY = 100 * MILLISECOND, 5 * SECOND
"""Until a refused step is tried again: at first, and at most."""
RELUCTANT = 5
"""Refusals of one step after which the log says so."""
GATHER = 0.02
"""Seconds between two looks at nodes that change."""
SETTLING = 2 * SECOND
"""A new leader says of nobody that it cannot be reached before every member had the time to answer it."""

REACHABLE, UNREACHABLE, UNKNOWN = "reachable", "unreachable", "unknown"


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Send the log to a node that is to be a manager."""

    member: str
    address: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Give a learner that has caught up its vote."""

    member: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Take out a member that is not to be a manager any more, or whose node is gone."""

    member: str


@dataclass(frozen=True, slots=True)
class Move:
    """Reach a member at another address."""

    member: str
    address: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """This manager is to be a manager no more: let another one lead."""

    to: str


Step = AddLearner | Promote | Remove | Move | HandOver


def steps(nodes: Iterable[Node], status: GroupStatus, address_of: AddressOf) -> list[Step]:
    """Every step that may be taken now, the most useful first. Only one is taken; the next look decides anew.

    Nothing here may cost the group its majority: a removal that would waits until those that remain are back.
    """
    wanted = {node.id for node in nodes if node.spec.role is NodeRole.MANAGER}
    members = {member.id: member for member in status.members}
    if not wanted & members.keys():
        # Nobody who is to be a manager is one: what would remain could not decide anything.
        removable: list[MemberStatus] = []
    else:
        removable = [member for member in status.members if member.id not in wanted]
    found: list[Step] = _moves(status, address_of)
    heirs = [
        member
        for member in voters(status)
        if member.id in wanted and member.id != status.member_id and lives(status, member)
    ]
    if any(leads(status, member) for member in removable) and heirs:
        found.append(HandOver(max(heirs, key=lambda member: member.match).id))
    # Those that do not answer go first: without them a majority is easier to have.
    found += [
        Remove(member.id)
        for member in sorted(removable, key=lambda each: (lives(status, each), each.id))
        if not leads(status, member) and (not member.voter or survives_without(status, member.id))
    ]
    found += [
        Promote(member.id)
        for member in status.members
        if member.id in wanted and not member.voter and _has_caught_up(member, status)
    ]
    for node_id in sorted(wanted - members.keys()):
        address = address_of(node_id)
        if address:
            found.append(AddLearner(node_id, address))
    return found


def _moves(status: GroupStatus, address_of: AddressOf) -> list[Step]:
    moves: list[Step] = []
    for member in status.members:
        address = address_of(member.id)
        if address and address != member.address:
            moves.append(Move(member.id, address))
    return moves


def _has_caught_up(member: MemberStatus, status: GroupStatus) -> bool:
    return member.active and member.match >= 0 and status.last_index - member.match <= PROMOTION_LAG


def manager_status(node_id: str, status: GroupStatus, *, settled: bool) -> ManagerStatus | None:
    """What people see of a node in the group; None for one whose vote does not count.

    `settled` when this leader has led for long enough to know who does not answer.
    """
    member = member_of(status, node_id)
    if member is None or not member.voter:
        return None
    silent = UNREACHABLE if settled else UNKNOWN
    reachability = REACHABLE if lives(status, member) else silent
    return ManagerStatus(leader=leads(status, member), reachability=reachability, addr=member.address)


class RoleManager:
    """Runs on the leader. For `address_of` and `protocol_of` see `AddressOf`, `ProtocolOf`; `monotonic` in nanoseconds."""

    def __init__(
        self, store: Store, group: Group, address_of: AddressOf, protocol_of: ProtocolOf, *, monotonic: Clock
    ) -> None:
        self._store = store
        self._group = group
        self._address_of = address_of
        self._protocol_of = protocol_of
        self._monotonic = monotonic
        self._settled_at = 0
        self._refused: dict[tuple[type, str], _Refusal] = {}
        self._status_wake = asyncio.Event()
        self._step_wake = asyncio.Event()

    def look_again(self) -> None:
        """Something may have changed: a node, the group, or which nodes have a session."""
        self._status_wake.set()
        self._step_wake.set()

    async def run(self) -> None:
        """Run until cancelled; NotLeader and OutcomeUnknown end it."""
        self._settled_at = self._monotonic() + SETTLING
        self._refused = {}
        self.look_again()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_nodes())
            tasks.create_task(self._watch_group())
            tasks.create_task(self._keep_statuses())
            tasks.create_task(self._keep_members())

    async def _watch_nodes(self) -> None:
        while True:
            with self._store.watch(Node) as watch:
                try:
                    async for _ in watch:
                        self.look_again()
                        # Nodes report in crowds: one look serves all that come in this time.
                        await asyncio.sleep(GATHER)
                        if watch.drain():
                            self.look_again()
                except WatchOverflow:
                    self.look_again()

    async def _watch_group(self) -> None:
        status = self._group.status
        while True:
            if not status.leading:
                raise NotLeader("this manager no longer leads the cluster")
            seen = _facts(status)
            self.look_again()
            while status.leading and _facts(status) == seen:
                status = await self._group.status_changed(status)

    # -- what people see

    async def _keep_statuses(self) -> None:
        while True:
            self._status_wake.clear()
            left = self._settled_at - self._monotonic()
            status = self._group.status
            await self._write_statuses(status, settled=left <= 0)
            await self._raise_level(status)
            await _wait(self._status_wake, left if left > 0 else None)

    async def _write_statuses(self, status: GroupStatus, *, settled: bool) -> None:
        def differing(tx: ReadTx) -> list[Node]:
            found = []
            for node in tx.all(Node):
                manager = manager_status(node.id, status, settled=settled)
                if manager != node.manager_status:
                    found.append(msgspec.structs.replace(node, manager_status=manager))
            return found[:BATCH]

        def write(tx: WriteTx) -> None:
            for node in differing(tx):
                tx.update(node)

        # What did not fit into one transaction is seen again: every commit leads to another look.
        if self._store.view(differing):
            await self._store.update(write)

    async def _raise_level(self, status: GroupStatus) -> None:
        level = common_level(status, self._protocol_of)
        if level is not None and level > self._store.view(level_of):
            await self._store.update(lambda tx: raise_level(tx, level))

    # -- who belongs to the group

    async def _keep_members(self) -> None:
        while True:
            self._step_wake.clear()
            step, pause = self._next()
            if step is None:
                await _wait(self._step_wake, pause)
            else:
                await self._take(step)

    def _next(self) -> tuple[Step | None, int | None]:
        """The first step that may be tried now; else None, and how long until one may be tried again."""
        possible = steps(self._store.view(lambda tx: tx.all(Node)), self._group.status, self._address_of)
        now = self._monotonic()
        keys = {_key(step) for step in possible}
        self._refused = {key: refusal for key, refusal in self._refused.items() if key in keys}
        for step in possible:
            refusal = self._refused.get(_key(step))
            if refusal is None or refusal.until <= now:
                return step, None
        return None, min((refusal.until - now for refusal in self._refused.values()), default=None)

    async def _take(self, step: Step) -> None:
        """Take a step; one that is refused is tried again later, less and less often."""
        key = _key(step)
        try:
            await _take(self._group, step)
        except (ProposalRefused, TimeoutError) as error:
            count = self._refused[key].count + 1 if key in self._refused else 1
            pause = min(FIRST_RETRY * 2 ** (count - 1), LAST_RETRY)
            self._refused[key] = _Refusal(count, self._monotonic() + pause)
            log.log(logging.WARNING if count == RELUCTANT else logging.DEBUG, "%s was refused: %s", step, error)
        else:
            self._refused.pop(key, None)
            log.info("managers: %s is done", step)


@dataclass(frozen=True, slots=True)
class _Refusal:
    count: int
    until: int


def _key(step: Step) -> tuple[type, str]:
    return type(step), "" if isinstance(step, HandOver) else step.member


def _facts(status: GroupStatus) -> object:
    """What of the group a look depends on: its indexes, which change with every write, are left out."""
    members = [
        (member.id, member.address, member.voter, member.active, not member.voter and _has_caught_up(member, status))
        for member in status.members
    ]
    return status.term, status.leading, members


async def _take(group: Group, step: Step) -> None:
    match step:
        case AddLearner(member, address):
            await group.add_learner(member, address)
        case Promote(member):
            await group.promote(member)
        case Remove(member):
            await group.remove(member)
        case Move(member, address):
            await group.move(member, address)
        case HandOver(to):
            await group.transfer_leadership(to)


async def _wait(event: asyncio.Event, nanoseconds: int | None) -> None:
    """Until the event, or for so long."""
    try:
        async with asyncio.timeout(None if nanoseconds is None else nanoseconds / SECOND):
            await event.wait()
    except TimeoutError:
        pass

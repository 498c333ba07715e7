"""Changes of this node's part in the swarm: leaving it, and beginning a new group of managers without those that are lost."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from swarmtui.docker_api.errors import ConnectionFailed, EngineError, NotFound, NotImplementedHere, Unavailable
from swarmtui.docker_api.managers import Managers as Group
from swarmtui.docker_api.types import Info, Node
from swarmtui.model.managers import majority
from swarmtui.operations.base import Change, Danger, Operation, OperationFailed, Phase, Preview, Progress, Report
from swarmtui.operations.client import SwarmClient
from swarmtui.operations.sending import send
from swarmtui.operations.tolerance import (
    Managers,
    managers_of,
    tolerance_changes,
    tolerance_lines,
)
from swarmtui.operations.waiting import Patience, Timing

LISTEN = "0.0.0.0:2377"
"""What the docker CLI sends when nobody says where to listen; an agent takes it for its own address."""
T = TypeVar("T")


async def _read(reading: Awaitable[T]) -> T:
    try:
        return await reading
    except EngineError as error:
        raise OperationFailed(str(error)) from error


class _OfThisNode:
    """What both share: they concern the node that is asked, and cannot be undone."""

    danger = Danger.DESTRUCTIVE
    verb = ""

    def __init__(self, client: SwarmClient, *, timing: Timing | None = None) -> None:
        self._client = client
        self._timing = timing or Timing()
        self._info: Info | None = None
        self._sent = False

    @property
    def title(self) -> str:
        """Known in full once the node has been read."""
        return f"{self.verb} {self._name}".strip()

    @property
    def confirmation(self) -> str:
        """The node's hostname."""
        return self._name

    @property
    def targets(self) -> tuple[str, ...]:
        """The node's id."""
        swarm = self._info.swarm if self._info is not None else None
        return (swarm.node_id,) if swarm is not None else ()

    @property
    def sent(self) -> bool:
        """True once the engine has accepted it."""
        return self._sent

    def inverse(self) -> Operation | None:
        """None: there is no way back."""
        return None

    @property
    def _name(self) -> str:
        return self._info.name if self._info is not None else ""

    async def _look(self) -> Info:
        info = self._info = await _read(self._client.info())
        if info.swarm is None or info.swarm.local_node_state == "inactive":
            raise OperationFailed(f"{info.name or 'this node'} is in no swarm")
        return info


class LeaveSwarm(_OfThisNode):
    """This node leaves the swarm."""

    verb = "leave with"

    async def preview(self) -> Preview:
        """What leaving means, for a manager above all."""
        info = await self._look()
        assert info.swarm is not None
        lines = [f"the tasks of {info.name} stop, and its part of the cluster's state is deleted"]
        changes: tuple[Change, ...] = (Change("node", info.name, ""),)
        if info.swarm.control_available:
            nodes = await _read(self._client.nodes())
            before, after = managers_of(nodes), managers_of(nodes, without=info.swarm.node_id)
            changes += tolerance_changes(before, after)
            if before.count == 1:
                lines.append("warning: it is the last manager: services, secrets and everything else are lost with it")
            else:
                lines.append("a manager that is demoted first leaves in good order")
                lines += tolerance_lines(before, after)
        return Preview(self.title, changes, tuple(lines))

    async def submit(self) -> None:
        """Leave."""
        if not self._sent:
            info = self._info or await self._look()
            # A manager leaves only when it is forced to: the preview has said what that means.
            manager = info.swarm is not None and info.swarm.control_available
            await _read(send(self._client.leave_swarm(manager)))
            self._sent = True

    async def run(self, report: Report) -> None:
        """Leave; nothing is waited for."""
        report(Progress(Phase.SENDING, message=self.title))
        await self.submit()
        report(Progress(Phase.DONE, 1, 1, f"{self._name} is in no swarm any more"))


class ForceNewCluster(_OfThisNode):
    """This manager goes on alone, with the state that it has: the way out when too many managers are lost for ever."""

    verb = "force a new cluster from"

    def __init__(self, client: SwarmClient, *, timing: Timing | None = None) -> None:
        super().__init__(client, timing=timing)
        self._cluster = ""
        self._address = ""

    @property
    def confirmation(self) -> str:
        """The cluster's name, or this node's where the cluster has none of its own."""
        return self._cluster or self._name

    async def preview(self) -> Preview:
        """What is kept and what is lost."""
        info = await self._look()
        assert info.swarm is not None
        cluster = info.swarm.cluster
        self._cluster = cluster.spec.name if cluster is not None and cluster.spec.name != "default" else ""
        group = await self._group()
        if group is None:
            nodes = await self._nodes()
            before = managers_of(nodes)
            others = [n.description.hostname for n in nodes if n.manager_status and n.id != info.swarm.node_id]
            lines = self._lines(info, others)
        else:
            voters = [member for member in group.members if member.voter]
            before = Managers(len(voters), sum(1 for member in voters if member.reachable))
            if group.quorum:
                raise OperationFailed(
                    f"{before.answering} of {before.count} managers answer, and {majority(before.count)} are enough: "
                    "nothing has to be forced"
                )
            own = next((member for member in group.members if member.id == info.swarm.node_id), None)
            self._address = own.address if own is not None else ""
            others = [member.hostname or member.id for member in group.members if member is not own]
            lines = self._lines(info, others)
            furthest = max((member.index for member in group.members), default=-1)
            if own is not None and 0 <= own.index < furthest:
                lines.insert(1, f"warning: it lacks the last {furthest - own.index} entries that another manager has")
        return Preview(self.title, tolerance_changes(before, Managers(1, 1)), tuple(lines))

    def _lines(self, info: Info, others: list[str]) -> list[str]:
        return [
            f"{info.name} becomes the only manager and keeps services, networks, secrets, nodes and tokens as it knows them",
            "what other managers have acknowledged and this one has not heard of is lost",
            "tasks keep running, and workers find the new manager by themselves",
            f"{', '.join(others) or 'the other managers'} must not come back as they are: "
            "on each of them `docker swarm leave --force`, then join again",
        ]

    async def submit(self) -> None:
        """Ask for it."""
        if not self._sent:
            request: dict[str, Any] = {"ListenAddr": LISTEN, "ForceNewCluster": True, "Spec": {}}
            if self._address:
                request["AdvertiseAddr"] = self._address
            await _read(send(self._client.init_swarm(request)))
            self._sent = True

    async def run(self, report: Report) -> None:
        """Ask for it and stay until changes can be made again."""
        report(Progress(Phase.SENDING, message=self.title))
        await self.submit()
        patience = Patience(self._timing, report)
        while True:
            try:
                group = await self._client.managers()
            except (NotFound, NotImplementedHere):
                break
            except (ConnectionFailed, Unavailable) as error:
                await patience.lost(error)
                continue
            except EngineError as error:
                raise OperationFailed(f"it was accepted, but then the managers cannot be read: {error}") from error
            patience.reached()
            if group.quorum and group.leader:
                break
            report(Progress(Phase.CONVERGING, 0, 1, "the new group elects its leader"))
            await self._timing.sleep(self._timing.poll)
        report(Progress(Phase.DONE, 1, 1, f"{self._name} leads a cluster of one manager; add two more"))

    async def _group(self) -> Group | None:
        try:
            return await self._client.managers()
        except (NotFound, NotImplementedHere):
            return None  # A real Docker Swarm.
        except EngineError as error:
            raise OperationFailed(str(error)) from error

    async def _nodes(self) -> list[Node]:
        try:
            return await self._client.nodes()
        except EngineError:
            return []  # Without a quorum a real Docker Swarm shows nothing.

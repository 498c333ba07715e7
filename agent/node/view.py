"""What the front door may know of this node: the reading half of `agent.api.backend.Backend`."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from agent.api.backend import Explainer, LocalState, LogReader
from agent.api_types.errors import Unavailable
from agent.api_types.times import Clock
from agent.node.backup import write_backup
from agent.node.manager_part import ManagerPart
from agent.node.membership import Membership
from agent.node.settings import Settings
from agent.raft.interface import GroupStatus
from agent.rpc.addresses import split_address
from agent.rpc.messages import ManagerAddress
from agent.store.store import Store
from agent.worker.interface import Executor, NetworkAttacher


class NodeView:
    """This host and its part in a swarm, as they are now."""

    def __init__(self, settings: Settings, executor: Executor, clock: Clock) -> None:
        self.clock = clock
        self.executor: Executor = executor
        self.hostname = settings.hostname
        self.data_dir = str(settings.data_dir)
        self.engine_socket = settings.engine
        self.started_at = clock()
        self.error = ""
        self._membership: Membership | None = None
        self._state = LocalState.INACTIVE
        """While there is no membership: inactive, pending, locked or error."""
        self._part_changed: asyncio.Future[None] | None = None

    # -- what the API reads

    @property
    def local_state(self) -> LocalState:
        if self._state is LocalState.PENDING or self._membership is None:
            return self._state
        return LocalState.ACTIVE

    @property
    def node_id(self) -> str:
        return self._membership.identity.node_id if self._membership is not None else ""

    @property
    def node_address(self) -> str:
        return split_address(self._membership.record.advertise)[0] if self._membership is not None else ""

    @property
    def remote_managers(self) -> Sequence[ManagerAddress]:
        return self._membership.managers if self._membership is not None else ()

    @property
    def _part(self) -> ManagerPart | None:
        """The manager's part, once it knows the cluster."""
        part = self._membership.part if self._membership is not None else None
        return part if part is not None and part.knows_cluster else None

    @property
    def is_manager(self) -> bool:
        return self._membership is not None and self._membership.part is not None

    @property
    def store(self) -> Store | None:
        part = self._part
        return part.store if part is not None else None

    @property
    def group(self) -> GroupStatus | None:
        part = self._part
        return part.status if part is not None else None

    async def group_changed(self, seen: GroupStatus | None) -> GroupStatus | None:
        while (group := self.group) == seen:
            if self._part_changed is None:
                self._part_changed = asyncio.get_running_loop().create_future()
            part = self._membership.part if self._membership is not None else None
            waits: list[asyncio.Future[object]] = [asyncio.ensure_future(asyncio.shield(self._part_changed))]
            if part is not None:
                waits.append(asyncio.ensure_future(part.member.status_changed(part.status)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return group

    @property
    def networks(self) -> NetworkAttacher | None:
        return self._membership.networks if self._membership is not None else None

    @property
    def logs(self) -> LogReader | None:
        part = self._part
        return part.manager.log_broker if part is not None and part.manager is not None else None

    @property
    def explainer(self) -> Explainer | None:
        part = self._part
        return part.manager.explainer if part is not None and part.manager is not None else None

    def leader_link(self, caller: str) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        return self._manager().link.exchange(caller)

    def backup(self) -> AsyncIterator[bytes]:
        return write_backup(self._manager().store, self.clock)

    def _manager(self) -> ManagerPart:
        part = self._part
        if part is None:
            raise Unavailable("This node is not a swarm manager.")
        return part

    def _on_part(self) -> None:
        """The manager's part came or went: whoever waits for the group looks again."""
        changed, self._part_changed = self._part_changed, None
        if changed is not None:
            changed.set_result(None)

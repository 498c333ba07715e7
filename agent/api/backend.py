"""What the front door needs from the agent around it; `agent.node` implements it.

The API never reaches for a global: everything it knows of this node, its cluster and its engine comes through `Backend`,
so that many agents can live in one process and a test can put any node behind the routes.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

from agent.api_types.swarm import InitRequest, JoinRequest
from agent.api_types.times import Clock
from agent.manager.log_streams import LogOptions as LogOptions
from agent.manager.log_streams import LogsMissing as LogsMissing
from agent.raft.interface import GroupStatus
from agent.rpc.messages import LogRecord, ManagerAddress
from agent.store.store import Store
from agent.worker.interface import Executor, NetworkAttacher


class LocalState(StrEnum):
    """This node's part in a swarm, in the words of `docker info` (moby api/types/swarm/swarm.go)."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class LogReader(Protocol):
    """Reads the logs of tasks wherever they run."""

    def read(
        self, *, service_id: str = "", task_ids: Sequence[str] = (), options: LogOptions
    ) -> AsyncGenerator[LogRecord | LogsMissing, None]:
        """Lines in order of time over all nodes, then what is missing.

        Either the tasks named, or all tasks of a service, those that are made while it is followed included. With
        `follow` it goes on until it is closed; the API closes it (`aclose`) as soon as its client is gone.
        """
        ...


class Explainer(Protocol):
    """Why things are as they are; every answer can be encoded as JSON."""

    def explain_task(self, task_id: str) -> object:
        """Why the task is where it is, or why it waits. The id is known to exist."""
        ...

    def explain_service(self, service_id: str) -> object:
        """Why the service runs what it runs. The id is known to exist."""
        ...

    def explain_network(self, network_id: str) -> object:
        """Who is on the network, and who waits for it. The id is known to exist."""
        ...


class Backend(Protocol):
    """This node. Properties are read again at every request, so they may change at any time."""

    @property
    def clock(self) -> Clock:
        """The wall clock of the agent."""
        ...

    @property
    def hostname(self) -> str:
        """The node's name among people."""
        ...

    @property
    def data_dir(self) -> str:
        """Where the agent keeps its files (`DockerRootDir` where there is no engine)."""
        ...

    @property
    def started_at(self) -> int:
        """When the agent started, nanoseconds since the epoch."""
        ...

    @property
    def local_state(self) -> LocalState:
        """Whether the node is part of a swarm."""
        ...

    @property
    def node_id(self) -> str:
        """This node's id in the swarm, empty outside of one."""
        ...

    @property
    def node_address(self) -> str:
        """The address that other nodes reach this one at, without a port; empty outside of a swarm."""
        ...

    @property
    def error(self) -> str:
        """Why `local_state` is error or pending, for people."""
        ...

    @property
    def remote_managers(self) -> Sequence[ManagerAddress]:
        """The managers that this node knows of."""
        ...

    @property
    def is_manager(self) -> bool:
        """True while this node is a manager of an active swarm; `store` is set then."""
        ...

    @property
    def store(self) -> Store | None:
        """The cluster's state, on managers."""
        ...

    @property
    def group(self) -> GroupStatus | None:
        """The managers' group as this one sees it; None on workers. `group.leading` says whether this one leads."""
        ...

    async def group_changed(self, seen: GroupStatus | None) -> GroupStatus | None:
        """Wait until `group` is another one than `seen`, and return it; at once when it is already.

        The member's own `status_changed`. On a node that stops being a manager meanwhile the answer is None.
        """
        ...

    def leader_link(self, caller: str) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """One HTTP exchange with the leader's API, as bytes; the connection is for this exchange alone.

        Entering it waits for a leader to be known, as long as one may still be elected, and dials it. Raises Unavailable
        when nothing was sent and nobody leads: the text names the managers that are missing and says what to do.
        """
        ...

    def backup(self) -> AsyncIterator[bytes]:
        """The whole state of the cluster, to be kept elsewhere; only on managers."""
        ...

    async def restore(self, data: AsyncIterator[bytes], request: InitRequest) -> str:
        """Begin the cluster of a backup again with this node as its only manager; the node's id. Addresses as for init."""
        ...

    @property
    def logs(self) -> LogReader | None:
        """Set on the leader."""
        ...

    @property
    def explainer(self) -> Explainer | None:
        """Set on the leader."""
        ...

    @property
    def executor(self) -> Executor | None:
        """Who runs this node's containers; the process executor's are served under /containers."""
        ...

    @property
    def networks(self) -> NetworkAttacher | None:
        """Who brings networks to this host; None outside of a swarm."""
        ...

    @property
    def engine_socket(self) -> str | None:
        """The unix socket of the host's Docker Engine, None where the agent runs processes itself."""
        ...

    async def init(self, request: InitRequest) -> str:
        """Start a swarm with this node as its first manager; the node's id. ApiError with Docker's text when it cannot.

        The API has checked `request.spec` and that the node is in no swarm; addresses are the backend's to resolve.
        """
        ...

    async def join(self, request: JoinRequest) -> None:
        """Join a swarm; returns once the node is accepted. ApiError with Docker's text when it cannot."""
        ...

    async def leave(self, force: bool) -> None:
        """Leave the swarm and forget its state. The API has checked Docker's refusals for managers."""
        ...

    async def unlock(self, key: str) -> None:
        """Unlock a manager that started locked. InvalidArgument for a wrong key."""
        ...

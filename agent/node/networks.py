"""A node's networks as its membership has them: made of the host's privileges, or refused in words."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.api_types.network import NetworkAttachment
from agent.api_types.task import Task
from agent.network.attacher import Attacher, NotHereYet
from agent.network.borders import Borders
from agent.network.host import HostNetworks
from agent.network.host_parts import NetworkBalancer, StillUsed
from agent.network.lb_namespace import LbNamespace
from agent.network.overlay import Overlays
from agent.network.privileges import address_obstacle, obstacle
from agent.network.sandboxes import Sandboxes
from agent.network.served_names import ServedNames
from agent.rpc.messages import NetworkKeys, NetworkUpdate
from agent.worker.interface import Executor, NetworkKeeping, TemporaryFailure
from agent.worker.overlay_places import refuse_overlays

SANDBOXES = "netns"
"""The folder of tasks' network namespaces, in the agent's own."""


def sandbox_folder(data_dir: Path) -> Path:
    """Where the network namespaces of tasks that are processes are."""
    return data_dir / SANDBOXES / "tasks"


class NodeNetworks:
    """`async with`: what a node of a swarm has of its networks, and the worker's `NetworkAttacher`.

    `address` is where other hosts reach this one; `folder` is the membership's, `data_dir` the agent's. Where overlays
    cannot be had, tasks that ask for one are rejected, and all else is as if there were none.
    """

    def __init__(self, node_id: str, address: str, folder: Path, data_dir: Path, executor: Executor) -> None:
        self.obstacle = obstacle() or address_obstacle(address)
        self._node_id = node_id
        self._address = address
        self._folder = folder
        self._data_dir = data_dir
        self._executor = executor
        self._host: HostNetworks | None = None
        self._attacher: Attacher | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self.obstacle:
            return self
        async with AsyncExitStack() as stack:
            links = await stack.enter_async_context(Overlays(self._address))
            host = HostNetworks(
                self._node_id,
                self._folder / "networks",
                links,
                self._balancer,
                ServedNames(),
                borders=Borders(),
                release=self._release,
            )
            self._host = await stack.enter_async_context(host)
            engine = isinstance(self._executor, NetworkKeeping)
            self._attacher = Attacher(host, None if engine else Sandboxes(sandbox_folder(self._data_dir)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def clear(self) -> None:
        """The node leaves the swarm for good: leave nothing on this host. For after its tasks are gone."""
        if self._host is not None:
            await self._host.close(remove=True)

    # -- what a session brings

    def on_session(self) -> None:
        """A session begins."""
        if self._host is not None:
            self._host.begin()

    def on_network(self, update: NetworkUpdate) -> None:
        """What changed on a network."""
        if self._host is not None:
            self._host.take(update)

    async def on_keys(self, keys: NetworkKeys) -> None:
        """Keys of the encrypted networks."""
        if self._host is not None:
            await self._host.rekey(keys)

    def on_assigned(self) -> None:
        """The session's first assignments are here, and all networks that they need came before them."""
        if self._host is not None:
            self._host.settled()

    # -- NetworkAttacher

    async def attach(self, task: Task) -> list[NetworkAttachment]:
        """Connect the task. TemporaryFailure while a network is not here, RejectedByExecutor where none can be."""
        if self._attacher is None:
            refuse_overlays(task, self.obstacle)
            return []
        try:
            return await self._attacher.attach(task)
        except NotHereYet as reason:
            raise TemporaryFailure(str(reason)) from None

    async def activate(self, task: Task) -> None:
        """The task is healthy."""
        if self._attacher is not None:
            await self._attacher.activate(task)

    async def deactivate(self, task: Task) -> None:
        """The task is about to stop."""
        if self._attacher is not None:
            await self._attacher.deactivate(task)

    async def detach(self, task: Task) -> None:
        """The process is gone."""
        if self._attacher is not None:
            await self._attacher.detach(task)

    # -- inside

    def _balancer(self, network_id: str, bridge: str, mtu: int) -> NetworkBalancer:
        # In the agent's own folder: hosts that share a machine have the same networks.
        return LbNamespace(network_id, bridge, mtu=mtu, folder=self._data_dir / SANDBOXES)

    async def _release(self, network_id: str) -> None:
        if isinstance(self._executor, NetworkKeeping):
            try:
                await self._executor.release_network(network_id)
            except TemporaryFailure as failure:
                raise StillUsed(str(failure)) from None

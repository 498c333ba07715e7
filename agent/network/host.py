"""The networks of this host, all of it in one object: links, names and balancers follow what the manager says.

What a manager says (`take`) changes the picture at once; one task then brings the host to it, again and again while
something cannot be had. Networks come before the first task here is attached and go when the manager says so and the last
task is detached. Nothing of this stands in the way of traffic: all of it lies in the kernel, and stays when the agent ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.network.borders import Borders
from agent.network.desired import is_ingress, members, virtual_services, wanted, without
from agent.network.host_parts import BalancerOf, Links, NetworkBalancer, Rekeying, Release, StillUsed
from agent.network.kept_pictures import KeptPictures
from agent.network.overlay.interface import bridge_name
from agent.network.served_names import ServedNames
from agent.network.tables import NetworkPicture, NetworkTables
from agent.rpc.messages import NetworkKeys, NetworkUpdate

logger = logging.getLogger(__name__)

RETRY = 2.0
"""Seconds until what could not be had is tried again."""

LONGEST_WITHDRAWAL = 5.0
"""Seconds that a task which is to stop waits for the balancers of this host."""

SAVE_PAUSE = 0.5
"""Seconds in which changes are gathered before they are written down."""


async def _nothing_to_release(network_id: str) -> None:
    """Nobody has anything of the network."""


class HostNetworks:
    """`async with HostNetworks(...)`: the networks of the node `node_id`. Leaving the block leaves them in the kernel.

    `folder` keeps what the managers said. `links` is entered and left by this object's owner.
    """

    def __init__(
        self,
        node_id: str,
        folder: Path,
        links: Links,
        balancer_of: BalancerOf,
        names: ServedNames,
        *,
        borders: Borders | None = None,
        release: Release = _nothing_to_release,
        retry: float = RETRY,
        save_pause: float = SAVE_PAUSE,
    ) -> None:
        self.tables = NetworkTables()
        self._node_id = node_id
        self._kept = KeptPictures(folder)
        self._links = links
        self._balancer_of = balancer_of
        self._names = names
        self._borders = borders
        self._open_borders = ""
        """Why networks cannot be kept apart; empty when they are."""
        self._release = release
        self._retry = retry
        self._save_pause = save_pause
        self._users: dict[str, set[str]] = {}
        self._withdrawn: set[str] = set()
        self._heard: set[str] = set()
        self._balancers: dict[str, NetworkBalancer] = {}
        self._pictures: dict[str, NetworkPicture] = {}
        """Networks as this host is to have them: those that managers told, and those that tasks are still on."""
        self._changed: set[str] = set()
        self._left: dict[str, set[str]] = {}
        """Addresses that nobody has any more, by network: connections to them are to end, on every host."""
        self._unsaved: set[str] = set()
        self._brought: dict[str, str] = {}
        """Networks that were brought to this host: id to what is still wrong, empty for nothing."""
        self._asked = self._done = 0
        self._wake, self._to_save = asyncio.Event(), asyncio.Event()
        self._turned = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._known = False
        """Whether all networks of this node are known: what is not among them would be taken away."""
        self._concerned = False
        """Whether this host has, or had, anything to do with networks."""

    @property
    def problems(self) -> Mapping[str, str]:
        """Network id to why this host does not have it as wanted. For people."""
        return {network_id: text for network_id, text in self._brought.items() if text}

    # -- life

    async def __aenter__(self) -> Self:
        pictures = await asyncio.to_thread(self._kept.load)
        self.tables = NetworkTables(pictures)
        self._known = bool(pictures)
        self._concerned = self._kept.used
        for picture in pictures:
            self._tell(picture.id)
        self._tasks = [
            asyncio.create_task(self._keep_bringing(), name="networks"),
            asyncio.create_task(self._keep_saving(), name="networks on disk"),
        ]
        for task in self._tasks:
            task.add_done_callback(_must_not_end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, *, remove: bool = False) -> None:
        """Stop following; with `remove` leave nothing on this host. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._names.close()
        if remove:
            for network_id in list(self._pictures):
                with contextlib.suppress(StillUsed):
                    await self._release(network_id)
        for network_id, balancer in self._balancers.items():
            try:
                await balancer.close(remove=remove)
            except OSError as error:
                logger.warning("the balancer of network %s stays: %s", network_id, error)
        self._balancers.clear()
        if self._borders is not None:
            try:
                await self._borders.close(remove=remove)
            except OSError as error:
                logger.warning("the borders between networks stay: %s", error)
        await self._links.close(remove=remove)
        if remove:
            for network_id in list(self._pictures):
                self._kept.remove(network_id)
        else:
            self._save(self._unsaved)

    # -- what managers say

    def begin(self) -> None:
        """A session begins: the manager tells all there is, then its first assignments."""
        self._heard.clear()

    def take(self, update: NetworkUpdate) -> None:
        """What changed on a network."""
        self._heard.add(update.network_id)
        before = self.tables.get(update.network_id)
        change = self.tables.apply(update)
        if before is not None and change.picture is not None:
            left = {before.endpoints[one].address for one in change.endpoints if one in before.endpoints}
            left -= {one.address for one in change.picture.endpoints.values()}
            if left:
                self._left.setdefault(update.network_id, set()).update(left)
        if not change.nothing or update.network_id not in self._pictures:
            self._tell(update.network_id)

    def settled(self) -> None:
        """The manager has told everything: networks that it did not name are not this node's any more."""
        for network_id in self.tables.networks.keys() - self._heard:
            self.tables.forget(network_id)
            self._tell(network_id)
        self._known = True
        self._wake.set()

    async def rekey(self, keys: NetworkKeys) -> None:
        """Keys of the encrypted networks."""
        if isinstance(self._links, Rekeying):
            await self._links.rekey(keys)

    # -- what tasks need

    def use(self, network_id: str, task_id: str) -> None:
        """A task is on the network: it stays here until the last one is not."""
        self._users.setdefault(network_id, set()).add(task_id)

    def leave(self, network_id: str, task_id: str) -> None:
        """The task is on the network no more. Idempotent."""
        users = self._users.get(network_id, set())
        users.discard(task_id)
        if not users:
            self._users.pop(network_id, None)
            if network_id in self._pictures and self.tables.get(network_id) is None:
                self._tell(network_id)

    def brought(self, network_id: str) -> NetworkPicture | None:
        """The network, once this host has it."""
        return self._pictures.get(network_id) if self._brought.get(network_id) == "" else None

    async def until_brought(self, network_id: str) -> NetworkPicture:
        """Wait until this host has the network."""
        async with self._turned:
            await self._turned.wait_for(lambda: self.brought(network_id) is not None)
        return self._pictures[network_id]

    def announce(self, task_id: str) -> None:
        """The task may be known to names and balancers here, as soon as managers call it ready."""
        if task_id in self._withdrawn:
            self._withdrawn.discard(task_id)
            self._tell_of(task_id)

    async def withdraw(self, task_id: str) -> None:
        """Names and balancers of this host forget the task; returns when they have, or when that takes too long: a task
        must stop, whatever keeps the host from following."""
        self._withdrawn.add(task_id)
        if not self._tell_of(task_id):
            return
        asked = self._asked
        try:
            async with asyncio.timeout(LONGEST_WITHDRAWAL), self._turned:
                await self._turned.wait_for(lambda: self._done >= asked)
        except TimeoutError:
            logger.error("task %s stops though balancers of this host may still lead to it", task_id)

    async def forget(self, network_id: str, addresses: Collection[str]) -> None:
        """End the balanced connections to addresses that nobody has any more."""
        balancer = self._balancers.get(network_id)
        if balancer is None:
            return
        try:
            await balancer.forget(addresses)
        except OSError as error:
            logger.warning("connections to %s are left to time out: %s", ", ".join(addresses), error)

    # -- bringing the host to the picture

    def _tell(self, network_id: str) -> None:
        """The network is another one than before; many changes that come together are one turn's work."""
        picture = self.tables.get(network_id)
        if picture is not None:
            self._pictures[network_id] = picture
        self._changed.add(network_id)
        self._unsaved.add(network_id)
        self._asked += 1
        self._concerned = True
        self._wake.set()
        self._to_save.set()

    def _tell_of(self, task_id: str) -> bool:
        concerned = [one.id for one in self._pictures.values() if task_id in members(one.endpoints.values())]
        for network_id in concerned:
            self._tell(network_id)
        return bool(concerned)

    async def _keep_bringing(self) -> None:
        while True:
            self._wake.clear()
            owed = await self._bring() if self._known and self._concerned else False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry if owed else None):
                    await self._wake.wait()

    async def _bring(self) -> bool:
        """One turn; whether something is left to be tried again."""
        asked, changed = self._asked, self._changed
        self._changed = set()
        going = [one for one in self._pictures if self.tables.get(one) is None and not self._users.get(one)]
        gone = [network_id for network_id in going if await self._let_go(network_id)]
        staying = {one: picture for one, picture in self._pictures.items() if one not in gone}
        seen = {one: without(picture, self._withdrawn) for one, picture in staying.items() if one in changed}
        for network_id, picture in seen.items():
            self._names.tell(network_id, picture)
        problems = await self._links.apply(
            {one: wanted(picture, self._node_id) for one, picture in staying.items() if not is_ingress(picture)}
        )
        await self._names.serve()
        unbordered = await self._draw_borders(staying)
        for network_id in gone:
            self._pictures.pop(network_id, None)
            self._brought.pop(network_id, None)
            self._left.pop(network_id, None)
            self._unsaved.add(network_id)
        owed = unbordered or len(gone) < len(going)
        for network_id, picture in staying.items():
            if network_id in going:
                continue
            problem = problems.get(network_id, "")
            if not problem and (network_id in changed or self._brought.get(network_id) != ""):
                problem = await self._balance(seen.get(network_id) or without(picture, self._withdrawn))
            owed = owed or bool(problem)
            self._brought[network_id] = problem
            if not problem and (left := self._left.pop(network_id, None)):
                await self.forget(network_id, left)
        if self._withdrawn:
            self._withdrawn &= {
                task_id for one in self._pictures.values() for task_id in members(one.endpoints.values())
            }
        self._done = asked
        async with self._turned:
            self._turned.notify_all()
        return owed

    async def _draw_borders(self, pictures: Mapping[str, NetworkPicture]) -> bool:
        """Keep the networks apart; whether that is to be tried again."""
        if self._borders is None:
            return False
        apart = {one: picture.description.internal for one, picture in pictures.items() if not is_ingress(picture)}
        try:
            await self._borders.apply(apart)
        except OSError as error:
            if str(error) != self._open_borders:
                logger.error("networks of this host cannot be kept apart: %s", error)
            self._open_borders = str(error)
            return True
        self._open_borders = ""
        return False

    async def _let_go(self, network_id: str) -> bool:
        """Take down what stands on the network's links; False while something cannot be."""
        try:
            await self._release(network_id)
            balancer = self._balancers.pop(network_id, None)
            if balancer is not None:
                await balancer.close(remove=True)
        except (StillUsed, OSError) as error:
            problem = f"the network cannot go from this host yet: {error}"
            if self._brought.get(network_id) != problem:
                logger.warning("network %s: %s", network_id, problem)
            self._brought[network_id] = problem
            return False
        self._names.tell(network_id, None)
        return True

    async def _balance(self, picture: NetworkPicture) -> str:
        """Virtual addresses and who is behind them; the reason when it cannot be."""
        description = picture.description
        if is_ingress(picture) or not description.balancer:
            return ""
        services = virtual_services(picture)
        balancer = self._balancers.get(picture.id)
        if balancer is None:
            balancer = self._balancer_of(picture.id, bridge_name(picture.id), description.mtu)
            self._balancers[picture.id] = balancer
        try:
            await balancer.apply(
                picture.with_length(description.balancer), {service.address for service in services}, services
            )
        except OSError as error:
            problem = f"virtual addresses cannot be had: {error}"
            if self._brought.get(picture.id) != problem:
                logger.error("network %s: %s", description.name, problem)
            return problem
        return ""

    # -- on disk

    async def _keep_saving(self) -> None:
        while True:
            await self._to_save.wait()
            await asyncio.sleep(self._save_pause)
            self._to_save.clear()
            unsaved, self._unsaved = self._unsaved, set()
            writing = asyncio.ensure_future(asyncio.to_thread(self._save, unsaved))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait({writing})
                raise

    def _save(self, network_ids: Iterable[str]) -> None:
        try:
            for network_id in network_ids:
                picture = self._pictures.get(network_id)
                if picture is None:
                    self._kept.remove(network_id)
                else:
                    self._kept.write(picture)
        except OSError as error:
            logger.error("networks cannot be written down, a restart will wait for a manager: %s", error)


def _must_not_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.critical(
            "%s: nothing follows the managers any more on this host", task.get_name(), exc_info=task.exception()
        )

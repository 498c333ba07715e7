"""The overlays of this host, looked after: brought to what is wanted, and mended when somebody changes their links."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from agent.network.overlay.decisions import Site
from agent.network.overlay.events import encryption_events, link_events
from agent.network.overlay.host import Host, Look
from agent.network.overlay.interface import VXLAN_PORT, OverlayWanted
from agent.rpc.messages import NetworkKeys

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

RETRY = 5.0
"""Seconds until a network that could not be had is tried again: a port of somebody else's goes without an event."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two times of mending; the pause doubles while somebody undoes what is done."""


class Overlays:
    """Implements `OverlayLinks`: see there. `own_host` is the address that other hosts reach this one at."""

    def __init__(self, own_host: str, *, port: int = VXLAN_PORT, netns: str = "", retry: float = RETRY) -> None:
        self._site = Site(own_host, port)
        self._netns = netns
        self._retry = retry
        # One thread, so that what was begun is ended before the next thing, even when its caller was cancelled.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlays")
        self._wanted: Mapping[str, OverlayWanted] | None = None
        self._problems: Mapping[str, str] = MappingProxyType({})
        self._stirred = asyncio.Event()
        self._touched: set[int] = set()
        self._anything = False
        self._watches_encryption = False
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """OSError: the namespace is not there, or the kernel has no netlink."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._thread.shutdown, wait=False)
            self._host = await self._within(lambda: Host(self._site, self._netns))
            stack.push_async_callback(self._within, self._host.close)
            stack.enter_context(link_events(self._netns, self._concerns, self._stirred.set, self._stir_all))
            keeper = asyncio.create_task(self._look_after(), name="overlays")
            stack.push_async_callback(_ended, keeper)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def problems(self) -> Mapping[str, str]:
        """Network id to why this host does not have it as wanted."""
        return self._problems

    async def apply(self, wanted: Mapping[str, OverlayWanted]) -> Mapping[str, str]:
        """Bring the host to exactly these networks; see `OverlayLinks.apply`."""
        first = self._wanted is None
        self._wanted = dict(wanted)
        return await self._bring(Look(everything=True) if first else None)

    async def rekey(self, keys: NetworkKeys) -> None:
        """Use these keys between hosts on encrypted networks."""

        def take() -> None:
            self._host.keys = keys

        await self._within(take)
        await self._bring(None)

    async def close(self, *, remove: bool = False) -> None:
        """Stop looking after the links; with `remove` take them away."""
        resources, self._resources = self._resources.pop_all(), contextlib.AsyncExitStack()
        async with resources:
            self._wanted = None
            if remove:
                await self._within(self._host.remove)

    async def _bring(self, look: Look | None) -> Mapping[str, str]:
        wanted = self._wanted
        if wanted is None:
            return self._problems
        try:
            self._watch_encryption(wanted)
            problems = await self._within(lambda: dict(self._host.bring(wanted, look=look)))
        except OSError as error:
            # The kernel cannot be spoken to: nothing is known of any network, and the next try looks at all of them.
            problems = dict.fromkeys(wanted, f"the kernel's network links cannot be changed: {error}")
        for network_id in problems.keys() - self._problems.keys():
            _log.warning("network %s: %s", network_id, problems[network_id])
        self._problems = MappingProxyType(problems)
        return self._problems

    def _watch_encryption(self, wanted: Mapping[str, OverlayWanted]) -> None:
        """From the first encrypted network on: without the kernel's policies its packets would go out plain."""
        if self._watches_encryption or not any(overlay.encrypted for overlay in wanted.values()):
            return
        try:
            self._resources.enter_context(encryption_events(self._netns, self._stir_all))
        except OSError as error:
            # That the kernel has none is told as the network's problem.
            if error.errno != errno.EPROTONOSUPPORT:
                raise
        self._watches_encryption = True

    async def _look_after(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            try:
                async with asyncio.timeout(self._retry if self._problems else None):
                    await self._stirred.wait()
            except TimeoutError:
                self._anything = True
            look = Look(frozenset(self._touched), self._anything)
            self._stirred.clear()
            self._touched.clear()
            self._anything = False
            before = self._host.changes
            await self._bring(look)
            undone = self._host.changes != before
            pause = min(pause * 2, _LONGEST_PAUSE) if undone else _SHORTEST_PAUSE
            await asyncio.sleep(pause)

    def _concerns(self, name: str, index: int, master: int) -> bool:
        known = self._host.indexes
        if self._wanted is None:
            return False
        if index in known or name.startswith(("ov-", "vx-")):
            self._touched.add(index)
            return True
        return master in known or bool(self._problems)

    def _stir_all(self) -> None:
        self._anything = True
        self._stirred.set()

    async def _within(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

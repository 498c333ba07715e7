"""What a node keeps in certificates/: its identity and, on managers, the data keys; both locked while auto-lock is on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.api_types.node import NodeRole
from agent.node.cluster_following import each_cluster
from agent.pki import custody
from agent.pki.folder import IdentityMissing
from agent.pki.identity import NodeIdentity
from agent.pki.sealing import Sealing
from agent.store.store import Store

logger = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds until a key that could not be written is tried again."""


class NodeKeys:
    """The files of one node. `identity` is the newest one saved. What blocks may be called from any thread."""

    def __init__(self, folder: Path, identity: NodeIdentity, sealing: Sealing | None = None) -> None:
        self.identity = identity
        self._folder = folder
        self._sealing = sealing
        self._changing = threading.Lock()

    @classmethod
    def load(cls, folder: Path, unlock_key: str | None = None) -> NodeKeys:
        """From disk; blocks for a moment. Raises Locked without the key that it needs, InvalidUnlockKey for a wrong one,
        IdentityMissing and IdentityDamaged."""
        identity = NodeIdentity.load(folder, unlock_key)
        sealing = None
        if identity.role is NodeRole.MANAGER:
            with contextlib.suppress(IdentityMissing):
                sealing = Sealing.load(folder, unlock_key)
        return cls(folder, identity, sealing)

    @property
    def unlock_key(self) -> str:
        """What the files are locked with, empty while they are not."""
        return (self._sealing.unlock_key or "") if self._sealing is not None else ""

    def sealing(self) -> Sealing:
        """The data keys, made when there are none. Blocks."""
        with self._changing:
            if self._sealing is None:
                self._sealing = Sealing.load_or_create(self._folder)
            return self._sealing

    def save(self, identity: NodeIdentity) -> None:
        """Keep another identity of this node; it is on the disk when this returns. A worker's is never locked. Blocks."""
        with self._changing:
            sealing = self._sealing if identity.role is NodeRole.MANAGER and self.unlock_key else None
            identity.save(self._folder, sealing)
            self.identity = identity

    def lock(self, key: str) -> None:
        """Lock the files with another unlock key, or no longer with the empty one. Blocks."""
        sealing = self.sealing()
        with self._changing:
            custody.lock(self.identity, sealing, key or None)

    def forget_state(self) -> None:
        """The node is no manager any more: what its data keys sealed is of no use. Blocks."""
        with self._changing:
            self._sealing = None
            Sealing.remove(self._folder)


class KeyFollower:
    """`run` on every manager: keeps the node's files locked with the cluster's unlock key."""

    def __init__(self, store: Store, keys: NodeKeys) -> None:
        self._store = store
        self._keys = keys

    async def run(self) -> None:
        """Until cancelled."""
        async with contextlib.aclosing(each_cluster(self._store)) as clusters:
            async for cluster in clusters:
                while cluster.unlock_key != self._keys.unlock_key:
                    await self._lock(cluster.unlock_key)

    async def _lock(self, key: str) -> None:
        try:
            await _to_the_end(partial(self._keys.lock, key))
        except OSError as error:
            logger.error("the unlock key of the cluster cannot be written: %s; this is tried again", error)
            await asyncio.sleep(RETRY)
        else:
            logger.info("the keys of this manager are %s on disk", "locked anew" if key else "no longer locked")


async def _to_the_end(work: Callable[[], None]) -> None:
    """Blocking work in a thread; whoever is cancelled meanwhile still waits for it."""
    writing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})
        raise

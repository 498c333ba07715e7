"""The cluster's own object, as it is and as it becomes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from agent.api_types.swarm import Cluster
from agent.store.store import Store
from agent.store.watching import WatchOverflow


async def each_cluster(store: Store) -> AsyncGenerator[Cluster, None]:
    """The cluster now, if this manager knows it yet, and again whenever it changed; without end. Close it (`aclosing`)."""
    while True:
        with store.watch(Cluster) as watch:
            try:
                for cluster in store.view(lambda tx: tx.all(Cluster)):
                    yield cluster
                async for _ in watch:
                    for cluster in store.view(lambda tx: tx.all(Cluster)):
                        yield cluster
            except WatchOverflow:
                # The state was replaced by a snapshot of the leader's.
                continue

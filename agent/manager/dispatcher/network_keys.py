"""The keys of encrypted networks: made with the first of them, changed twice a day, three at a time.

A node receives with every key that it knows and sends with the middle one: those that were told of the newest set already
and those that were not understand each other.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent.api_types.network import Network
from agent.api_types.overlays import is_encrypted, is_overlay
from agent.api_types.swarm import Cluster, NetworkSecret
from agent.api_types.times import SECOND, Clock, format_time, parse_time
from agent.rpc.messages import NetworkKey, NetworkKeys
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx

LIFE = 12 * 3600 * SECOND
"""How long a set of keys is used, as in SwarmKit."""
KEPT = 3
KEY_LENGTH = 32


class NetworkKeyring:
    """Keeps the cluster's keys. `new_key` makes 32 random bytes; `act` is the leader's."""

    def __init__(self, store: Store, clock: Clock, new_key: Callable[[], bytes]) -> None:
        self._store = store
        self._clock = clock
        self._new_key = new_key
        self._due: int | None = 0

    def changed(self) -> None:
        """There are other networks, or other keys."""
        self._due = 0

    @property
    def keys(self) -> NetworkKeys | None:
        """What nodes with an encrypted network are told; None while there is no key."""
        cluster = self._store.view(_cluster)
        return None if cluster is None else keys_of(cluster)

    async def act(self) -> int | None:
        """Make what is due; when the next set is (nanoseconds since the epoch), None for never."""
        if self._due is None or self._clock() < self._due:
            return self._due
        self._due = self._store.view(self._next)
        if self._due is not None and self._clock() >= self._due:
            await self._store.update(self._rotate)
            self._due = self._store.view(self._next)
        return self._due

    def _next(self, tx: ReadTx) -> int | None:
        cluster = _cluster(tx)
        if cluster is None or not any(is_overlay(each) and is_encrypted(each) for each in tx.all(Network)):
            return None
        return parse_time(cluster.network_keys[-1].created_at) + LIFE if cluster.network_keys else 0

    def _rotate(self, tx: WriteTx) -> None:
        cluster, due = _cluster(tx), self._next(tx)
        now = tx.clock()
        if cluster is None or due is None or now < due:
            return
        made = cluster.network_keys
        last = made[-1].generation if made else 0
        count = 1 if made else KEPT - 1
        fresh = [
            NetworkSecret(generation=last + number, key=self._new_key(), created_at=format_time(now))
            for number in range(1, count + 1)
        ]
        tx.update(replace(cluster, network_keys=[*made, *fresh][-KEPT:]))


def keys_of(cluster: Cluster) -> NetworkKeys | None:
    """The newest key is only received with until everybody knows it."""
    made = cluster.network_keys
    if not made:
        return None
    keys = [NetworkKey(each.generation, each.key) for each in made]
    return NetworkKeys(keys, sending=keys[-2].generation if len(keys) > 1 else keys[-1].generation)


def _cluster(tx: ReadTx) -> Cluster | None:
    return next(iter(tx.all(Cluster)), None)

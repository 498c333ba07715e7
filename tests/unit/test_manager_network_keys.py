"""Keys of encrypted networks."""

from __future__ import annotations

from itertools import count

from manager_objects import NOW

from agent.api.views import without_credentials
from agent.api_types.codec import encode_json
from agent.api_types.common import Driver
from agent.api_types.identity import new_id
from agent.api_types.network import Network, NetworkSpec
from agent.api_types.swarm import Cluster
from agent.manager.dispatcher.network_keys import LIFE, NetworkKeyring
from agent.pki.root import RootCA
from agent.store.store import Store


class World:
    """A cluster whose time a test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = Store.in_memory(clock=lambda: self.now, ids=new_id)
        number = count(1)
        self.ring = NetworkKeyring(self.store, lambda: self.now, lambda: bytes([next(number)]) * 32)

    async def add(self, name: str, **options: str) -> None:
        driver = Driver(name="overlay", options=options)
        spec = NetworkSpec(name=name, driver_configuration=driver)
        await self.store.update(lambda tx: tx.create(Network(id=name, spec=spec)))
        self.ring.changed()

    def shown(self) -> tuple[list[tuple[int, int]], int]:
        keys = self.ring.keys
        assert keys is not None
        return [(key.generation, key.key[0]) for key in keys.keys], keys.sending


async def test_no_key_without_an_encrypted_network() -> None:
    world = World()
    assert await world.ring.act() is None
    await world.store.update(lambda tx: tx.create(Cluster(id="c")))
    await world.add("plain")
    assert await world.ring.act() is None
    assert world.ring.keys is None


async def test_keys_change_so_that_old_and_new_sets_understand_each_other() -> None:
    world = World()
    await world.store.update(lambda tx: tx.create(Cluster(id="c")))
    await world.add("secret", encrypted="")
    assert await world.ring.act() == NOW + LIFE
    assert world.shown() == ([(1, 1), (2, 2)], 1)
    world.now += LIFE - 1
    index = world.store.index
    assert await world.ring.act() == NOW + LIFE
    assert world.store.index == index
    world.now += 1
    assert await world.ring.act() == NOW + 2 * LIFE
    assert world.shown() == ([(1, 1), (2, 2), (3, 3)], 2)
    before = world.shown()
    world.now += LIFE
    await world.ring.act()
    assert world.shown() == ([(2, 2), (3, 3), (4, 4)], 3)
    # Whoever has the old set receives what is sent with the new one, and the other way round.
    assert world.shown()[1] in [generation for generation, _ in before[0]]
    assert before[1] in [generation for generation, _ in world.shown()[0]]


async def test_another_leader_goes_on_with_the_same_keys() -> None:
    world = World()
    await world.store.update(lambda tx: tx.create(Cluster(id="c")))
    await world.add("secret", encrypted="")
    await world.ring.act()
    other = NetworkKeyring(world.store, lambda: world.now, lambda: b"x" * 32)
    assert await other.act() == NOW + LIFE
    assert other.keys == world.ring.keys


async def test_no_client_is_shown_a_key() -> None:
    world = World()
    root = RootCA.create(lambda: NOW).cert_pem.decode()
    await world.store.update(lambda tx: tx.create(Cluster(id="c", ca_cert=root)))
    await world.add("secret", encrypted="")
    await world.ring.act()
    (cluster,) = world.store.view(lambda tx: tx.all(Cluster))
    assert len(cluster.network_keys) == 2
    assert b"NetworkKeys" not in encode_json(without_credentials(cluster))
    assert "key=" not in repr(cluster.network_keys)

"""Root rotation: with real certificates, on a store in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from virtual_time import EPOCH as NOW
from virtual_time import VirtualLoop, run_virtual

from agent.api_types.errors import InvalidArgument
from agent.api_types.identity import new_id
from agent.api_types.node import Node, NodeDescription, NodeRole, NodeState, NodeStatus
from agent.api_types.swarm import CAConfig, Cluster, SwarmSpec
from agent.manager.authority import issue, issuer_digest, trusted_roots
from agent.manager.dispatcher.node_updates import NodeUpdates
from agent.manager.membership import Membership
from agent.manager.root_rotation import RootRotations, signing_ca, with_rotation
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import make_secret
from agent.rpc.messages import JoinOpen
from agent.rpc.peer import Peer
from agent.store.store import Store
from agent.store.transactions import WriteTx

OLD = RootCA.create(lambda: NOW)
OTHER = RootCA.create(lambda: NOW)


def pem(root: RootCA) -> tuple[str, str]:
    assert root.key_pem is not None
    return root.cert_pem.decode(), root.key_pem.decode()


def a_cluster(**config: object) -> Cluster:
    certificate, key = pem(OLD)
    spec = SwarmSpec(name="default", ca_config=CAConfig(**config))  # type: ignore[arg-type]
    return Cluster(id="cluster", spec=spec, ca_cert=certificate, ca_key=key, worker_secret=make_secret())


def virtually(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test in a loop whose clock jumps."""

    @functools.wraps(story)
    def run() -> None:
        run_virtual(story(), VirtualLoop())

    return run


@dataclass
class Host:
    """A node that renews its certificate when it is told to."""

    key: NodeKey
    identity: NodeIdentity


class Rotating:
    """The control loop over a store with some nodes, whose certificates are real."""

    def __init__(self) -> None:
        self.store = Store.in_memory(clock=lambda: NOW)
        self.hosts: dict[str, Host] = {}

    @property
    def cluster(self) -> Cluster:
        return self.store.view(lambda tx: tx.all(Cluster))[0]

    async def add(self, node_id: str, state: NodeState = NodeState.READY) -> None:
        key = NodeKey.create()
        certificate = issue(self.cluster, key.request(), node_id, NodeRole.WORKER, lambda: NOW)
        self.hosts[node_id] = Host(key, NodeIdentity.from_pem(certificate, key.pem, trusted_roots(self.cluster)))
        await self.store.update(
            lambda tx: (
                tx.create(Node(id=node_id, status=NodeStatus(state=state), description=self._shown(node_id))) and None
            )
        )

    def _shown(self, node_id: str) -> NodeDescription:
        return NodeDescription(hostname=node_id, tls_info=self.hosts[node_id].identity.tls_info())

    async def renew(self, node_id: str) -> None:
        """What the node does: ask, trust what it is given, show it."""
        host = self.hosts[node_id]
        certificate = issue(self.cluster, host.key.request(), node_id, NodeRole.WORKER, lambda: NOW)
        host.identity = NodeIdentity.from_pem(certificate, host.key.pem, trusted_roots(self.cluster))
        await self.change(node_id, description=self._shown(node_id))

    async def change(self, node_id: str, **fields: object) -> None:
        def write(tx: WriteTx) -> None:
            node = tx.get(Node, node_id)
            assert node is not None
            tx.update(msgspec.structs.replace(node, **fields))

        await self.store.update(write)

    async def ask(self, **config: object) -> None:
        """A person changes the spec; the control loop alone has to notice."""

        def write(tx: WriteTx) -> None:
            cluster = tx.all(Cluster)[0]
            changed = msgspec.structs.replace(cluster.spec.ca_config, **config)
            tx.update(msgspec.structs.replace(cluster, spec=msgspec.structs.replace(cluster.spec, ca_config=changed)))

        await self.store.update(write)

    async def until(self, rotating: bool) -> Cluster:
        async with asyncio.timeout(5):
            with self.store.watch(Cluster) as watch:
                while (self.cluster.root_rotation is not None) is not rotating:
                    await anext(watch)
        return self.cluster


@contextlib.asynccontextmanager
async def rotating(*nodes: str) -> AsyncIterator[Rotating]:
    world = Rotating()
    await world.store.update(lambda tx: tx.create(a_cluster()) and None)
    for node in nodes:
        await world.add(node)
    running = asyncio.ensure_future(RootRotations(world.store, lambda: NOW).run())
    try:
        yield world
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@virtually
async def test_a_rotation_ends_when_every_node_that_is_not_down_has_followed() -> None:
    async with rotating("n1", "n2", "n3") as world:
        await world.change("n3", status=NodeStatus(state=NodeState.DOWN))
        await world.ask(force_rotate=1)
        during = await world.until(rotating=True)
        assert during.root_rotation is not None
        new = RootCA.from_pem(during.root_rotation.ca_cert.encode())
        assert during.ca_cert == OLD.cert_pem.decode(), "tokens stay as they are until the end"
        assert trusted_roots(during) == OLD.cert_pem + new.cert_pem
        assert issuer_digest(during) == new.digest.hex()
        await world.renew("n1")
        assert world.cluster.root_rotation is not None
        # It is of no use to anybody that n2 is only unknown.
        await world.change("n2", status=NodeStatus(state=NodeState.UNKNOWN))
        await asyncio.sleep(0.2)
        assert world.cluster.root_rotation is not None
        await world.renew("n2")
        after = await world.until(rotating=False)
        assert RootCA.from_pem(after.ca_cert.encode(), after.ca_key.encode()).digest == new.digest
        assert trusted_roots(after) == new.cert_pem
        assert after.last_forced_rotation == 1


@virtually
async def test_who_knows_only_the_old_root_trusts_the_new_certificates() -> None:
    async with rotating("n1") as world:
        await world.ask(force_rotate=1)
        during = await world.until(rotating=True)
        key = NodeKey.create()
        chain = issue(during, key.request(), "n9", NodeRole.WORKER, lambda: NOW)
        assert NodeIdentity.from_pem(chain, key.pem, OLD.cert_pem).node_id == "n9"


@virtually
async def test_a_newcomer_of_those_days_gets_the_new_root() -> None:
    async with rotating("n1") as world:
        await world.ask(force_rotate=1)
        during = await world.until(rotating=True)
        membership = Membership(world.store, lambda: NOW, new_id=new_id, managers=list)
        key = NodeKey.create()
        request = JoinOpen(secret=during.worker_secret, request=key.request())
        answer = await membership.issue(request, Peer("", None, "192.0.2.7:40000", 0))
        identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
        assert identity.issuer == issuer_digest(during)
        # It is waited for until it shows its certificate.
        await world.renew("n1")
        assert world.cluster.root_rotation is not None
        await world.change(answer.node_id, description=NodeDescription(tls_info=identity.tls_info()))
        await world.until(rotating=False)


@virtually
async def test_a_rotation_goes_on_under_another_leader() -> None:
    async with rotating("n1", "n2") as world:
        await world.ask(force_rotate=3)
        await world.until(rotating=True)
        await world.renew("n1")
        second = asyncio.ensure_future(RootRotations(world.store, lambda: NOW).run())
        await world.renew("n2")
        await world.until(rotating=False)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert world.cluster.last_forced_rotation == 3


@virtually
async def test_a_persons_own_root_and_back_to_one_of_ours() -> None:
    async with rotating("n1") as world:
        certificate, key = pem(OTHER)
        await world.ask(signing_ca_cert=certificate, signing_ca_key=key)
        await world.until(rotating=True)
        await world.renew("n1")
        assert (await world.until(rotating=False)).ca_cert == certificate
        # Clients send the spec back without the key.
        await world.ask(signing_ca_key="")
        await asyncio.sleep(0.2)
        assert world.cluster.root_rotation is None
        await world.ask(signing_ca_cert="", force_rotate=1)
        await world.until(rotating=True)
        await world.renew("n1")
        assert (await world.until(rotating=False)).ca_cert not in (certificate, OLD.cert_pem.decode())


@virtually
async def test_a_second_rotation_waits_for_the_first() -> None:
    async with rotating("n1") as world:
        await world.ask(force_rotate=1)
        first = await world.until(rotating=True)
        await world.ask(force_rotate=2)
        await asyncio.sleep(0.2)
        assert world.cluster.root_rotation == first.root_rotation
        await world.renew("n1")
        async with asyncio.timeout(5):
            with world.store.watch(Cluster) as watch:
                while world.cluster.last_forced_rotation != 2:
                    await anext(watch)
        second = world.cluster
        assert first.root_rotation is not None
        assert second.root_rotation is not None, "the next one begins with the end of the first: no gap is shown"
        assert second.ca_cert == first.root_rotation.ca_cert
        await world.renew("n1")
        await world.until(rotating=False)


def test_what_cannot_be_used_is_refused() -> None:
    certificate, key = pem(OTHER)
    with pytest.raises(InvalidArgument, match="cannot be used"):
        signing_ca(CAConfig(signing_ca_cert="nonsense"))
    with pytest.raises(InvalidArgument, match="needs its key"):
        with_rotation(a_cluster(signing_ca_cert=certificate), lambda: NOW)
    with pytest.raises(InvalidArgument, match="cannot be used"):
        with_rotation(a_cluster(signing_ca_cert=certificate, signing_ca_key=pem(OLD)[1]), lambda: NOW)
    mine = a_cluster(signing_ca_cert=OLD.cert_pem.decode(), signing_ca_key=pem(OLD)[1])
    assert with_rotation(mine, lambda: NOW).root_rotation is None, "it is the root already"
    assert with_rotation(a_cluster(signing_ca_cert=certificate, signing_ca_key=key), lambda: NOW).root_rotation


@virtually
async def test_a_spec_that_cannot_be_followed_does_not_end_the_loop() -> None:
    async with rotating("n1") as world:
        await world.ask(signing_ca_cert=OTHER.cert_pem.decode())
        await asyncio.sleep(0.2)
        await world.ask(signing_ca_cert="", force_rotate=1)
        await world.until(rotating=True)


@virtually
async def test_nodes_are_told_of_both_roots_and_of_who_signs() -> None:
    async with rotating("n1") as world:
        updates = NodeUpdates(world.store, None)
        before = updates.of("n1")
        assert before is not None
        assert (before.roots, before.issuer, before.role) == (OLD.cert_pem, OLD.digest.hex(), NodeRole.WORKER)
        await world.ask(force_rotate=1)
        during = await world.until(rotating=True)
        assert updates.refresh()
        told = updates.of("n1")
        assert told is not None
        assert (told.roots, told.issuer) == (trusted_roots(during), issuer_digest(during))
        assert updates.of("gone") is None

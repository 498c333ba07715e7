"""Root rotation: from one root certificate to the next without an outage.

A rotation begins when a person asks for another root (`ForceRotate` counts up, or a signing CA is given). From then on the
new root signs, nodes trust both, and everyone is told to renew. It is finished when every node that is not down has a
certificate of the new root: then the old one is trusted by nobody, and join tokens carry the digest of the new one. A node
that was down all the time does not get in any more; it has to leave and join again.

One rotation at a time: another one that is asked for meanwhile begins when this one is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import ClassVar

import msgspec

from agent.api_types.errors import InvalidArgument
from agent.api_types.node import Node, NodeState
from agent.api_types.swarm import CAConfig, Cluster, RootRotation
from agent.api_types.times import Clock
from agent.manager.control_loop import ControlLoop
from agent.pki.root import RootCA
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit

log = logging.getLogger(__name__)


def with_rotation(cluster: Cluster, clock: Clock) -> Cluster:
    """The cluster with the rotation begun that its spec asks for; as it is when it asks for none, or one is under way.

    For whoever changes the spec, so that the answer to a change shows the rotation already. InvalidArgument when the spec
    names a signing CA that cannot be used.
    """
    if cluster.root_rotation is not None or not cluster.ca_key:
        return cluster
    config = cluster.spec.ca_config
    followed = msgspec.structs.replace(cluster, last_forced_rotation=config.force_rotate)
    if config.signing_ca_cert:
        new = signing_ca(config)
        if new.digest == _root(cluster.ca_cert).digest:
            return followed
    elif config.force_rotate == cluster.last_forced_rotation:
        return cluster
    else:
        new = RootCA.create(clock)
    old = RootCA.from_pem(cluster.ca_cert.encode(), cluster.ca_key.encode())
    if not new.can_sign or new.key_pem is None:
        raise InvalidArgument("a signing CA certificate needs its key (SigningCAKey)")
    rotation = RootRotation(
        ca_cert=new.cert_pem.decode(), ca_key=new.key_pem.decode(), cross_signed=new.cross_sign(old).decode()
    )
    return msgspec.structs.replace(followed, root_rotation=rotation)


def signing_ca(config: CAConfig) -> RootCA:
    """The root that a person gives, with its key if that is given; InvalidArgument says what is wrong with it."""
    try:
        return RootCA.from_pem(config.signing_ca_cert.encode(), config.signing_ca_key.encode() or None)
    except ValueError as error:
        raise InvalidArgument(f"the signing CA cannot be used: {error}") from None


def unconverted(cluster: Cluster, nodes: Iterable[Node]) -> list[Node]:
    """The nodes that a rotation waits for: those that are not down and show no certificate of the new root."""
    if cluster.root_rotation is None:
        return []
    issuer = _root(cluster.root_rotation.ca_cert).tls_info()
    return [
        node
        for node in nodes
        if node.status.state is not NodeState.DOWN
        and node.description.tls_info.cert_issuer_public_key != issuer.cert_issuer_public_key
    ]


def finished(cluster: Cluster, clock: Clock) -> Cluster:
    """The cluster with the new root alone, and the next rotation begun if one was asked for meanwhile."""
    rotation = cluster.root_rotation
    assert rotation is not None
    alone = msgspec.structs.replace(cluster, ca_cert=rotation.ca_cert, ca_key=rotation.ca_key, root_rotation=None)
    return with_rotation(alone, clock)


class RootRotations(ControlLoop):
    """Begins rotations that the spec asks for and finishes those that every node has followed."""

    kinds: ClassVar[tuple[type, ...]] = (Node, Cluster)
    quiet: ClassVar[float] = 0.05
    longest: ClassVar[float] = 1.0

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._refused: CAConfig | None = None
        """What of a spec cannot be followed, and was said to be so."""

    async def load(self) -> None:
        """Nothing is kept: the whole state is one object, and whether every node follows it."""

    def observe(self, commit: Commit) -> None:
        """Nothing is kept."""

    async def act(self) -> int | None:
        if self.store.view(self._has_work):
            try:
                await self.store.update(self._advance)
            except InvalidArgument as error:
                config = self.store.view(lambda tx: tx.all(Cluster))[0].spec.ca_config
                if config != self._refused:
                    self._refused = config
                    log.warning("the root certificate is not rotated: %s", error)
        return None

    def _has_work(self, tx: ReadTx) -> bool:
        return any(
            not unconverted(cluster, tx.all(Node)) if cluster.root_rotation is not None else asks_for_rotation(cluster)
            for cluster in tx.all(Cluster)
        )

    def _advance(self, tx: WriteTx) -> None:
        for cluster in tx.all(Cluster):
            if cluster.root_rotation is None:
                changed = with_rotation(cluster, self.clock)
            elif unconverted(cluster, tx.all(Node)):
                continue
            else:
                changed = finished(cluster, self.clock)
                log.info(
                    "the root certificate is rotated: every node that is not down has a certificate of the new one"
                )
            if changed != cluster:
                tx.update(changed)


def asks_for_rotation(cluster: Cluster) -> bool:
    """Whether the spec names another root than the cluster has."""
    config = cluster.spec.ca_config
    if not cluster.ca_key:
        return False
    return config.force_rotate != cluster.last_forced_rotation or (
        bool(config.signing_ca_cert) and config.signing_ca_cert.strip() != cluster.ca_cert.strip()
    )


@lru_cache(maxsize=4)
def _root(certificate: str) -> RootCA:
    return RootCA.from_pem(certificate.encode())

"""The cluster's certificate authority, read from the store: who signs now, and whom nodes trust.

While the root is rotated the new one signs, and nodes trust both. A certificate then comes with the cross-signed one of
its issuer, so that a node that knows only the old root trusts it too.
"""

from __future__ import annotations

from functools import lru_cache

from agent.api_types.errors import Unavailable
from agent.api_types.node import NodeRole
from agent.api_types.swarm import Cluster
from agent.api_types.times import Clock
from agent.pki.root import DEFAULT_EXPIRY, RootCA
from agent.store.transactions import ReadTx


def the_cluster(tx: ReadTx) -> Cluster:
    """The cluster; Unavailable before it is set up."""
    clusters = tx.all(Cluster)
    if not clusters:
        raise Unavailable("the cluster is not set up yet; try again in a moment")
    return clusters[0]


def signer_pem(cluster: Cluster) -> tuple[str, str]:
    """Certificate and key (PEM; the key may be empty) of the root that new certificates are of."""
    rotation = cluster.root_rotation
    return (cluster.ca_cert, cluster.ca_key) if rotation is None else (rotation.ca_cert, rotation.ca_key)


def signer(cluster: Cluster) -> RootCA:
    """The root that signs; Unavailable when its key is not here."""
    certificate, key = signer_pem(cluster)
    if not key:
        raise Unavailable("this manager does not hold the key of the cluster's certificate authority; ask another one")
    return _root(certificate, key)


def trusted_roots(cluster: Cluster) -> bytes:
    """The roots that nodes are to trust, PEM: one, or the old one and the new one."""
    rotation = cluster.root_rotation
    return (cluster.ca_cert if rotation is None else cluster.ca_cert + rotation.ca_cert).encode()


def issuer_digest(cluster: Cluster) -> str:
    """The digest (sha256, hex) of the root that signs; empty while there is none."""
    certificate, _ = signer_pem(cluster)
    return _digest(certificate) if certificate else ""


def issue(cluster: Cluster, request: bytes, node_id: str, role: NodeRole, clock: Clock) -> bytes:
    """A node's certificate, PEM, with its issuer's cross-signed one behind it while the root is rotated.

    InvalidArgument names what is wrong with the request, Unavailable says that the key is not here.
    """
    certificate = signer(cluster).sign(
        request,
        node_id,
        role,
        cluster_id=cluster.id,
        clock=clock,
        expiry=cluster.spec.ca_config.node_cert_expiry or DEFAULT_EXPIRY,
    )
    rotation = cluster.root_rotation
    return certificate if rotation is None else certificate + rotation.cross_signed.encode()


@lru_cache(maxsize=4)
def _root(certificate: str, key: str) -> RootCA:
    return RootCA.from_pem(certificate.encode(), key.encode())


@lru_cache(maxsize=4)
def _digest(certificate: str) -> str:
    return RootCA.from_pem(certificate.encode()).digest.hex()

"""The cluster's certificate authority: one self-signed root that signs the nodes' certificates."""

from __future__ import annotations

from agent.api_types.common import TLSInfo
from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import Clock

DEFAULT_EXPIRY = 90 * DAY
"""Life of a node certificate in nanoseconds, Docker's default."""


class RootCA:
    """The root certificate, with its key on managers (`key_pem` is None elsewhere). Immutable.

    The repr shows the digest alone.
    """

    cert_pem: bytes
    key_pem: bytes | None

    @classmethod
    def create(cls, clock: Clock) -> RootCA:
        """A new root: ECDSA P-256, CN swarm-ca, valid for 20 years, backdated by an hour."""
        raise NotImplementedError

    @classmethod
    def from_pem(cls, cert_pem: bytes, key_pem: bytes | None = None) -> RootCA:
        """The root as stored; ValueError (which never shows the key) when damaged or when key and certificate differ."""
        raise NotImplementedError

    @property
    def digest(self) -> bytes:
        """sha256 of the certificate's DER form: what a join token carries, and what `openssl x509 -fingerprint` shows."""
        raise NotImplementedError

    def sign(
        self,
        request_pem: bytes,
        node_id: str,
        role: NodeRole,
        *,
        cluster_id: str,
        clock: Clock,
        expiry: int = DEFAULT_EXPIRY,
    ) -> bytes:
        """A node's certificate, PEM: CN node id, OU swarm-manager or swarm-worker, O cluster id.

        Only the request's public key counts (it must be ECDSA P-256 and have signed the request). Valid from an hour ago
        for `expiry` nanoseconds from now, never longer than the root. InvalidArgument names what is wrong with the request.
        """
        raise NotImplementedError

    def tls_info(self) -> TLSInfo:
        """As `docker swarm inspect` shows it."""
        raise NotImplementedError

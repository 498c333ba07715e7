"""A node's own key and certificate, in memory and in its folder."""

from __future__ import annotations

from pathlib import Path

from agent.api_types.common import TLSInfo
from agent.api_types.node import NodeRole


class IdentityMissing(Exception):
    """The folder holds no identity: the node has not joined, or left."""


class IdentityDamaged(Exception):
    """There are files of an identity but they cannot be used; the text names file and reason."""


class NodeKey:
    """A private key before there is a certificate for it. The repr shows nothing of it."""

    pem: bytes

    @classmethod
    def create(cls) -> NodeKey:
        """A new ECDSA P-256 key."""
        raise NotImplementedError

    def request(self) -> bytes:
        """A certificate request (PEM) for `RootCA.sign`."""
        raise NotImplementedError


class NodeIdentity:
    """Key, certificate and the root that the node trusts. Immutable; compared by identity. The repr shows id and role."""

    node_id: str
    role: NodeRole
    cluster_id: str
    certificate_pem: bytes
    key_pem: bytes
    root_pem: bytes
    not_before: int
    not_after: int

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes, root_pem: bytes) -> NodeIdentity:
        """From PEM texts; ValueError (which never shows the key) says what does not fit."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> NodeIdentity:
        """The identity saved in `folder`; IdentityMissing or IdentityDamaged. Blocks on the disk for a moment."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write it to `folder` (0700, files 0600), whole or not at all, on the disk when this returns."""
        raise NotImplementedError

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the identity: the node left the cluster."""
        raise NotImplementedError

    def tls_info(self) -> TLSInfo:
        """As `docker node inspect` shows it."""
        raise NotImplementedError

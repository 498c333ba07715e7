"""A node's own key and certificate, in memory and in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from agent.api_types.common import TLSInfo
from agent.api_types.node import NodeRole
from agent.pki.certificates import facts_of, tls_info
from agent.pki.folder import (
    IdentityDamaged,
    IdentityMissing,
    read_document,
    remove_secret,
    write_document,
)
from agent.pki.root import private_pem, read_private_key, root_digest
from agent.pki.sealing import Locked, Sealing, is_locked

__all__ = ["IDENTITY_FILE", "IdentityDamaged", "IdentityMissing", "NodeIdentity", "NodeKey"]

IDENTITY_FILE = "identity.json"
FORMAT = 1
"""Number of the file's format. One file, so that key, certificate and root always belong together."""


class NodeKey:
    """A private key before there is a certificate for it. The repr shows nothing of it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.pem: bytes = private_pem(key)

    def __repr__(self) -> str:
        return "NodeKey(...)"

    @classmethod
    def create(cls) -> NodeKey:
        """A new ECDSA P-256 key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def request(self) -> bytes:
        """A certificate request (PEM) for `RootCA.sign`. Its subject is empty: the manager names the node."""
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, hashes.SHA256())
        return request.public_bytes(Encoding.PEM)


class NodeIdentity:
    """Key, certificate and the roots that the node trusts. Immutable; compared by identity.

    `certificate_pem` may hold, behind the node's own, the cross-signed one of its issuer: others are shown both.
    `not_before` and `not_after` are nanoseconds since the epoch. `issuer` is the digest (sha256, hex) of the root that
    signed, as in `NodeUpdate`; empty when that one is not among the roots yet. The repr shows id and role.
    """

    def __init__(
        self, chain: list[x509.Certificate], key: ec.EllipticCurvePrivateKey, roots: list[x509.Certificate]
    ) -> None:
        certificate = chain[0]
        facts = facts_of(certificate)
        if certificate.public_key() != key.public_key():
            raise ValueError("the key is not that of the certificate")
        self._issuer = _issuer(chain, roots)
        self.issuer: str = root_digest(self._issuer).hex() if self._issuer in roots else ""
        self.node_id: str = facts.node_id
        self.role: NodeRole = facts.role
        self.cluster_id: str = facts.cluster_id
        self.not_before: int = facts.not_before
        self.not_after: int = facts.not_after
        self.certificate_pem: bytes = b"".join(link.public_bytes(Encoding.PEM) for link in chain)
        self.key_pem: bytes = private_pem(key)
        self.root_pem: bytes = b"".join(root.public_bytes(Encoding.PEM) for root in roots)

    def __repr__(self) -> str:
        return f"NodeIdentity(node_id={self.node_id!r}, role={self.role.value!r}, cluster_id={self.cluster_id!r})"

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes, root_pem: bytes) -> NodeIdentity:
        """From PEM texts; ValueError (which never shows the key) says what does not fit.

        `root_pem` may hold several roots, as while the root is being rotated; the certificate must be signed by one.
        """
        try:
            chain = x509.load_pem_x509_certificates(certificate_pem)
            roots = x509.load_pem_x509_certificates(root_pem)
        except ValueError:
            raise ValueError("the certificate or the root certificate is damaged") from None
        return cls(chain, read_private_key(key_pem), roots)

    def with_roots(self, root_pem: bytes) -> NodeIdentity:
        """The same, trusting other roots; ValueError when none of them leads to its certificate, which is then to be
        renewed first.
        """
        return NodeIdentity.from_pem(self.certificate_pem, self.key_pem, root_pem)

    @classmethod
    def load(cls, folder: Path, unlock_key: str | None = None) -> NodeIdentity:
        """The identity saved in `folder`; IdentityMissing or IdentityDamaged. Blocks on the disk for a moment.

        While auto-lock is on, the unlock key is needed: Locked without one, InvalidUnlockKey with a wrong one. An expired
        certificate is not damage: it is refused where it is used.
        """
        path = folder / IDENTITY_FILE
        content = read_document(path)
        if content.get("format") != FORMAT:
            raise IdentityDamaged(path, f"its format is {content.get('format')!r}; this agent knows {FORMAT}")
        if "sealed_key" in content:
            content["key"] = _unseal(folder, content["sealed_key"], unlock_key)
        parts = [content.get(name) for name in ("certificate", "key", "root")]
        if not all(isinstance(part, str) for part in parts):
            raise IdentityDamaged(path, "certificate, key or root is missing in it")
        try:
            return cls.from_pem(*(str(part).encode() for part in parts))
        except ValueError as error:
            raise IdentityDamaged(path, str(error)) from None

    def save(self, folder: Path, sealing: Sealing | None = None) -> None:
        """Write it to `folder` (0700, file 0600), whole or not at all, on the disk when this returns.

        With `sealing`, which must be that of the same folder, the private key is as secret as the data keys: auto-lock
        covers it. Locked rather than leaving a manager's key plain beside data keys that are locked.
        """
        content: dict[str, Any] = {
            "format": FORMAT,
            "certificate": self.certificate_pem.decode(),
            "root": self.root_pem.decode(),
        }
        if sealing is not None:
            if sealing.folder != folder:
                raise ValueError(f"the data keys are in {sealing.folder}, the identity is to be saved in {folder}")
            content["sealed_key"] = sealing.seal_identity(self.key_pem)
        elif self.role is NodeRole.MANAGER and is_locked(folder):
            raise Locked(f"{folder / IDENTITY_FILE} would hold the private key in plain: auto-lock is on")
        else:
            content["key"] = self.key_pem.decode()
        write_document(folder / IDENTITY_FILE, content)

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the identity: the node left the cluster. Nothing happens when there is none."""
        remove_secret(folder / IDENTITY_FILE)

    def tls_info(self) -> TLSInfo:
        """As `docker node inspect` shows it."""
        return tls_info(self.root_pem, self._issuer)


def _issuer(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> x509.Certificate:
    """Who signed the first certificate of the chain: one of the roots, or one that a root vouches for."""
    certificate, *others = chain
    for root in roots:
        if _signed(certificate, root):
            return root
    for link in others:
        if _signed(certificate, link) and any(_signed(link, root) for root in roots):
            return link
    raise ValueError("the certificate is not signed by the root certificate")


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _unseal(folder: Path, sealed: object, unlock_key: str | None) -> str:
    path = folder / IDENTITY_FILE
    try:
        sealing = Sealing.load(folder, unlock_key)
    except IdentityMissing:
        raise IdentityDamaged(path, "its private key is sealed, and the data keys beside it are gone") from None
    if not isinstance(sealed, dict):
        raise IdentityDamaged(path, "its sealed private key cannot be read")
    try:
        return sealing.open_identity(sealed).decode()
    except ValueError as error:
        raise IdentityDamaged(path, str(error)) from None

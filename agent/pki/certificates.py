"""What a node certificate says: whose it is, what the node may do, in which cluster, and for how long.

The subject is SwarmKit's (ca/certificates.go): CN the node's id, OU its role, O the cluster's id.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from agent.api_types.common import TLSInfo
from agent.api_types.node import NodeRole
from agent.api_types.times import SECOND

BACKDATE = 3600 * SECOND
"""Certificates begin an hour before they are signed, for nodes whose clock is behind."""

UNIT_OF_ROLE = {NodeRole.MANAGER: "swarm-manager", NodeRole.WORKER: "swarm-worker"}
_ROLE_OF_UNIT = {unit: role for role, unit in UNIT_OF_ROLE.items()}


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A node certificate, read. Times in nanoseconds since the epoch."""

    node_id: str
    role: NodeRole
    cluster_id: str
    not_before: int
    not_after: int


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """Whose certificate it is; ValueError when it is not a node's. Says nothing about who signed it."""
    unit = _name(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    role = _ROLE_OF_UNIT.get(unit)
    if role is None:
        raise ValueError(f"its organizational unit {unit!r} is no role of a node")
    return CertificateFacts(
        node_id=_name(certificate, NameOID.COMMON_NAME),
        role=role,
        cluster_id=_name(certificate, NameOID.ORGANIZATION_NAME),
        not_before=nanoseconds(certificate.not_valid_before_utc),
        not_after=nanoseconds(certificate.not_valid_after_utc),
    )


@lru_cache(maxsize=4096)
def facts_of_der(der: bytes) -> CertificateFacts:
    """The same from DER, as TLS hands it over. A node that comes back shows what it showed before."""
    return facts_of(x509.load_der_x509_certificate(der))


def nanoseconds(moment: datetime) -> int:
    """A certificate's time (whole seconds) as nanoseconds since the epoch."""
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND


def moment_of(ns: int) -> datetime:
    """Nanoseconds since the epoch as a certificate's time; the part below a second is cut off."""
    return datetime.fromtimestamp(ns // SECOND, tz=UTC)


def is_p256(key: object) -> bool:
    """Whether `key` is the one kind of key in use here: ECDSA on P-256."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def tls_info(trust_root_pem: bytes, issuer: x509.Certificate) -> TLSInfo:
    """How node and swarm inspect show a trust root: PEM, subject and public key of the issuer as base64 of their DER."""
    public = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TLSInfo(
        trust_root=trust_root_pem.decode(),
        cert_issuer_subject=base64.b64encode(issuer.subject.public_bytes()).decode(),
        cert_issuer_public_key=base64.b64encode(public).decode(),
    )


def _name(certificate: x509.Certificate, oid: ObjectIdentifier) -> str:
    attributes = certificate.subject.get_attributes_for_oid(oid)
    if len(attributes) != 1 or not isinstance(attributes[0].value, str) or not attributes[0].value:
        raise ValueError(f"its subject {certificate.subject.rfc4514_string()!r} is not that of a node")
    return attributes[0].value

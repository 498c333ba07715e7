"""The cluster's certificate authority: one self-signed root that signs the nodes' certificates."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.api_types.common import TLSInfo
from agent.api_types.errors import InvalidArgument
from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import Clock
from agent.pki.certificates import BACKDATE, UNIT_OF_ROLE, is_p256, moment_of, tls_info

DEFAULT_EXPIRY = 90 * DAY
"""Life of a node certificate in nanoseconds, Docker's default."""
ROOT_LIFE = timedelta(days=20 * 365)
"""Life of a root, SwarmKit's figure (ca/certificates.go)."""
ROOT_NAME = "swarm-ca"
_MAX_REQUEST = 16 * 1024
_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
)
"""What the parser raises for bytes that are not what they should be."""


class RootCA:
    """The root certificate, with its key on managers (`key_pem` is None elsewhere). Immutable.

    The repr shows the digest alone.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> None:
        self._certificate = certificate
        self._key = key
        self.cert_pem: bytes = certificate.public_bytes(Encoding.PEM)
        self.key_pem: bytes | None = private_pem(key) if key else None

    def __repr__(self) -> str:
        return f"RootCA(digest={self.digest.hex()[:16]}..., {'with' if self._key else 'without'} key)"

    @classmethod
    def create(cls, clock: Clock) -> RootCA:
        """A new root: ECDSA P-256, CN swarm-ca, valid for 20 years, backdated by an hour."""
        now = clock()
        key = ec.generate_private_key(ec.SECP256R1())
        # A PrintableString as in every recorded CertIssuerSubject; the library's own choice would be UTF8String.
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME, _type=_ASN1Type.PrintableString)
        name = x509.Name([common_name])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment_of(now - BACKDATE))
            .not_valid_after(moment_of(now) + ROOT_LIFE)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def from_pem(cls, cert_pem: bytes, key_pem: bytes | None = None) -> RootCA:
        """The root as stored; ValueError (which never shows the key) when damaged or when key and certificate differ."""
        certificate = read_root(cert_pem)
        if not key_pem:
            return cls(certificate, None)
        key = read_private_key(key_pem)
        if key.public_key() != certificate.public_key():
            raise ValueError("the key is not that of the root certificate")
        return cls(certificate, key)

    @property
    def digest(self) -> bytes:
        """sha256 of the certificate's DER form: what a join token carries, and what `openssl x509 -fingerprint` shows."""
        return root_digest(self._certificate)

    @property
    def can_sign(self) -> bool:
        """Whether the key is here."""
        return self._key is not None

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
        if self._key is None:
            raise ValueError("this root has no key here: only managers sign certificates")
        public_key = _requested_key(request_pem)
        now = clock()
        until: datetime = min(moment_of(now + expiry), self._certificate.not_valid_after_utc)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT_OF_ROLE[role]),
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment_of(now - BACKDATE))
            .not_valid_after(until)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_id(self._certificate)),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def cross_sign(self, old: RootCA) -> bytes:
        """This root's name and key in a certificate that `old` signed, PEM.

        Behind a node's certificate of this root (leaf first) it lets nodes that know only `old` trust that one.
        InvalidArgument when `old` may not sign for another authority.
        """
        if old._key is None:
            raise ValueError("the old root has no key here: only managers sign certificates")
        constraints = old._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.path_length == 0:
            raise InvalidArgument(
                "the cluster's root certificate may sign certificates of nodes only (its path length is 0), so no other "
                "root can take its place while nodes are connected"
            )
        public_key = self._certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._certificate.subject)
            .issuer_name(old._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(self._certificate.not_valid_before_utc, old._certificate.not_valid_before_utc))
            .not_valid_after(min(self._certificate.not_valid_after_utc, old._certificate.not_valid_after_utc))
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            # Both roots have the same name: only these two say which key signed what.
            .add_extension(x509.SubjectKeyIdentifier(_key_id(self._certificate).digest), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_id(old._certificate)),
                critical=False,
            )
            .sign(old._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def tls_info(self) -> TLSInfo:
        """As `docker swarm inspect` shows it."""
        return tls_info(self.cert_pem, self._certificate)


def read_root(pem: bytes) -> x509.Certificate:
    """One self-signed certificate of a CA; ValueError says what it is not."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        if len(certificates) != 1:
            raise ValueError(f"{len(certificates)} certificates where one root was expected")
        certificate = certificates[0]
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except _UNREADABLE as error:
        raise ValueError(f"not a root certificate: {error or type(error).__name__}") from None
    if not constraints.ca or not is_p256(certificate.public_key()):
        raise ValueError("not a root certificate: it may not sign, or its key is not ECDSA P-256")
    return certificate


def _key_id(root: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def root_digest(certificate: x509.Certificate) -> bytes:
    """sha256 (32 bytes) of the DER form."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def read_private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """An ECDSA P-256 key; the ValueError shows nothing of it."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the private key is damaged or locked with a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_p256(key.public_key()):
        raise ValueError("the private key is not ECDSA P-256")
    return key


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PKCS #8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    if len(request_pem) > _MAX_REQUEST:
        raise InvalidArgument(f"the certificate request has {len(request_pem)} bytes; {_MAX_REQUEST} are allowed")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except _UNREADABLE:
        raise InvalidArgument("the certificate request cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_p256(key):
        raise InvalidArgument("the certificate request's key is not ECDSA P-256")
    if not signed:
        raise InvalidArgument("the certificate request is not signed by its own key")
    return key


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

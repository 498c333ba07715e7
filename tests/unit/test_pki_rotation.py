"""While the cluster's root is replaced: the cross-signed certificate, several roots, who trusts whom."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from agent.api_types.errors import InvalidArgument
from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA, private_pem

OLD = RootCA.create(now_ns)
NEW = RootCA.create(now_ns)
BRIDGE = NEW.cross_sign(OLD)


def signed(root: RootCA, key: NodeKey, roots: bytes, *, behind: bytes = b"") -> NodeIdentity:
    leaf = root.sign(key.request(), "node1", NodeRole.WORKER, cluster_id="cluster1", clock=now_ns)
    return NodeIdentity.from_pem(leaf + behind, key.pem, roots)


def verify(folder: Path, *, trusted: bytes, behind: bytes, leaf: bytes) -> str:
    """OpenSSL's own verdict, by its strict rules; empty when it finds the chain good."""
    for name, data in (("trusted", trusted), ("behind", behind), ("leaf", leaf)):
        (folder / name).write_bytes(data)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "trusted")]
    if behind:
        command += ["-untrusted", str(folder / "behind")]
    done = subprocess.run([*command, str(folder / "leaf")], capture_output=True, text=True, check=False)
    return done.stderr


def test_the_bridge_leads_from_the_new_root_to_the_old_one(tmp_path: Path) -> None:
    leaf = signed(NEW, NodeKey.create(), NEW.cert_pem).certificate_pem
    assert verify(tmp_path, trusted=OLD.cert_pem, behind=BRIDGE, leaf=leaf) == ""
    assert verify(tmp_path, trusted=NEW.cert_pem, behind=BRIDGE, leaf=leaf) == ""
    assert verify(tmp_path, trusted=OLD.cert_pem + NEW.cert_pem, behind=BRIDGE, leaf=leaf) == ""
    assert verify(tmp_path, trusted=OLD.cert_pem, behind=b"", leaf=leaf) != ""
    bridge = x509.load_pem_x509_certificate(BRIDGE)
    assert bridge.public_key() == x509.load_pem_x509_certificate(NEW.cert_pem).public_key()
    old = x509.load_pem_x509_certificate(OLD.cert_pem)
    assert bridge.not_valid_after_utc <= old.not_valid_after_utc


def test_who_may_cross_sign() -> None:
    with pytest.raises(ValueError, match="no key here"):
        NEW.cross_sign(RootCA.from_pem(OLD.cert_pem))
    # The new one's key is not needed.
    assert RootCA.from_pem(NEW.cert_pem).cross_sign(OLD)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a person's own")])
    old = x509.load_pem_x509_certificate(OLD.cert_pem)
    narrow = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    with pytest.raises(InvalidArgument, match="path length is 0"):
        NEW.cross_sign(RootCA.from_pem(narrow, private_pem(key)))


def test_the_issuer_is_the_root_that_signed(tmp_path: Path) -> None:
    both = OLD.cert_pem + NEW.cert_pem
    key = NodeKey.create()
    before, after = signed(OLD, key, both), signed(NEW, key, both, behind=BRIDGE)
    assert (before.issuer, after.issuer) == (OLD.digest.hex(), NEW.digest.hex())
    assert after.tls_info().trust_root == both.decode()
    assert after.tls_info().cert_issuer_public_key == NEW.tls_info().cert_issuer_public_key
    # A node that was not told of the new root yet.
    early = signed(NEW, key, OLD.cert_pem, behind=BRIDGE)
    assert early.issuer == ""
    assert early.tls_info().cert_issuer_public_key == NEW.tls_info().cert_issuer_public_key
    for identity in (before, after, early):
        identity.save(tmp_path)
        loaded = NodeIdentity.load(tmp_path)
        assert loaded.certificate_pem == identity.certificate_pem
        assert loaded.issuer == identity.issuer


def test_other_roots_for_the_same_certificate() -> None:
    both = OLD.cert_pem + NEW.cert_pem
    key = NodeKey.create()
    after = signed(NEW, key, both, behind=BRIDGE).with_roots(NEW.cert_pem)
    assert (after.root_pem, after.issuer, after.key_pem) == (NEW.cert_pem, NEW.digest.hex(), key.pem)
    with pytest.raises(ValueError, match="not signed by the root"):
        signed(OLD, key, both).with_roots(NEW.cert_pem)
    with pytest.raises(ValueError, match="damaged"):
        after.with_roots(b"nothing")


def test_a_strangers_bridge_is_none() -> None:
    other = RootCA.create(now_ns)
    with pytest.raises(ValueError, match="not signed by the root"):
        signed(NEW, NodeKey.create(), OLD.cert_pem, behind=NEW.cross_sign(other))
    with pytest.raises(ValueError, match="not signed by the root"):
        signed(other, NodeKey.create(), OLD.cert_pem, behind=BRIDGE)

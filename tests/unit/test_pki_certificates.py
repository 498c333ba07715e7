"""The certificate authority and the identities that it signs."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from agent.api_types.errors import InvalidArgument
from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import SECOND, now_ns, parse_time
from agent.pki.certificates import CertificateFacts, facts_of, facts_of_der, nanoseconds
from agent.pki.identity import IDENTITY_FILE, IdentityDamaged, IdentityMissing, NodeIdentity, NodeKey
from agent.pki.root import RootCA

NOW = parse_time("2026-11-21T09:24:38.702487902Z")
HOUR = 3600 * SECOND


def clock() -> int:
    return NOW


@pytest.fixture(scope="module")
def root() -> RootCA:
    return RootCA.create(clock)


def signed(root: RootCA, role: NodeRole = NodeRole.WORKER, **options: int) -> NodeIdentity:
    key = NodeKey.create()
    certificate = root.sign(key.request(), "node1", role, cluster_id="cluster1", clock=clock, **options)
    return NodeIdentity.from_pem(certificate, key.pem, root.cert_pem)


def test_the_root_is_as_recorded(root: RootCA) -> None:
    """Subject and kind of key as in the recorded TLSInfo; key usage, constraints and life as in its TrustRoot."""
    info = root.tls_info()
    assert info.cert_issuer_subject == "MBMxETAPBgNVBAMTCHN3YXJtLWNh"
    assert (
        base64.b64decode(info.cert_issuer_public_key)[:26]
        == base64.b64decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE5wrAlSO1Ah6L7as0YzMbWLc0vPtuxkw7q62tQfo/irEm")[:26]
    )
    assert info.trust_root == root.cert_pem.decode()
    certificate = x509.load_pem_x509_certificate(root.cert_pem)
    assert nanoseconds(certificate.not_valid_before_utc) == (NOW - HOUR) // SECOND * SECOND
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 20 * 365
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.digest == certificate.fingerprint(hashes.SHA256())


def test_a_node_certificate_says_who_and_for_how_long(root: RootCA) -> None:
    for role, unit in ((NodeRole.WORKER, "swarm-worker"), (NodeRole.MANAGER, "swarm-manager")):
        identity = signed(root, role)
        assert (identity.node_id, identity.role, identity.cluster_id) == ("node1", role, "cluster1")
        second = NOW // SECOND * SECOND
        assert (identity.not_before, identity.not_after) == (second - HOUR, second + 90 * DAY)
        certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
        assert certificate.subject.rfc4514_string() == f"CN=node1,OU={unit},O=cluster1"
        der = certificate.public_bytes(serialization.Encoding.DER)
        assert facts_of_der(der) == CertificateFacts("node1", role, "cluster1", second - HOUR, second + 90 * DAY)
        assert identity.tls_info() == root.tls_info()
    assert signed(root, expiry=HOUR).not_after == second + HOUR


def test_a_node_certificate_never_outlives_the_root(root: RootCA) -> None:
    last = nanoseconds(x509.load_pem_x509_certificate(root.cert_pem).not_valid_after_utc)
    assert signed(root, expiry=100 * 365 * DAY).not_after == last


def test_openssl_agrees(root: RootCA, tmp_path: Path) -> None:
    """An independent reader finds the chain good for both purposes, by its strict rules."""
    (tmp_path / "root.pem").write_bytes(root.cert_pem)
    (tmp_path / "node.pem").write_bytes(signed(root).certificate_pem)
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-no_check_time", "-purpose", purpose]
        done = subprocess.run(
            [*command, "-CAfile", str(tmp_path / "root.pem"), str(tmp_path / "node.pem")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_only_the_public_key_of_a_request_counts(root: RootCA) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "manager1")])
    extension = x509.BasicConstraints(ca=True, path_length=None)
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(extension, critical=True)
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    certificate = x509.load_pem_x509_certificate(
        root.sign(pem, "node1", NodeRole.WORKER, cluster_id="cluster1", clock=clock)
    )
    assert facts_of(certificate).node_id == "node1"
    assert facts_of(certificate).role is NodeRole.WORKER
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def request_with(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def test_bad_requests(root: RootCA) -> None:
    good = NodeKey.create().request()
    body = bytearray(base64.b64decode(b"".join(good.splitlines()[1:-1])))
    body[-1] ^= 1
    forged = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(body) + b"-----END CERTIFICATE REQUEST-----\n"
    )
    for pem, text in (
        (b"", "cannot be read"),
        (b"nonsense", "cannot be read"),
        (b"x" * 20_000, "has 20000 bytes; 16384 are allowed"),
        (request_with(rsa.generate_private_key(65537, 2048)), "key is not ECDSA P-256"),
        (request_with(ec.generate_private_key(ec.SECP384R1())), "key is not ECDSA P-256"),
        (forged, "cannot be read|not signed by its own key"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            root.sign(pem, "node1", NodeRole.WORKER, cluster_id="cluster1", clock=clock)


ROOT = RootCA.create(clock)
REQUEST = NodeKey.create().request()


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_damaged_request_is_refused_or_harmless(place: int, patch: bytes) -> None:
    """Whatever a stranger sends, the only error is the one with a text for it."""
    pem = bytearray(REQUEST)
    place %= len(pem)
    pem[place : place + len(patch)] = patch
    with contextlib.suppress(InvalidArgument):
        certificate = ROOT.sign(bytes(pem), "node1", NodeRole.WORKER, cluster_id="cluster1", clock=clock)
        assert facts_of(x509.load_pem_x509_certificate(certificate)).node_id == "node1"


def test_the_root_is_read_back(root: RootCA) -> None:
    again = RootCA.from_pem(root.cert_pem, root.key_pem)
    assert (again.cert_pem, again.key_pem, again.digest) == (root.cert_pem, root.key_pem, root.digest)
    without = RootCA.from_pem(root.cert_pem)
    assert without.key_pem is None
    assert not without.can_sign
    with pytest.raises(ValueError, match="only managers sign"):
        without.sign(NodeKey.create().request(), "n", NodeRole.WORKER, cluster_id="c", clock=clock)


def test_a_root_that_is_none(root: RootCA) -> None:
    other = RootCA.create(clock)
    for cert, key, text in (
        (b"", None, "not a root certificate"),
        (b"nonsense", None, "not a root certificate"),
        (root.cert_pem + other.cert_pem, None, "2 certificates where one root was expected"),
        (signed(root).certificate_pem, None, "not a root certificate"),
        (root.cert_pem, other.key_pem, "the key is not that of the root certificate"),
        (root.cert_pem, b"nonsense", "the private key is damaged"),
        (root.cert_pem[:-60], None, "not a root certificate"),
    ):
        with pytest.raises(ValueError, match=text) as caught:
            RootCA.from_pem(cert, key)
        assert "PRIVATE" not in str(caught.value)


def test_a_certificate_that_is_not_a_nodes(root: RootCA) -> None:
    with pytest.raises(ValueError, match="is not that of a node"):
        facts_of(x509.load_pem_x509_certificate(root.cert_pem))


def test_parts_that_do_not_belong_together(root: RootCA) -> None:
    identity, other = signed(root), signed(root)
    with pytest.raises(ValueError, match="the key is not that of the certificate"):
        NodeIdentity.from_pem(identity.certificate_pem, other.key_pem, root.cert_pem)
    with pytest.raises(ValueError, match="not signed by the root certificate"):
        NodeIdentity.from_pem(identity.certificate_pem, identity.key_pem, RootCA.create(clock).cert_pem)
    with pytest.raises(ValueError, match="is damaged"):
        NodeIdentity.from_pem(b"x", identity.key_pem, root.cert_pem)


def test_two_roots_while_one_is_being_replaced(root: RootCA) -> None:
    identity = signed(root)
    both = RootCA.create(clock).cert_pem + root.cert_pem
    again = NodeIdentity.from_pem(identity.certificate_pem, identity.key_pem, both)
    assert again.root_pem == both
    assert again.tls_info().cert_issuer_public_key == root.tls_info().cert_issuer_public_key


# -- on disk


def test_saved_and_loaded(root: RootCA, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "identity"
    identity = signed(root)
    identity.save(folder)
    identity.save(folder)
    loaded = NodeIdentity.load(folder)
    for name in ("node_id", "role", "cluster_id", "certificate_pem", "key_pem", "root_pem", "not_before", "not_after"):
        assert getattr(loaded, name) == getattr(identity, name)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [IDENTITY_FILE]
    assert (folder / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
    NodeIdentity.remove(folder)
    NodeIdentity.remove(folder)
    with pytest.raises(IdentityMissing, match=re.escape(str(folder / IDENTITY_FILE))):
        NodeIdentity.load(folder)
    with pytest.raises(IdentityMissing):
        NodeIdentity.load(tmp_path / "nowhere")


def test_a_draft_left_by_a_crash_is_no_identity(root: RootCA, tmp_path: Path) -> None:
    (tmp_path / f".{IDENTITY_FILE}.draft").write_bytes(b"half")
    with pytest.raises(IdentityMissing):
        NodeIdentity.load(tmp_path)
    signed(root).save(tmp_path)
    assert NodeIdentity.load(tmp_path).node_id == "node1"
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_FILE]


def test_a_save_that_fails_leaves_the_old_one(root: RootCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = signed(root)
    old.save(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            signed(root).save(tmp_path)
    assert NodeIdentity.load(tmp_path).certificate_pem == old.certificate_pem
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_FILE]


def loaded_or_text(folder: Path) -> NodeIdentity | str:
    try:
        return NodeIdentity.load(folder)
    except IdentityDamaged as error:
        return str(error)


def test_a_bit_flipped_or_the_end_cut_anywhere_is_damage(root: RootCA, tmp_path: Path) -> None:
    """Never another identity, never an unexpected error; the text names the file and shows nothing of it."""
    identity = signed(root)
    identity.save(tmp_path)
    path = tmp_path / IDENTITY_FILE
    whole = path.read_bytes()
    wrong = [whole[:end] for end in range(0, len(whole) - 2, 7)]
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        wrong.append(bytes(flipped))
    secret = b"".join(identity.key_pem.splitlines()[1:-1]).decode()[40:60]
    damaged = 0
    for content in wrong:
        path.write_bytes(content)
        loaded = loaded_or_text(tmp_path)
        if isinstance(loaded, str):
            damaged += 1
            assert str(path) in loaded
            assert secret not in loaded
        else:
            # White space between JSON's words may change.
            assert loaded.certificate_pem == identity.certificate_pem
            assert loaded.key_pem == identity.key_pem
    assert damaged > len(wrong) * 0.95


def test_what_cannot_be_read_is_damage(root: RootCA, tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).mkdir()
    with pytest.raises(IdentityDamaged, match="Is a directory"):
        NodeIdentity.load(tmp_path)


def test_secrets_are_not_shown(root: RootCA) -> None:
    identity = signed(root)
    key = NodeKey.create()
    shown = repr([root, identity, key, str(root), str(identity), str(key)])
    for pem in (root.key_pem, identity.key_pem, key.pem):
        assert pem is not None
        for line in pem.decode().splitlines():
            assert line not in shown


def test_the_real_clock_works_too() -> None:
    assert RootCA.create(now_ns).can_sign

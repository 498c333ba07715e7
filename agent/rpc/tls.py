"""TLS 1.3 between nodes: contexts from an identity, and OpenSSL's errors in plain words.

The chain of a certificate is OpenSSL's to check; its dates are checked in `hello` by the injected clock, after both sides
have told theirs: so both can say which certificate, by how much, and whether a clock is to blame.
"""

from __future__ import annotations

import os
import ssl
from weakref import WeakKeyDictionary

from agent.pki.identity import NodeIdentity

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""


_server_contexts: WeakKeyDictionary[NodeIdentity, ssl.SSLContext] = WeakKeyDictionary()
_client_contexts: WeakKeyDictionary[NodeIdentity, ssl.SSLContext] = WeakKeyDictionary()
"""A context costs as much as a handshake; it lives as long as its identity."""


def server_context(identity: NodeIdentity) -> ssl.SSLContext:
    """For the listener: a client certificate is asked for, and must be good when there is one."""
    context = _server_contexts.get(identity)
    if context is None:
        context = _server_contexts[identity] = _new_server_context(identity)
    return context


def _new_server_context(identity: NodeIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _only_tls13(context)
    # No session is resumed, so every connection shows a certificate anew.
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    _trust(context, identity.root_pem)
    _present(context, identity)
    return context


def client_context(identity: NodeIdentity) -> ssl.SSLContext:
    """For dialling as a node: both sides show certificates of one root. Names in them are checked in `hello`."""
    context = _client_contexts.get(identity)
    if context is None:
        context = joining_context(identity.root_pem)
        _present(context, identity)
        _client_contexts[identity] = context
    return context


def joining_context(root_pem: bytes | None) -> ssl.SSLContext:
    """For a newcomer, who has no certificate. Without a root anybody may answer: only for fetching the root itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _only_tls13(context)
    context.check_hostname = False
    if root_pem is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, root_pem)
    return context


def explain(error: ssl.SSLError) -> tuple[str, bool]:
    """What went wrong, as the end of a sentence that names the peer; and whether it was the peer who refused."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not signed by this cluster's certificate authority ({error.verify_message}): "
            "it belongs to another cluster, or the cluster was made anew; let one of the two leave and join again"
        ), False
    if reason in _ALERTS:
        return _ALERTS[reason], True
    if reason in _FAULTS:
        return _FAULTS[reason], False
    words = reason.lower().replace("_", " ") or str(error)
    return f"TLS failed: {words}", "ALERT" in reason


_OUR_CERTIFICATE = "let this node leave and join again"
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed this node's certificate: it belongs to another cluster; "
    + _OUR_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": f"it finds this node's certificate damaged; {_OUR_CERTIFICATE}",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": f"it finds this node's certificate made for something else; {_OUR_CERTIFICATE}",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"it says that this node's certificate was revoked; {_OUR_CERTIFICATE}",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it finds this node's certificate expired: compare the clocks of both nodes, "
    + _OUR_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"it does not accept this node's certificate; {_OUR_CERTIFICATE}",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not let this node in",
    "TLSV1_ALERT_DECRYPT_ERROR": f"it finds that this node's certificate and key do not fit; {_OUR_CERTIFICATE}",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a node certificate: join the cluster first",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak TLS 1.3: is this the port of an agent?",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no cipher or key type is known to both: is this the port of an agent?",
    "TLSV1_ALERT_INTERNAL_ERROR": "it had an internal error in TLS: its log may say more",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": "it got a TLS message that it did not expect: something changes the bytes between",
    "SSLV3_ALERT_BAD_RECORD_MAC": "it got damaged TLS records: something changes the bytes between the two nodes",
}
_FAULTS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is this the port of an agent?",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3: is this an agent?",
    "NO_SHARED_CIPHER": "no cipher is known to both: is this an agent?",
    "HTTP_REQUEST": "it sent plain HTTP: this port speaks TLS between agents",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a TLS record was damaged: something changes the bytes between the two nodes",
}


def _only_tls13(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3


def _trust(context: ssl.SSLContext, root_pem: bytes) -> None:
    context.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    context.load_verify_locations(cadata=root_pem.decode())


def _present(context: ssl.SSLContext, identity: NodeIdentity) -> None:
    """The ssl module reads keys from files alone; this one is in memory and is gone when the call returns."""
    fd = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(identity.key_pem + identity.certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)

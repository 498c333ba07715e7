"""ESP between hosts for encrypted networks: which keys for which pair (pure), and the kernel's messages for them (XFRM).

Encrypted networks have a VXLAN port of their own (`Site.port_of`). Two policies a host say that nothing to that port goes
out and nothing comes in but in ESP, whoever the other side is: without a key for a peer packets are dropped, never sent
plain, and networks that are not encrypted are not concerned. On the wire no port shows, only ESP.

A pair of hosts has one key a direction and generation, derived from the cluster's: two senders never share a counter of
AES-GCM. A host receives with every generation it knows and sends with one, so old and new keys work side by side. Replays
are not refused: the counter of a host that was restarted begins anew, and nobody tells its peers. Nonces do not repeat with
it: the kernel mixes each association's counter with 64 random bits of its own (crypto/seqiv.c).
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.network.overlay.netlink import Netlink, Request, attribute, attributes
from agent.rpc.messages import NetworkKeys

_NEWSA, _DELSA, _GETSA = 0x10, 0x11, 0x12
_NEWPOLICY, _DELPOLICY, _GETPOLICY, _UPDPOLICY = 0x13, 0x14, 0x15, 0x19
_TEMPLATE, _ALGORITHM = 5, 18
_ESP, _UDP, _TRANSPORT = socket.IPPROTO_ESP, socket.IPPROTO_UDP, 0
_IN, _OUT = 0, 1
REQUEST_ID = 0x73776D74
"""Marks what is ours of the kernel's policies and states."""

_CIPHER = b"rfc4106(gcm(aes))"
_KEY_LENGTH, _SALT_LENGTH, _TAG_BITS = 32, 4, 128
_FOREVER = struct.pack("=8Q", *((1 << 64) - 1,) * 4, 0, 0, 0, 0)
_SELECTOR = struct.Struct("=16s16sHHHHHBBB3xiI")
_STATE = struct.Struct("=56s16sIB3x16s64s32s12sIIHBBB7x")
_POLICY = struct.Struct("=56s64s32sIIBBBB4x")
_TEMPLATE_BODY = struct.Struct("=16sIB3xH2x16sIBBBxIII")
_STATE_ID = struct.Struct("=16sIHBx")
_POLICY_ID = struct.Struct("=56sIB3x")


@dataclass(frozen=True, slots=True, order=True)
class Association:
    """A security association: ESP from `source` to `target` with a number (SPI) and a key with its salt."""

    source: str
    target: str
    spi: int
    key: bytes = b""

    def __repr__(self) -> str:
        return f"Association({self.source} to {self.target}, spi={self.spi:#x})"


def associations(host: str, peers: Iterable[str], keys: NetworkKeys) -> frozenset[Association]:
    """What `host` needs to speak with its peers: every generation to receive, one to send."""
    made = set()
    for peer in peers:
        for key in keys.keys:
            made.add(_association(peer, host, key.generation, key.key))
            if key.generation == keys.sending:
                made.add(_association(host, peer, key.generation, key.key))
    return frozenset(made)


def _association(source: str, target: str, generation: int, secret: bytes) -> Association:
    name = f"swarmtui overlay {source} {target} {generation}".encode()
    # Numbers to 255 are reserved. The length is AES-256's key and GCM's salt.
    spi = int.from_bytes(hashlib.sha256(name).digest()[:4], "big") | 0x100
    key = HKDF(hashes.SHA256(), _KEY_LENGTH + _SALT_LENGTH, salt=None, info=name).derive(secret)
    return Association(source, target, spi, key)


class Encryption:
    """The kernel's policies and states that are ours, in one network namespace. Blocks, as `Netlink` does."""

    def __init__(self, netlink: Netlink, host: str, port: int) -> None:
        self._netlink = netlink
        self._host = host
        self._port = port

    def close(self) -> None:
        """Leaves everything in the kernel."""
        self._netlink.close()

    def bring(self, wanted: frozenset[Association] | None) -> str:
        """Bring the kernel to these associations, and to no policy with None; what failed in words, "" for nothing."""
        there = self.there()
        requests = []
        if wanted is not None:
            requests += [self._policy(direction) for direction in sorted({_IN, _OUT} - self._policies())]
        keyless = {Association(one.source, one.target, one.spi) for one in there}
        for one in sorted(wanted or (), key=lambda one: one.source == self._host):
            if Association(one.source, one.target, one.spi) not in keyless:
                requests.append(_state(one))
        kept = {Association(one.source, one.target, one.spi) for one in wanted or ()}
        # Those to send with go first: what peers still send with the old key is received to the last moment.
        for one in sorted(keyless - kept, key=lambda one: one.source != self._host):
            requests.append(_remove_state(one))
        if wanted is None:
            requests += [self._remove_policy(direction) for direction in sorted(self._policies())]
        refused = [refused for refused in self._netlink.send(requests) if requests[refused.position].kind != _DELSA]
        return f"this kernel cannot encrypt (ESP with AES-GCM): {refused[0]}" if refused else ""

    def there(self) -> frozenset[Association]:
        """Our associations in the kernel, without their keys."""
        found = set()
        for body in self._netlink.dump(Request(_GETSA, 0, b"")):
            _, target, spi, protocol, source, *_, request_id, family, _, _, _ = _STATE.unpack_from(body)
            if request_id == REQUEST_ID and protocol == _ESP and spi:
                found.add(Association(_text(source, family), _text(target, family), socket.ntohl(spi)))
        return frozenset(found)

    def _policies(self) -> set[int]:
        """Directions of our policies in the kernel."""
        found = set()
        for body in self._netlink.dump(Request(_GETPOLICY, 0, b"")):
            selector, _, _, _, _, direction, _, _, _ = _POLICY.unpack_from(body)
            template = attributes(body, _POLICY.size).get(_TEMPLATE, b"")
            if len(template) < _TEMPLATE_BODY.size or _TEMPLATE_BODY.unpack_from(template)[5] != REQUEST_ID:
                continue
            if selector == self._selector(direction):
                found.add(direction)
        return found

    def _selector(self, direction: int) -> bytes:
        address = ipaddress.ip_address(self._host)
        own, any_ = _padded(address.packed), bytes(16)
        family, length = _family(self._host), address.max_prefixlen
        target, source = (own, any_) if direction == _IN else (any_, own)
        lengths = (length, 0) if direction == _IN else (0, length)
        return _SELECTOR.pack(target, source, socket.htons(self._port), 0xFFFF, 0, 0, family, *lengths, _UDP, 0, 0)

    def _policy(self, direction: int) -> Request:
        body = _POLICY.pack(self._selector(direction), _FOREVER, bytes(32), 0, 0, direction, 0, 0, 0)
        everything = (1 << 32) - 1
        template = _TEMPLATE_BODY.pack(
            *(bytes(16), 0, _ESP, _family(self._host), bytes(16)),
            *(REQUEST_ID, _TRANSPORT, 0, 0, everything, everything, everything),
        )
        return Request(_UPDPOLICY, 0, body + attribute(_TEMPLATE, template))

    def _remove_policy(self, direction: int) -> Request:
        return Request(_DELPOLICY, 0, _POLICY_ID.pack(self._selector(direction), 0, direction))


def _state(one: Association) -> Request:
    body = _STATE.pack(
        *(bytes(_SELECTOR.size), _packed(one.target), socket.htonl(one.spi), _ESP, _packed(one.source)),
        *(_FOREVER, bytes(32), bytes(12), 0, REQUEST_ID, _family(one.target), _TRANSPORT, 0, 0),
    )
    algorithm = struct.pack("=64sII", _CIPHER, len(one.key) * 8, _TAG_BITS) + one.key
    return Request(_NEWSA, 0, body + attribute(_ALGORITHM, algorithm))


def _remove_state(one: Association) -> Request:
    return Request(_DELSA, 0, _STATE_ID.pack(_packed(one.target), socket.htonl(one.spi), _family(one.target), _ESP))


def _packed(address: str) -> bytes:
    return _padded(ipaddress.ip_address(address).packed)


def _padded(packed: bytes) -> bytes:
    return packed + bytes(16 - len(packed))


def _text(packed: bytes, family: int) -> str:
    return str(ipaddress.ip_address(packed[:4] if family == socket.AF_INET else packed))


def _family(address: str) -> int:
    return socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6

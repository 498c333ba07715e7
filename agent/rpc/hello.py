"""The first frame of each side, and whether the two nodes go together. Pure.

Nodes with clocks far apart are refused: logs could not be merged, and a certificate that one has just signed would not be
valid for the other yet. Texts name nodes by id, because both sides print them.
"""

from __future__ import annotations

import msgspec

from agent.api_types.times import SECOND, format_time
from agent.pki.certificates import CertificateFacts
from agent.rpc.errors import ProtocolViolation
from agent.rpc.peer import Purpose
from agent.rpc.protocols import SPOKEN, Protocols

MAX_CLOCK_DIFFERENCE = 55 * 60 * SECOND
"""Certificates are backdated by an hour; five minutes of it are left for what clocks drift while connected."""


class Hello(msgspec.Struct, frozen=True):
    """Who speaks. `clock` in nanoseconds since the epoch; `node_id` is empty without a certificate.

    `protocol` is the newest one that it speaks, `oldest` the oldest (0: it speaks `protocol` alone).
    """

    protocol: int
    node_id: str
    clock: int
    purpose: str
    oldest: int = 0

    @property
    def protocols(self) -> Protocols:
        """All that it speaks."""
        return _range(self.protocol, self.oldest)


class _Head(msgspec.Struct, frozen=True):
    """The only fields that mean the same in every protocol."""

    protocol: int
    oldest: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode = msgspec.msgpack.Decoder(Hello).decode


def encode_hello(hello: Hello) -> bytes:
    """A HELLO frame's body."""
    return _encode(hello)


def decode_hello(body: bytes, spoken: Protocols = SPOKEN) -> Hello:
    """The other side's hello; ProtocolViolation when it has no protocol in common with `spoken`."""
    try:
        head = _decode_head(body)
        theirs = _range(head.protocol, head.oldest)
        if theirs.oldest < 1 or theirs.oldest > theirs.newest:
            raise ProtocolViolation(f"a hello with the impossible {theirs}")
        if spoken.common(theirs) is None:
            older, newer = sorted((theirs, spoken), key=lambda each: each.newest)
            raise ProtocolViolation(
                f"the two agents have no protocol in common: one speaks {older}, the other {newer}; "
                "upgrade the agent that speaks the older"
            )
        hello = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolViolation(f"a hello that cannot be read: {error}") from None
    if hello.clock < 0:
        raise ProtocolViolation(f"a hello with the impossible clock {hello.clock}")
    if hello.purpose not in set(Purpose):
        raise ProtocolViolation(f"a hello with the unknown purpose {hello.purpose!r}")
    return hello


def objection(
    hello: Hello,
    certificate: CertificateFacts | None,
    *,
    node_id: str,
    cluster_id: str | None,
    now: int,
    difference: int,
) -> str | None:
    """Why the node that said `hello` and showed `certificate` does not go with `node_id`, or None when it does.

    `now` is our clock and `difference` the peer's clock minus ours, in nanoseconds; `cluster_id` None means any (a
    newcomer does not know it yet). The clocks come first: a wrong clock makes a good certificate look bad.
    """
    us = f"node {node_id}" if node_id else "the joining node"
    them = f"node {certificate.node_id}" if certificate else "the joining node"
    if abs(difference) >= MAX_CLOCK_DIFFERENCE:
        return (
            f"the clocks differ by {spell(abs(difference))}: {them} says {_date(now + difference)}, "
            f"{us} says {_date(now)}; set them (NTP) and try again"
        )
    if certificate is None:
        return None if hello.purpose == Purpose.JOIN else "this needs a node certificate: join the cluster first"
    if hello.node_id != certificate.node_id:
        return f"the hello is of node {hello.node_id}, the certificate of {them}"
    if cluster_id is not None and certificate.cluster_id != cluster_id:
        return f"{them} is part of cluster {certificate.cluster_id}, {us} of cluster {cluster_id}"
    if now >= certificate.not_after:
        return (
            f"the certificate of {them} expired on {_date(certificate.not_after)}, {spell(now - certificate.not_after)} "
            f"ago by the clock of {us}: let {them} leave the cluster and join again"
        )
    if now < certificate.not_before:
        return (
            f"the certificate of {them} is valid from {_date(certificate.not_before)}, in "
            f"{spell(certificate.not_before - now)} by the clock of {us}: set the clocks (NTP) and try again"
        )
    return None


def _range(newest: int, oldest: int) -> Protocols:
    return Protocols(oldest or newest, newest)


def spell(ns: int) -> str:
    """A duration for people, in its two largest units: `1 d 2 h`, `59 min 3 s`, `0.25 s`."""
    if ns < 10 * SECOND:
        return f"{ns / SECOND:.2f} s"
    rest = round(ns / SECOND)
    parts: list[str] = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def _date(ns: int) -> str:
    return format_time(ns)[:19] + "Z"

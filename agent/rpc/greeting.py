"""The exchange of hellos on a channel whose TLS handshake is done: who is there, and do we go together?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.api_types.node import NodeRole
from agent.api_types.times import Clock
from agent.pki.certificates import CertificateFacts, facts_of_der
from agent.pki.identity import NodeIdentity
from agent.rpc.channel import Channel
from agent.rpc.errors import ProtocolViolation, Refused, Removed
from agent.rpc.frames import Frame, FrameType, decode_text
from agent.rpc.hello import Hello, decode_hello, encode_hello, objection
from agent.rpc.peer import Peer, Purpose
from agent.rpc.protocols import SPOKEN, Protocols


@dataclass(frozen=True, slots=True)
class Removal:
    """A peer is not let in because it is no longer part of the cluster; it learns that as `Removed`, with this text."""

    text: str


async def greet_as_client(
    channel: Channel,
    identity: NodeIdentity | None,
    purpose: Purpose,
    *,
    clock: Clock,
    expect_node: str | None = None,
    expect_role: NodeRole | None = None,
    spoken: Protocols = SPOKEN,
) -> Peer:
    """Say hello, hear the other's, decide. Raises Refused or Unreachable; the other side has been told then."""
    node_id = identity.node_id if identity else ""
    sent = clock()
    channel.put(0, FrameType.HELLO, _hello(node_id, sent, purpose, spoken))
    frame = await channel.first_frame()
    received = clock()
    hello = _read(channel, frame, spoken)
    certificate = _certificate(channel)
    if certificate is None:
        raise _refuse(channel, "the listener showed no node certificate")
    # The other clock was read somewhere between sending and receiving.
    difference = hello.clock - (sent + received) // 2
    text = objection(
        hello,
        certificate,
        node_id=node_id,
        cluster_id=identity.cluster_id if identity else None,
        now=received,
        difference=difference,
    )
    if text is None and expect_node is not None and certificate.node_id != expect_node:
        text = f"node {certificate.node_id} answers where node {expect_node} was expected"
    if text is None and expect_role is not None and certificate.role is not expect_role:
        text = f"node {certificate.node_id} is a {certificate.role}, and only a {expect_role} will do"
    if text is not None:
        raise _refuse(channel, text)
    return Peer(certificate.node_id, certificate.role, channel.address, difference, _common(hello, spoken))


async def greet_as_server(
    channel: Channel,
    identity: NodeIdentity,
    *,
    clock: Clock,
    accept: Callable[[Peer, Purpose], str | Removal | None] | None = None,
    spoken: Protocols = SPOKEN,
    turn: Callable[[], Awaitable[None]] | None = None,
) -> tuple[Peer, Purpose]:
    """Hear a hello, decide, answer it. Raises as `greet_as_client`; a client without a certificate has no role.

    `turn` is waited for between hearing and deciding.
    """
    frame = await channel.first_frame()
    if turn is not None:
        await turn()
    now = clock()
    hello = _read(channel, frame, spoken)
    certificate = _certificate(channel)
    purpose = Purpose(hello.purpose)
    difference = hello.clock - now
    text = objection(
        hello, certificate, node_id=identity.node_id, cluster_id=identity.cluster_id, now=now, difference=difference
    )
    if text is not None:
        raise _refuse(channel, text)
    if certificate is None:
        peer = Peer("", None, channel.address, difference, _common(hello, spoken))
    else:
        peer = Peer(certificate.node_id, certificate.role, channel.address, difference, _common(hello, spoken))
        against = accept(peer, purpose) if accept is not None else None
        if isinstance(against, Removal):
            raise _refuse(channel, against.text, FrameType.REMOVED)
        if against is not None:
            raise _refuse(channel, against)
    channel.put(0, FrameType.HELLO, _hello(identity.node_id, clock(), purpose, spoken))
    return peer, purpose


def _hello(node_id: str, clock: int, purpose: Purpose, spoken: Protocols) -> bytes:
    return encode_hello(Hello(spoken.newest, node_id, clock, purpose, spoken.oldest))


def _common(hello: Hello, spoken: Protocols) -> int:
    common = spoken.common(hello.protocols)
    assert common is not None, "decode_hello saw to it"
    return common


def _read(channel: Channel, frame: Frame, spoken: Protocols) -> Hello:
    try:
        if frame.kind in (FrameType.REFUSE, FrameType.REMOVED):
            text = f"{channel.address} refused the connection: {decode_text(frame.body)}"
            refusal = (Removed if frame.kind is FrameType.REMOVED else Refused)(text, by_peer=True)
            channel.end(refusal)
            raise refusal
        if frame.kind is not FrameType.HELLO or frame.stream != 0:
            raise ProtocolViolation(f"a frame of type {frame.kind.name} before the hello")
        return decode_hello(frame.body, spoken)
    except ProtocolViolation as error:
        raise _refuse(channel, str(error)) from None


def _certificate(channel: Channel) -> CertificateFacts | None:
    der = channel.peer_certificate()
    if der is None:
        return None
    try:
        return facts_of_der(der)
    except (ValueError, TypeError) as error:
        raise _refuse(channel, f"the certificate is not that of a node: {error}") from None


def _refuse(channel: Channel, text: str, kind: FrameType = FrameType.REFUSE) -> Refused:
    """Tell the other side, end the channel; returns what to raise."""
    refusal = Refused(f"{channel.address}: {text}", by_peer=False)
    channel.end(refusal, kind, text)
    return refusal

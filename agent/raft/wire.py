"""What drivers say to each other: the core's messages, and a few of their own that no vote and no entry depends on."""

from __future__ import annotations

import msgspec

from agent.raft.core.messages import AnyMessage, Message
from agent.raft.core.snapshot_stream import SnapshotChunk


class Whereabouts(Message, frozen=True):
    """The sender's listener is at `address`, whatever the membership says: for members that do not know it yet."""

    address: str


class Knock(Message, frozen=True):
    """Am I still a member? Asked by one that hears no leader, or that its own log leaves out. `life` comes back."""

    address: str
    life: int


class Expelled(Message, frozen=True):
    """A leader's answer: by the committed membership at `index`, no."""

    life: int
    index: int


WireMessage = AnyMessage | Whereabouts | Knock | Expelled

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[WireMessage] = msgspec.msgpack.Decoder(WireMessage)
_chunk_decoder = msgspec.msgpack.Decoder(SnapshotChunk)


def encode(message: WireMessage | SnapshotChunk) -> bytes:
    """A message, or a chunk of a snapshot, for the transport."""
    return _encoder.encode(message)


def decode(data: bytes) -> WireMessage:
    """The reverse; raises msgspec.DecodeError for anything else."""
    return _decoder.decode(data)


def decode_chunk(data: bytes) -> SnapshotChunk:
    """A chunk of a snapshot; raises msgspec.DecodeError for anything else."""
    return _chunk_decoder.decode(data)

"""What can go wrong between two nodes. Every text says what happened, to whom, and what to do."""

from __future__ import annotations

import os
import socket


class RpcError(Exception):
    """Base of this room's errors; `str(error)` is for people."""


class Unreachable(RpcError):
    """Nobody answered at the address, or it went away before the connection stood: try again later, or elsewhere."""


class Refused(RpcError):
    """One of the two sides does not want the connection: trying again without a change leads nowhere.

    `by_peer` tells whether the other node refused us (True) or we refused it.
    """

    def __init__(self, text: str, *, by_peer: bool) -> None:
        super().__init__(text)
        self.by_peer = by_peer


class Removed(Refused):
    """A manager that leads says that our node is no longer part of the cluster."""


class ProtocolViolation(RpcError):
    """The other side sent what the protocol does not allow; the connection cannot go on."""


class StreamEnded(RpcError):
    """The other side is done in good order: nothing more will come."""


class StreamFailed(RpcError):
    """The stream broke: the other side failed it with this text, or the connection was lost."""


class ConnectionLost(StreamFailed):
    """The stream broke because its connection ended; the text says why."""


class ListenFailed(RpcError):
    """The listener's address cannot be had."""


def kernel_words(error: OSError) -> str:
    """The kernel's own words; asyncio puts longer ones in their place."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)

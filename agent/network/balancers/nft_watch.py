"""Notices when somebody else changes our nftables table: a firewall that reloads flushes all that it finds.

The kernel tells every change to who listens. What is heard while we change the table ourselves is our own; anything that
takes from the table at another time is not.
"""

from __future__ import annotations

import errno
import socket
import struct

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
DELETIONS = frozenset({2, 5, 8, 11, 14})
"""Messages that take away a table, chain, rule, set or element. Attribute 1 of each is the table's name."""

BUFFER = 1 << 20
"""Bytes: a change of 1,000 services tells some 5,000 messages at once."""


class NftWatch:
    """Listens in the network namespace of the thread that makes it. `fileno` is for the event loop."""

    def __init__(self, table: str) -> None:
        self._table = table.encode()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        return self._socket.fileno()

    def heard(self) -> set[int]:
        """Who (netlink ports) took something from our table since the last call; 0 stands for changes that were missed."""
        who: set[int] = set()
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return who
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                who.add(0)
                continue
            who |= takers(data, self._table)

    def close(self) -> None:
        self._socket.close()


def takers(data: bytes, table: bytes) -> set[int]:
    """The senders of those messages in a datagram that take something from the table."""
    who: set[int] = set()
    at = 0
    while at + 16 <= len(data):
        length, kind, _, _, sender = struct.unpack_from("=IHHII", data, at)
        if length < 16:
            break
        if kind >> 8 == NFNL_SUBSYS_NFTABLES and kind & 0xFF in DELETIONS:
            named = _first(data[at + 20 : at + length])
            if named == table:
                who.add(sender)
        at += (length + 3) & ~3
    return who


def _first(attributes: bytes) -> bytes:
    """The value of attribute 1, the table's name in all of these messages."""
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if length < 4:
            break
        if kind & 0x3FFF == 1:
            return attributes[at + 4 : at + length].rstrip(b"\0")
        at += (length + 3) & ~3
    return b""

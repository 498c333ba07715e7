"""Netlink by hand: sockets in any namespace, batches of requests in one call, dumps, and the kernel's own words for errors.

Why not pyroute2 for this room (measured with 0.9.7 on a busy machine of two cores): its asyncio side sends in the loop's
own thread, where the kernel removes a link in 23 to 103 ms, so the loop stands still for as long; a dump costs it 0.3 to
2 ms a link; to reach another namespace it forks the whole agent; 1,000 FDB entries take 764 ms one by one against 7 ms
here. A request is processed by the kernel within `send`, so calls here block and belong into a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROUTE, XFRM = 0, 6
REQUEST, MULTI, ACK, DUMP_INTERRUPTED = 0x1, 0x2, 0x4, 0x10
REPLACE, EXCLUSIVE, CREATE, DUMP = 0x100, 0x200, 0x400, 0x300
_CAPPED, _ACK_TLVS = 0x100, 0x200
_ERROR, _DONE, _OVERRUN = 2, 3, 4
_SOL_NETLINK, _EXT_ACK, _STRICT_CHECK = 270, 11, 12
_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR_CODE = struct.Struct("=i")
_EXT_ACK_TEXT = 1
_TYPE_MASK = 0x3FFF
BATCH = 100
"""Requests a call. Their answers must fit the socket's buffer: only failures and the last request are answered."""

_BUFFER = 1 << 20
_CHUNK = 1 << 16
_DUMP_TRIES = 20
_TIMEOUT = 10.0
"""Seconds to wait for an answer: the kernel has it before `send` returns, so a wait is a fault."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message without its header."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel refused the request at `position` of those sent: `code` is an errno, `text` its words, if any."""

    position: int
    code: int
    text: str

    def __str__(self) -> str:
        return self.text or os.strerror(self.code)


class NetlinkError(OSError):
    """A dump failed, or the kernel does not speak the protocol at all."""


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded to four bytes."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute with a zero-ended string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute with 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of a body from `offset` on; of two of one kind the later counts. A damaged tail is left out."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, flags, sequence, body) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            break
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def open_socket(protocol: int, netns: str = "", groups: int = 0) -> socket.socket:
    """A netlink socket in the namespace at the path `netns` ("" is the process's own). OSError says what is missing."""
    if not netns:
        return _bound(protocol, groups)
    # A thread is in a namespace by itself, so one is made for it and thrown away: no fork, and nobody else moves.
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def within() -> None:
        try:
            with open(netns, "rb") as place:
                if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
            made.append(_bound(protocol, groups))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=within, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _bound(protocol: int, groups: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        opened.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        opened.settimeout(_TIMEOUT)
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


class Netlink:
    """Requests to the kernel, one caller at a time."""

    def __init__(self, protocol: int, netns: str = "") -> None:
        self._socket = open_socket(protocol, netns)
        if protocol == ROUTE:
            # Dumps are filtered by the kernel. Older kernels refuse the option and send more, which is sorted out here.
            try:
                self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
        self._sequence = 0

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> list[Refused]:
        """Every request in turn, in batches; a refused one does not stop those after it. Those refused come back."""
        refused: list[Refused] = []
        for start in range(0, len(requests), BATCH):
            refused += self._batch(requests[start : start + BATCH], start)
        return refused

    def dump(self, request: Request) -> list[bytes]:
        """The bodies that answer a request for a table; again when the table changed under it."""
        for _ in range(_DUMP_TRIES):
            bodies = self._dump(request)
            if bodies is not None:
                return bodies
        raise NetlinkError(errno.EINTR, "the kernel's table changed all the time while it was read")

    def _batch(self, requests: Sequence[Request], start: int) -> list[Refused]:
        first = self._sequence + 1
        parts = []
        for request in requests:
            self._sequence += 1
            flags = REQUEST | request.flags | (ACK if request is requests[-1] else 0)
            parts.append(self._message(request, flags))
        self._socket.send(b"".join(parts))
        refused = []
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_CHUNK)):
                if kind != _ERROR or sequence < first:
                    continue
                (code,) = _ERROR_CODE.unpack_from(body)
                if code:
                    refused.append(Refused(start + sequence - first, -code, _words(body, flags)))
                if sequence == self._sequence:
                    return refused

    def _dump(self, request: Request) -> list[bytes] | None:
        self._sequence += 1
        self._socket.send(self._message(request, REQUEST | DUMP))
        bodies: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_CHUNK)):
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & DUMP_INTERRUPTED
                if kind in (_DONE, _ERROR):
                    code = _ERROR_CODE.unpack_from(body)[0] if len(body) >= 4 else 0
                    if code:
                        raise NetlinkError(-code, _words(body, flags) or os.strerror(-code))
                    return bodies if whole else None
                bodies.append(body)

    def _message(self, request: Request, flags: int) -> bytes:
        length = 16 + len(request.body)
        return _HEADER.pack(length, request.kind, flags, self._sequence, 0) + request.body + b"\0" * (-length % 4)


def _words(body: bytes, flags: int) -> str:
    """What the kernel says beside the number of an error."""
    if not flags & _ACK_TLVS:
        return ""
    echoed = struct.unpack_from("=I", body, 4)[0] if len(body) >= 8 else 0
    offset = 4 + (16 if flags & _CAPPED else (echoed + 3) & ~3)
    return attributes(body, offset).get(_EXT_ACK_TEXT, b"").rstrip(b"\0").decode(errors="replace")

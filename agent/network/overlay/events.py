"""What happens to the links of a network namespace, and to its encryption, told by the kernel."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Self

from agent.network.overlay.netlink import ROUTE, XFRM, messages, open_socket
from agent.network.overlay.picture import (
    DELADDR,
    DELLINK,
    NEWADDR,
    NEWLINK,
    parse_address_index,
    parse_event,
)

_LINKS, _IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x1, 0x10, 0x100
_STATES, _POLICIES = 0x4, 0x8
_LOSSES = frozenset({0x11, 0x14, 0x1C, 0x1D})
"""States or policies of XFRM deleted or flushed."""

_CHUNK = 1 << 16

Concerns = Callable[[str, int, int], bool]
"""(name, index, master) of a link to whether what happens to it matters; name and master are "" and 0 for an address."""


class Events:
    """Calls `stir` after messages of the socket that matter, `lost` when some were lost. A context manager, within a loop."""

    def __init__(
        self,
        opened: socket.socket,
        matters: Callable[[int, bytes], bool],
        stir: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._socket = opened
        self._matters = matters
        self._stir = stir
        self._lost = lost

    def __enter__(self) -> Self:
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        return self

    def __exit__(self, *failure: object) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        """One datagram a turn of the loop: a storm of events does not hold the others up."""
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # The kernel had more to tell than was read: anything may have happened.
            self._lost()
            return
        # Each of them is asked for: the caller takes note of which links they are about.
        told = [self._matters(kind, body) for kind, _, _, body in messages(data)]
        if any(told):
            self._stir()


def link_events(netns: str, concerns: Concerns, stir: Callable[[], None], lost: Callable[[], None]) -> Events:
    """Links and addresses that concern the caller. OSError: no such namespace."""

    def matters(kind: int, body: bytes) -> bool:
        if kind in (NEWLINK, DELLINK):
            return concerns(*parse_event(body))
        if kind in (NEWADDR, DELADDR):
            return concerns("", parse_address_index(body), 0)
        return False

    return Events(open_socket(ROUTE, netns, groups=_LINKS | _IPV4_ADDRESSES | _IPV6_ADDRESSES), matters, stir, lost)


def encryption_events(netns: str, stir: Callable[[], None]) -> Events:
    """Anything of XFRM that goes. OSError: the kernel has no XFRM."""
    return Events(open_socket(XFRM, netns, groups=_STATES | _POLICIES), lambda kind, _: kind in _LOSSES, stir, stir)

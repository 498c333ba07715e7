"""What happens to the links of a network namespace, told by the kernel."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Self

from agent.network.overlay.netlink import ROUTE, messages, open_socket
from agent.network.overlay.picture import (
    DELADDR,
    DELLINK,
    NEWADDR,
    NEWLINK,
    parse_address_index,
    parse_event,
)

_LINKS, _IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x1, 0x10, 0x100
_CHUNK = 1 << 16

Concerns = Callable[[str, int, int], bool]
"""(name, index, master) of a link to whether what happens to it matters; name and master are "" and 0 for an address."""


class Events:
    """Calls `stir` after events that concern the caller, and when events were lost. A context manager, within a loop."""

    def __init__(self, netns: str, concerns: Concerns, stir: Callable[[], None]) -> None:
        self._concerns = concerns
        self._stir = stir
        self._socket = open_socket(ROUTE, netns, groups=_LINKS | _IPV4_ADDRESSES | _IPV6_ADDRESSES)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
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
            self._stir()
            return
        if any(self._matters(kind, body) for kind, _, _, body in messages(data)):
            self._stir()

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind in (NEWLINK, DELLINK):
            return self._concerns(*parse_event(body))
        if kind in (NEWADDR, DELADDR):
            return self._concerns("", parse_address_index(body), 0)
        return False

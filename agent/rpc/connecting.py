"""A TCP connection in spite of a network that has just lost the first packet of it.

The kernel sends a first packet again after one, three, seven seconds: a node whose network comes back would be away for
seconds more. Further sockets to the same address, begun a moment apart, find out sooner; the first that stands is kept, and
the other side never hears of the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

BEGIN_AGAIN = 0.4
"""Seconds between two sockets."""

MOST_SOCKETS = 12
"""At once; an older one gives way, since the kernel asks for it less often than a new one does."""


async def connect_tcp(host: str, port: int, source: str | None) -> socket.socket:
    """A connected socket, non-blocking. OSError of the first socket whose end is sure; waits as long as nobody answers.

    `host` may have several addresses: each gets its turn when the one before it is refused. `source` is the local address.
    """
    try:
        # What is written in digits needs no thread that asks the resolver.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, _, _, _, address in found:
        try:
            return await _connect(family, address, source)
        except OSError as error:
            failure = error
    raise failure


async def _connect(family: int, address: tuple[object, ...], source: str | None) -> socket.socket:
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        while True:
            attempts.append(asyncio.ensure_future(_one(family, address, source)))
            if len(attempts) > MOST_SOCKETS:
                _give_up([attempts.pop(0)])
            done, _ = await asyncio.wait(attempts, timeout=BEGIN_AGAIN, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.remove(attempt)
                # Whether it stands or was refused: the others would fare alike.
                return attempt.result()
    finally:
        _give_up(attempts)


async def _one(family: int, address: tuple[object, ...], source: str | None) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if source is not None:
            made.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


def _give_up(attempts: Iterable[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
        attempt.add_done_callback(_close)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """One that came to stand all the same."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()

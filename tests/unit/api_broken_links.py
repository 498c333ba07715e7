"""Ways from a manager to its leader that go wrong, and what tests look at afterwards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from api_managers import Link, ManagerBackend, Managers, dial

from agent.api_types.service import Service
from agent.rpc.errors import Unreachable
from agent.store.store import Store

Way = Callable[[ManagerBackend, str], Awaitable[Link]]


def refused(times: int) -> Way:
    """Nobody answers the first few times."""
    left = [times]

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if left[0]:
            left[0] -= 1
            raise Unreachable("connection refused")
        return await dial(backend, caller)

    return way


def broken(times: int, *, deliver: bool, keep: int = 0) -> Way:
    """The first few exchanges break: after the leader did what was asked (`deliver`) or before it heard of it.

    Only `keep` bytes of the answer come through.
    """
    left = [times]

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if not left[0]:
            return await dial(backend, caller)
        left[0] -= 1

        near, far = socket.socketpair()
        backend.managers.tasks.append(asyncio.create_task(_middle(backend, far, caller, deliver, keep)))
        return await asyncio.open_connection(sock=near)

    return way


async def _middle(backend: ManagerBackend, end: socket.socket, caller: str, deliver: bool, keep: int) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        request = head + await reader.readexactly(int(length.split(b":")[1]))
    except (asyncio.IncompleteReadError, ConnectionError):
        # Another leader was known before anything was sent.
        writer.close()
        return
    if deliver:
        leader_reader, leader_writer = await dial(backend, caller)
        leader_writer.write(request)
        answer = await leader_reader.read()
        leader_writer.close()
        await leader_writer.wait_closed()
        writer.write(answer[:keep])
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def silence(backend: ManagerBackend, caller: str) -> Link:
    """A leader that is frozen: it takes everything and says nothing."""
    near, far = socket.socketpair()
    far.setblocking(False)
    backend.managers.frozen.append(far)
    return await asyncio.open_connection(sock=near)


async def received(group: Managers) -> None:
    """A frozen leader has a request before it."""
    while not group.frozen:
        await asyncio.sleep(0)
    await asyncio.get_running_loop().sock_recv(group.frozen[0], 1)


def store_of(group: Managers, name: str) -> Store:
    store = group.backends[name].store
    assert store is not None
    return store


def names(group: Managers, at: str) -> list[str]:
    """The services that a manager's store shows."""
    return sorted(service.spec.name for service in store_of(group, at).view(lambda tx: tx.all(Service)))

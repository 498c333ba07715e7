"""Waiting for descriptors on the running loop: no task, no buffer, and nothing left behind when the wait is cancelled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable


async def readable(descriptors: Iterable[int]) -> list[int]:
    """Return once some of the descriptors (pipes, sockets, terminals, processes) have something to read, with those."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    ready: list[int] = []
    watched = list(descriptors)

    def note(descriptor: int) -> None:
        ready.append(descriptor)
        loop.remove_reader(descriptor)
        if not future.done():
            future.set_result(None)

    for descriptor in watched:
        loop.add_reader(descriptor, note, descriptor)
    try:
        await future
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)
    return ready


async def writable(descriptor: int) -> None:
    """Return once the descriptor takes bytes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        loop.remove_writer(descriptor)
        if not future.done():
            future.set_result(None)

    loop.add_writer(descriptor, note)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)


async def write_all(descriptor: int, data: bytes, write: Callable[[int, memoryview], int] = os.write) -> None:
    """Write everything to a non-blocking descriptor. OSError when the other end is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[write(descriptor, view) :]
        except BlockingIOError:
            await writable(descriptor)

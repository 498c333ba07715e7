"""Work in another network namespace, without moving the agent into it.

A network namespace is a thread's own. Each piece of work gets a thread that enters the namespace, does the work and ends;
no thread of a pool is left behind in the wrong place. Sockets that the work opens stay in the namespace for their life.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
"""setns and unshare are in Python's os from 3.12 on; mount is in no version."""


async def run_in(namespace: Path | None, work: Callable[[], R]) -> R:
    """Do blocking `work` in the namespace that the file names (None: the agent's own), in a thread of its own.

    Raises what `work` raises, and OSError when the namespace cannot be entered. A caller that is cancelled leaves once the
    work is done, since a half-made change is worse than a late one.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, error: BaseException | None) -> None:
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, error = None, None
        try:
            if namespace is not None:
                _enter(namespace)
            result = work()
        except BaseException as raised:  # handed to the caller, not swallowed
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=body, name="in-namespace", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        if not done.cancelled():
            done.exception()
        raise


def make(path: Path) -> None:
    """A new network namespace that `path` names until `remove`. Blocking; the calling thread must end soon after, it is in
    the new namespace. OSError when it may not be made; FileExistsError when the path is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    try:
        _check(_libc.unshare(CLONE_NEWNET), path)
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _check(_libc.mount(own.encode(), str(path).encode(), b"none", MS_BIND, None), path)
    except OSError:
        path.unlink()
        raise


def remove(path: Path) -> None:
    """Let go of a namespace; the kernel takes it down with the last that uses it. Nothing happens where there is none."""
    _libc.umount2(str(path).encode(), MNT_DETACH)
    path.unlink(missing_ok=True)


def stands(path: Path) -> bool:
    """Whether the path names a namespace: its file may be left of a mount that went with a restart of the host."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_dev == Path("/proc/self/ns/net").stat().st_dev


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), path)
    finally:
        os.close(descriptor)


def _check(result: int, path: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))

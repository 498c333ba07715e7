"""Notices changes in folders (inotify): logs that grow, records that appear. One descriptor for all watchers of a process."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_DELETE_SELF = 0x400
_IN_IGNORED = 0x8000
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF
_HEAD = struct.Struct("iIII")


class FolderWatch:
    """Hands out events that are set whenever something in a folder changes. Needs a running loop; `close` it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)
        self._events: dict[int, set[asyncio.Event]] = {}

    @contextmanager
    def watching(self, folder: Path) -> Iterator[asyncio.Event]:
        """An event for a folder, set from now on at each change; set at once, and for good, when it is gone."""
        event = asyncio.Event()
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
        if watch < 0:
            number = ctypes.get_errno()
            if number not in (errno.ENOENT, errno.ENOTDIR):
                raise OSError(number, f"inotify: {os.strerror(number)}", str(folder))
            event.set()
            yield event
            return
        self._events.setdefault(watch, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._events.get(watch)
            if watchers is not None:
                watchers.discard(event)
                if not watchers:
                    del self._events[watch]
                    self._libc.inotify_rm_watch(self._descriptor, watch)

    def close(self) -> None:
        """Wake all watchers for the last time and stop. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            for watchers in self._events.values():
                for event in watchers:
                    event.set()
            self._events.clear()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            watch, mask, _cookie, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size + length
            if watch < 0:
                # The queue overflowed: anything may have changed.
                for watchers in self._events.values():
                    for event in watchers:
                        event.set()
                continue
            for event in self._events.get(watch, ()):
                event.set()
            if mask & _IN_IGNORED:
                self._events.pop(watch, None)

"""The unix socket: who may use it, and what to do when its path is taken."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path that the kernel takes."""
SOCKET_MODE = 0o660
SOCKET_GROUP = "docker"
"""Its members may use the socket, as they may use the engine's."""
BACKLOG = 512


class SocketUnusable(Exception):
    """The agent cannot listen there; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that listens, and the file that is its name."""

    sock: socket.socket
    path: str
    inode: int

    def remove(self) -> None:
        """Take the file away, unless another process put its own there."""
        try:
            if os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return


def open_socket(path: str, group: str | None = SOCKET_GROUP) -> ListeningSocket:
    """A listening socket at `path`, for its owner and for `group` if there is one of that name.

    A socket that nobody listens on any more is replaced; one that answers, or a file of another kind, is left alone.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise SocketUnusable(
            f"the socket path {path} has {size} bytes, the kernel takes {MAX_SOCKET_PATH}: choose a shorter --socket"
        )
    folder = Path(path).parent
    if not folder.is_dir():
        raise SocketUnusable(f"the folder of the socket {path} does not exist")
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # No moment in which others could connect: the socket is made with no rights for them.
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise SocketUnusable(f"cannot listen on {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.umask(mask)
    _admit(path, group)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return ListeningSocket(sock, path, os.stat(path).st_ino)


def _clear(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(f"{path} exists and is not a socket: remove it or choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise SocketUnusable(f"{path} is taken: {os.strerror(error.errno or 0)}") from error
        else:
            raise SocketUnusable(f"another process listens on {path}: stop it or choose another --socket")
    Path(path).unlink(missing_ok=True)


def _admit(path: str, group: str | None) -> None:
    try:
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        gid = -1
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        # Without root the group can only be one of our own; the owner alone then uses the socket.
        os.chmod(path, 0o600)
        return
    os.chmod(path, SOCKET_MODE)

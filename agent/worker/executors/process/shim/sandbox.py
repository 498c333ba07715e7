"""What a container sees of the host, with root: programs and settings read-only, and nothing of anybody's files.

The new root is a tmpfs. /usr, /bin, /lib, /etc and their like, and where the agent's own interpreter and code lie, are the
host's, read-only; /tmp, /run, /var, /root and /home are empty and the container's own; /dev has the harmless devices; /proc
shows the container's processes. Files that hold secrets exist in this tmpfs alone.
"""

from __future__ import annotations

import errno
import os

from agent.worker.executors.process.shim import kernel

HOST_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix", "gnu")
"""Top folders with programs and settings; one that is a link on the host is a link here."""
OWN_FOLDERS = (
    ("tmp", 0o1777),
    ("run", 0o755),
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("root", 0o700),
    ("home", 0o755),
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
GUARDED = ("sys", "sysrq-trigger", "irq", "bus", "fs")
"""Parts of /proc through which root in a container could change the host."""


def build(new: str, settings: dict[str, object]) -> None:
    """Make the root at `new`, any folder, and move there. Call in fresh mount and process namespaces, as their process 1.

    Settings: "visible" paths of the host to show read-only; "binds" (source, target, read_only); "tmpfs" (target, size, mode);
    "files" (path, content, uid, gid, mode); "cwd"; "read_only"; "size" of the root in bytes.
    """
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    options = f"mode=755,size={settings['size']}"
    kernel.mount("tmpfs", new, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for name in HOST_FOLDERS:
        source = f"/{name}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), new + source)
        elif os.path.isdir(source):
            bind(source, new + source, read_only=True)
    for name, mode in OWN_FOLDERS:
        os.makedirs(f"{new}/{name}", exist_ok=True)
        os.chmod(f"{new}/{name}", mode)
    for path in settings["visible"]:  # type: ignore[attr-defined]
        if not os.path.exists(new + path):
            bind(path, new + path, read_only=True)
            _open_way(new, path)
    _devices(new)
    _kernel_views(new)
    # The container's own mounts come last, so that they may cover any of the above.
    for source, target, read_only in settings["binds"]:  # type: ignore[attr-defined]
        bind(source, new + target, read_only)
    for target, size, mode in settings["tmpfs"]:  # type: ignore[attr-defined]
        os.makedirs(new + target, exist_ok=True)
        bound = f",size={size}" if size else ""
        kernel.mount(
            "tmpfs", new + target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"mode={mode or 0o1777:o}{bound}"
        )
    for path, content, uid, gid, mode in settings["files"]:  # type: ignore[attr-defined]
        place_file(new, path, content, uid, gid, mode)
    cwd = str(settings["cwd"])
    os.makedirs(new + cwd, exist_ok=True)
    kernel.pivot_to(new)
    if settings["read_only"]:
        kernel.make_read_only("/", recursive=False)


def _open_way(new: str, path: str) -> None:
    """Let every user of the container pass to `path`; the folders above it are the container's own."""
    while (path := os.path.dirname(path)) != "/":
        os.chmod(new + path, os.stat(new + path).st_mode | 0o111)


def bind(source: str, target: str, read_only: bool) -> None:
    """Show `source` at `target`, which is made when it is missing."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    if read_only:
        kernel.make_read_only(target, recursive=True)


def place_file(root: str, path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Write a secret or a config below `root`. A place in a folder of the host, which is read-only, gets a mount of its own."""
    target = root + path
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_file(target, content, uid, gid, mode)
    except OSError as error:
        if error.errno != errno.EROFS or not os.path.exists(target):
            raise
        hidden = f"{root}/run/.files"
        os.makedirs(hidden, mode=0o700, exist_ok=True)
        source = f"{hidden}/{path.replace('/', '_')}"
        write_file(source, content, uid, gid, mode)
        kernel.mount(source, target, "", kernel.MS_BIND)


def write_file(path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    """A file that nobody but its owner can open before its mode is right."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _devices(new: str) -> None:
    folder = f"{new}/dev"
    os.mkdir(folder)
    kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            bind(f"/dev/{name}", f"{folder}/{name}", read_only=False)
    os.mkdir(f"{folder}/pts")
    kernel.mount(
        "devpts", f"{folder}/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"
    )
    os.mkdir(f"{folder}/shm")
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("shm", f"{folder}/shm", "tmpfs", flags, "mode=1777,size=64m")
    for name, target in DEVICE_LINKS:
        os.symlink(target, f"{folder}/{name}")


def _kernel_views(new: str) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    os.mkdir(f"{new}/proc")
    kernel.mount("proc", f"{new}/proc", "proc", flags)
    for name in GUARDED:
        path = f"{new}/proc/{name}"
        if os.path.exists(path):
            bind(path, path, read_only=True)
    os.mkdir(f"{new}/sys")
    bind("/sys", f"{new}/sys", read_only=True)

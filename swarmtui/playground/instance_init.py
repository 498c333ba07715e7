"""Process 1 of an instance: makes the machine around itself, runs its services, reaps what is left, takes all of it along.

A program of its own (`python -m swarmtui.playground.instance_init FOLDER DESCRIPTOR`), started by the keeper. With namespaces
it is process 1 of the instance's own, so that the kernel ends everything in it when it ends. Without, it adopts orphans: what
outlives the agent becomes its child; what outlives it becomes the keeper's, which ends it.

It speaks with the keeper over the socket at DESCRIPTOR, on which its settings come first. The end of that socket is the end of
the instance.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarmtui.playground import cgroups, kernel
from swarmtui.playground.links import ip
from swarmtui.playground.wire import Gone, Message, Wire

ENGINE_CONFIGURATION = "/etc/docker/daemon.json"


@dataclass(slots=True)
class Settings:
    """What the keeper says first, when eth0 is there."""

    name: str
    folder: str
    """The instance's own folder."""

    isolated: bool
    """Whether this process has namespaces of its own."""

    address: str = ""
    """With the prefix length, for eth0; isolated only."""

    hosts: str = ""
    """Text of /etc/hosts; isolated only."""

    cgroups: list[dict[str, str | int]] = field(default_factory=list)
    """Hierarchies to mount again in the instance; empty when it has no groups of its own."""


class Init:
    """Services of the instance by name, and the loop that waits for their ends."""

    def __init__(self, settings: Settings, wire: Wire) -> None:
        self._settings = settings
        self._wire = wire
        self._services: dict[int, str] = {}

    def run(self) -> None:
        """Until the keeper is gone or says so; does not return."""
        waker, wakeup = socket.socketpair()
        for end in (waker, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: self._end())
        selector = selectors.DefaultSelector()
        selector.register(self._wire, selectors.EVENT_READ)
        selector.register(waker, selectors.EVENT_READ)
        self._wire.send({"event": "up"})
        while True:
            for key, _events in selector.select():
                if key.fileobj is waker:
                    waker.recv(4096)
                    self._reap()
                else:
                    try:
                        for message in self._wire.receive():
                            self._obey(message)
                    except Gone:
                        self._end()

    def _obey(self, message: Message) -> None:
        if message["op"] != "spawn":
            raise ValueError(f"unknown message {message['op']!r}")
        service = message["service"]
        try:
            pid = start_service(message["argv"], message["env"], message["log"], self._settings)
        except OSError as error:
            self._wire.send(
                {"event": "unstarted", "service": service, "error": f"{message['argv'][0]}: {error.strerror}"}
            )
            return
        self._services[pid] = service
        self._wire.send({"event": "started", "service": service, "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            service = self._services.pop(pid, None)
            if service is not None:
                self._wire.send({"event": "ended", "service": service, "status": os.waitstatus_to_exitcode(status)})

    def _end(self) -> None:
        """End everything and this process. As process 1, ending is enough: the kernel ends the rest."""
        if not self._settings.isolated:
            end_descendants()
        os._exit(0)


def start_service(argv: Sequence[str], env: Mapping[str, str], log: str, settings: Settings) -> int:
    """Start one service in a session of its own, its output at the end of `log`; returns its process id."""
    prepare: Callable[[], None] | None = None
    if not settings.isolated:
        # Without a pid namespace nothing else takes the service along when this process is killed.
        def prepare() -> None:
            kernel.die_with_parent(signal.SIGKILL)

    with open(log, "ab", buffering=0) as output:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=settings.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,
        )
    # Reaped by this program's own loop, which waits for all children alike.
    process.returncode = 0
    return process.pid


def end_descendants(keep: Callable[[int], bool] = lambda pid: False) -> None:
    """Kill children until there are none: killing one hands its own children to this process, which adopts orphans."""
    while True:
        children = [pid for pid in kernel.children_of(os.getpid()) if not keep(pid)]
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def make_machine(settings: Settings) -> None:
    """Give this process's new namespaces the look of a machine of its own: name, processes, devices, /run, /etc, eth0."""
    # A slave still sees what the host mounts and unmounts, and never keeps a disk busy that the host wants to let go.
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("sysfs", "/sys", "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    _mount_cgroups([cgroups.Hierarchy(**known) for known in settings.cgroups])  # type: ignore[arg-type]
    kernel.mount("tmpfs", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    # Secrets of tasks are files here; of its own, a power cut takes them along.
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    os.mkdir("/run/lock")
    # `docker` typed in the instance means the instance.
    os.symlink(f"{settings.folder}/docker.sock", "/run/docker.sock")
    _lay_over_etc(settings)
    # Engines hand mounts on to containers, which needs sharing, within this namespace alone.
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SHARED)
    socket.sethostname(settings.name)


def set_up_network(settings: Settings) -> None:
    """Address and links; the keeper has put eth0 here before it sent the settings."""
    ip("link set lo up", f"address add {settings.address} dev eth0", "link set eth0 up")


def _lay_over_etc(settings: Settings) -> None:
    """An /etc like the host's, of which what is changed here is the instance's alone and gone with it."""
    upper, work = Path("/run/.etc/changes"), Path("/run/.etc/work")
    (upper / "docker").mkdir(parents=True)
    work.mkdir()
    (upper / "hostname").write_text(settings.name + "\n")
    (upper / "hosts").write_text(settings.hosts)
    (upper / "resolv.conf").write_text("# the playground's network has no name server\n")
    # The host's own engine may be configured in ways that cannot hold here.
    (upper / ENGINE_CONFIGURATION.removeprefix("/etc/")).write_text("{}\n")
    kernel.mount("overlay", "/etc", "overlay", options=f"lowerdir=/etc,upperdir={upper},workdir={work}")


def _mount_cgroups(hierarchies: list[cgroups.Hierarchy]) -> None:
    if not hierarchies:
        return
    top = Path("/sys/fs/cgroup")
    if any(hierarchy.version == 1 for hierarchy in hierarchies):
        kernel.mount("tmpfs", str(top), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "mode=755")
    for hierarchy in hierarchies:
        point = Path(hierarchy.point)
        if point != top:
            point.mkdir(parents=True, exist_ok=True)
        if hierarchy.version == 1:
            kernel.mount("cgroup", hierarchy.point, "cgroup", options=hierarchy.options)
            continue
        kernel.mount("cgroup2", hierarchy.point, "cgroup2")
        if point == top:
            cgroups.settle(top)


def main() -> None:
    """The program."""
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    kernel.call_process(f"pg-{folder.name}")
    os.set_inheritable(descriptor, False)
    wire = Wire(socket.socket(fileno=descriptor))
    try:
        settings = Settings(**wire.receive_one())
        if settings.isolated:
            make_machine(settings)
            set_up_network(settings)
        else:
            kernel.adopt_orphans()
    except Gone:
        sys.exit(1)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (
            error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error.strerror or str(error)
        )
        wire.send({"event": "unmade", "error": detail})
        sys.exit(1)
    Init(settings, wire).run()


if __name__ == "__main__":
    main()

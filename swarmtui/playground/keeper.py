"""The keeper of a session: parent of its instances, owner of its network and control groups, and the one who cleans up.

A program of its own (`python -m swarmtui.playground.keeper FOLDER DESCRIPTOR LOCK`) in a terminal session of its own, with one
thread and no loop but its own: it forks, changes namespaces and waits for processes, none of which an asyncio program with
threads should do. It obeys the session over the socket at DESCRIPTOR, on which its configuration comes first; the end of that
socket is the end of the session, so a session that was killed leaves nothing behind. LOCK is the descriptor of the session's
lock, held as long as this program runs. A keeper that was killed too leaves a folder and control groups, which the next start
sweeps.

With privileges the keeper lives in a network namespace of its own that holds the bridge: there the host's firewall, which may
drop what it forwards and may watch bridges, has no say, and the bridge is gone with the keeper.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmtui.playground import cgroups, kernel, links
from swarmtui.playground.instance_init import Settings, end_descendants
from swarmtui.playground.places import ProcessMark, Record, base_lock, leave_base
from swarmtui.playground.wire import Gone, Message, Wire

_NAMESPACES = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID


class Refused(Exception):
    """A request that cannot be done; the text goes back to the session."""


@dataclass(slots=True)
class Configuration:
    """What the session says first."""

    folder: str
    record: dict[str, Any]
    isolated: bool
    grouped: bool
    """Whether instances get control groups of their own."""

    host_address: str = ""
    """Of the host on the bridge, with the prefix length; isolated only."""


@dataclass(slots=True)
class _Instance:
    name: str
    pid: int
    wire: Wire
    up: bool = False
    starting: int | None = None
    """The request to answer when it is up."""
    spawning: dict[str, int] = field(default_factory=dict)
    """Requests to answer when a service runs, by the service's name."""
    stopping: list[int] = field(default_factory=list)
    """Requests to answer when it has ended."""


class Keeper:
    """The state of one session and its loop."""

    def __init__(self, configuration: Configuration, wire: Wire) -> None:
        self._configuration = configuration
        self._wire = wire
        self._folder = Path(configuration.folder)
        self._record = Record(**{**configuration.record, "processes": []})
        self._instances: dict[str, _Instance] = {}
        self._hierarchies = cgroups.mounted() if configuration.grouped else []
        self._selector = selectors.DefaultSelector()
        self._closing: int | None = None
        self._told_to_leave = False

    @property
    def _session(self) -> str:
        return self._record.session

    def run(self) -> None:
        """Until the session ends; then everything is gone and this returns."""
        kernel.adopt_orphans()
        waker, wakeup = socket.socketpair()
        for end in (waker, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(self._wire, selectors.EVENT_READ, self._hear_session)
        self._selector.register(waker, selectors.EVENT_READ, lambda: self._hear_children(waker))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._leave)
        try:
            self._mark(os.getpid())
            if self._configuration.isolated:
                link = self._record.host_link or ""
                links.make_switch(link, self._configuration.host_address, os.getppid())
            self._wire.send({"event": "up"})
            while self._closing is None and not self._told_to_leave:
                for key, _events in self._selector.select():
                    key.data()
        except Gone:
            pass
        except (OSError, subprocess.CalledProcessError) as error:
            self._wire.send({"event": "failed", "error": _text(error)})
        finally:
            self._close()

    def _leave(self, number: int, frame: object) -> None:
        """A signal wakes the loop, which looks here between two steps, never in the middle of one."""
        self._told_to_leave = True

    # The session's requests

    def _hear_session(self) -> None:
        for message in self._wire.receive():
            try:
                self._obey(message)
            except (Refused, OSError, subprocess.CalledProcessError) as error:
                self._wire.send({"id": message["id"], "error": _text(error)})

    def _obey(self, message: Message) -> None:
        request: int = message["id"]
        operation: str = message["op"]
        if operation == "close":
            self._closing = request
        elif operation == "start":
            self._start(request, message["instance"], message.get("address", ""), message.get("hosts", ""))
        elif operation == "spawn":
            instance = self._known(message["instance"])
            service = message["service"]
            if service in instance.spawning:
                raise Refused(f"{instance.name}: {service} is being started already")
            instance.spawning[service] = request
            instance.wire.send({name: message[name] for name in ("op", "service", "argv", "env", "log")})
        elif operation == "stop":
            running = self._instances.get(message["instance"])
            if running is None:
                # It was killed just before, and the session has yet to hear of it: what was wanted is so.
                self._wire.send({"id": request})
                return
            running.stopping.append(request)
            self._kill(running)
        elif operation == "freeze":
            self._freeze(self._known(message["instance"]), message["frozen"])
            self._wire.send({"id": request})
        else:
            raise Refused(f"unknown request {operation!r}")

    def _known(self, name: str) -> _Instance:
        instance = self._instances.get(name)
        if instance is None:
            raise Refused(f"{name} does not run")
        return instance

    # Instances

    def _start(self, request: int, name: str, address: str, hosts: str) -> None:
        if name in self._instances:
            raise Refused(f"{name} runs already")
        if self._hierarchies:
            cgroups.create(self._hierarchies, self._session, name)
        ours, theirs = socket.socketpair()
        settings = Settings(
            name=name,
            folder=str(self._folder / name),
            isolated=self._configuration.isolated,
            address=address,
            hosts=hosts,
            cgroups=[asdict(hierarchy) for hierarchy in self._hierarchies],
        )
        theirs.set_inheritable(True)
        try:
            pid = self._fork(settings, theirs.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        instance = _Instance(name, pid, Wire(ours), starting=request)
        self._instances[name] = instance
        self._selector.register(instance.wire, selectors.EVENT_READ, lambda: self._hear_instance(instance))
        self._mark(pid)
        if self._configuration.isolated:
            port = self._port(name)
            try:
                links.plug_in(port, pid)
            except subprocess.CalledProcessError:
                instance.starting = None
                self._kill(instance)
                raise
        instance.wire.send(asdict(settings))

    def _port(self, name: str) -> str:
        """The bridge's end of an instance's link."""
        return f"{name}-{self._session}"

    def _fork(self, settings: Settings, descriptor: int) -> int:
        """Start the instance's process 1 and return its id as seen from here.

        A child in between takes on the namespaces, as they are for its own children; it ends at once and its child becomes
        this process's, which adopts orphans. Errors up to the exec come back through the pipe.
        """
        reading, writing = os.pipe()
        argv = [sys.executable, "-m", "swarmtui.playground.instance_init", settings.folder, str(descriptor)]
        between = os.fork()
        if between == 0:
            os.close(reading)
            code = 1
            try:
                if self._hierarchies:
                    cgroups.enter(self._hierarchies, self._session, settings.name, top=settings.isolated)
                if settings.isolated:
                    kernel.unshare(_NAMESPACES | (kernel.CLONE_NEWCGROUP if self._hierarchies else 0))
                pid = os.fork()
                if pid == 0:
                    os.execv(argv[0], argv)
                os.write(writing, str(pid).encode())
                code = 0
            except OSError as error:
                os.write(writing, f"!{error.errno} {error}".encode())
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, encoding="utf-8", errors="replace") as answer:
            text = answer.read()
        os.waitpid(between, 0)
        if "!" in text:
            number, _, detail = text.partition("!")[2].partition(" ")
            raise OSError(int(number), f"{settings.name}: {detail}")
        return int(text)

    def _kill(self, instance: _Instance) -> None:
        if self._hierarchies:
            # A frozen process of version 1 does not even die.
            cgroups.freeze(self._hierarchies, self._session, instance.name, False)
        os.kill(instance.pid, signal.SIGKILL)

    def _freeze(self, instance: _Instance, frozen: bool) -> None:
        if self._hierarchies and cgroups.freeze(self._hierarchies, self._session, instance.name, frozen):
            return
        raise Refused(f"{instance.name} has no control group that could freeze it")

    # What instances say

    def _hear_instance(self, instance: _Instance) -> None:
        try:
            messages = instance.wire.receive()
        except Gone:
            # Its end is told by SIGCHLD.
            self._selector.unregister(instance.wire)
            return
        for message in messages:
            self._note(instance, message)

    def _note(self, instance: _Instance, message: Message) -> None:
        event = message["event"]
        if event == "up":
            instance.up = True
            self._answer_start(instance, {"pid": instance.pid})
        elif event == "unmade":
            self._answer_start(instance, {"error": f"{instance.name}: {message['error']}"})
        elif event == "started":
            request = instance.spawning.pop(message["service"])
            self._wire.send({"id": request, "pid": self._seen_from_here(instance, message["pid"])})
        elif event == "unstarted":
            request = instance.spawning.pop(message["service"])
            self._wire.send({"id": request, "error": f"{instance.name}: {message['error']}"})
        elif event == "ended":
            self._wire.send({**message, "instance": instance.name})

    def _answer_start(self, instance: _Instance, answer: Message) -> None:
        if instance.starting is not None:
            self._wire.send({"id": instance.starting, **answer})
            instance.starting = None

    def _seen_from_here(self, instance: _Instance, inner: int) -> int:
        if not self._configuration.isolated:
            return inner
        for pid in kernel.children_of(instance.pid):
            if kernel.inner_pid(pid) == inner:
                return pid
        return 0

    def _hear_children(self, waker: socket.socket) -> None:
        waker.recv(4096)
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for instance in [one for one in self._instances.values() if one.pid == pid]:
                self._bury(instance)

    def _bury(self, instance: _Instance) -> None:
        """An instance has ended: take what it left."""
        del self._instances[instance.name]
        # Without a pid namespace its processes are this one's children now.
        self._end_orphans()
        if instance.wire.fileno() in self._selector.get_map():
            # What it said last is still to be heard.
            try:
                while True:
                    for message in instance.wire.receive():
                        self._note(instance, message)
            except Gone:
                self._selector.unregister(instance.wire)
        instance.wire.close()
        if self._configuration.isolated:
            links.delete_link(self._port(instance.name))
        left = cgroups.remove(self._hierarchies, self._session, instance.name)
        self._record.processes = [mark for mark in self._record.processes if mark.pid != instance.pid]
        self._record.write(self._folder)
        self._answer_start(instance, {"error": f"{instance.name} ended while it was made"})
        for request in instance.spawning.values():
            self._wire.send({"id": request, "error": f"{instance.name} has ended"})
        self._wire.send({"event": "gone", "instance": instance.name})
        for request in instance.stopping:
            answer = {"error": f"{instance.name}: processes remain in {left[0]}"} if left else {}
            self._wire.send({"id": request, **answer})

    def _end_orphans(self) -> None:
        alive = {instance.pid for instance in self._instances.values()}
        end_descendants(keep=lambda pid: pid in alive)

    def _mark(self, pid: int) -> None:
        start_time = kernel.start_time(pid)
        if start_time is not None:
            self._record.processes.append(ProcessMark(pid, start_time))
            self._record.write(self._folder)

    # The end

    def _close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for instance in self._instances.values():
            self._kill(instance)
        for instance in list(self._instances.values()):
            os.waitpid(instance.pid, 0)
        self._instances.clear()
        self._end_orphans()
        left = cgroups.remove(self._hierarchies, self._session)
        if self._configuration.isolated:
            links.remove_uplink()
        if not left:
            base = self._folder.parent
            with base_lock(base):
                shutil.rmtree(self._folder)
            leave_base(base)
        if self._closing is not None:
            answer = {"error": f"processes remain in {', '.join(left)}"} if left else {}
            self._wire.send({"id": self._closing, **answer})
        self._wire.close()


def _text(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]}: {error.stderr.strip().splitlines()[0]}"
    return str(error)


def main() -> None:
    """The program."""
    folder, descriptor, lock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    kernel.call_process(f"pg-{Path(folder).name}")
    for inherited in (descriptor, lock):
        # Handed to this program, and not to be handed on: the end of the socket must be the end of this program.
        os.set_inheritable(inherited, False)
    wire = Wire(socket.socket(fileno=descriptor))
    try:
        configuration = Configuration(**wire.receive_one())
    except Gone:
        # Killed before it said anything: there is nothing yet but the folder, which the next start sweeps.
        return
    Keeper(configuration, wire).run()


if __name__ == "__main__":
    main()

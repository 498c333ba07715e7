"""Runs a program beside a task: in its namespaces and control groups, with streams that the agent passed along.

The process here waits for the program, tells its exit code, and sees to it that nothing of it outlives the task: with a
process namespace the kernel does that, else it is the reaper of what the program leaves, and kills it when the shim is gone.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios

from agent.worker.executors.process.shim import kernel, program
from agent.worker.executors.process.shim.supervise import exit_code, kill_descendants, reap_all, tell

NAMESPACES = ("ipc", "uts", "pid", "mnt")
"""Joined in this order: the mount namespace last, as it hides the /proc that the others are found in."""


def launch(settings: dict[str, object], answer: int, streams: list[int]) -> None:
    """In a fresh fork of the spawner: fork whoever waits for the program, and go.

    Settings: "shim" and "shim_start" of the task; "isolated"; "network", whether it has a network namespace of its own;
    "terminal"; "program" (see `program.become`); "cgroups".
    """
    if os.fork():
        return
    kernel.set_name("swarmtui-exec")
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    shim = int(settings["shim"])  # type: ignore[call-overload]
    try:
        watched = os.pidfd_open(shim)
        with open(f"/proc/{shim}/stat", "rb") as file:
            found = kernel.start_time(file.read())
    except (ProcessLookupError, FileNotFoundError):
        found = -1
    if found != settings["shim_start"]:
        os.write(answer, b"failed the container is not running\n")
        return
    groups = program.open_groups(settings["cgroups"])  # type: ignore[arg-type]
    if settings["isolated"]:
        joined = ("net", *NAMESPACES) if settings["network"] else NAMESPACES
        opened = [os.open(f"/proc/{shim}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in joined]
        for descriptor in opened:
            kernel.setns(descriptor)
            os.close(descriptor)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    status, status_end = os.pipe2(os.O_CLOEXEC)
    # A new process namespace counts its members from 1 on, and their parent outside of it is 0 to them.
    parent = 0 if settings["isolated"] else os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        if settings["terminal"]:
            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        os.write(status_end, b"process %d %d\n" % kernel.identity(proc))
        three = (streams[0], streams[1], streams[2])
        program.become(settings["program"], groups, three, parent, status_end)  # type: ignore[arg-type]
    for descriptor in {*streams, status_end, *groups}:
        os.close(descriptor)
    _wait(child, _said(status), answer, watched)
    if not settings["isolated"]:
        _outlast(proc, watched)


def _said(status: int) -> list[str]:
    """What the program's process said before exec closed its end."""
    text = b""
    while data := os.read(status, 4096):
        text += data
    os.close(status)
    return text.decode("utf-8", "replace").splitlines()


def _wait(child: int, said: list[str], answer: int, watched: int) -> None:
    if len(said) != 1:
        os.waitpid(child, 0)
        os.write(answer, said[-1].encode("utf-8", "backslashreplace") + b"\n" if said else b"failed it was killed\n")
        os.close(answer)
        return
    os.write(answer, said[0].replace("process", "running").encode() + b"\n")
    ended = os.pidfd_open(child)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(watched, select.POLLIN)
    poller.register(answer, 0)
    if all(descriptor != ended for descriptor, _events in poller.poll()):
        # The task is gone, and without a process namespace nobody has killed the program; or nobody wants it any more.
        os.kill(child, 9)
    _pid, status = os.waitpid(child, 0)
    tell(answer, f"exited {exit_code(status)}")
    os.close(answer)


def _outlast(proc: int, watched: int) -> None:
    """Stay with what the program left running in the background, until it ends or the task does."""
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    while below := kernel.descendants(proc, os.getpid()):
        for pid in below:
            try:
                poller.register(os.pidfd_open(pid), select.POLLIN)
                break
            except ProcessLookupError:
                continue
        events = [descriptor for descriptor, _events in poller.poll()]
        if watched in events:
            kill_descendants(proc, os.getpid())
            return
        for descriptor in events:
            poller.unregister(descriptor)
            os.close(descriptor)
        reap_all(wait=False)

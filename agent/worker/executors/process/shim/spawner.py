"""The spawner: reads requests from a socket and forks a process for each. See the package for who lives how long.

A request is one message: a letter, and descriptors passed along: a memory file with the request's settings (`marshal`), the
write end of a pipe for the answer, and for `x` the three standard streams. Answers are lines of text; the pipe's end
without one means that whoever should answer was killed.

| letter | does | answers |
|---|---|---|
| `p` | tries what this host allows | `allowed FLAGS` or `refused TEXT` |
| `s` | starts a task's shim | `running SHIM START TASK START TIME`, `busy`, `exists`, `refused CODE TEXT`, `failed TEXT` |
| `x` | runs a program beside a task | `running PID START`, later `exited CODE`, or `refused CODE TEXT`, `failed TEXT` |
"""

from __future__ import annotations

# typeshed knows only the wrapper, `signal`, whose enums would add 0.9 MB to every shim.
import _signal  # type: ignore[import-not-found]
import _socket
import gc
import marshal
import os
import struct

from agent.worker.executors.process.shim import execute, kernel, supervise

MAX_DESCRIPTORS = 5
_ITEM = struct.calcsize("i")


def serve(channel: int) -> None:
    """Serve requests until the agent's end of the socket closes."""
    kernel.set_name("swarmtui-spawn")
    os.chdir("/")
    os.umask(0o022)
    sock = _socket.socket(fileno=channel)
    # Shims belong to nobody, and not every host's first process reaps what falls to it: while we live, we do.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    _signal.signal(_signal.SIGCHLD, lambda _number, _frame: _reap())
    # Forked shims share these objects for as long as nobody writes to them: counting garbage would.
    gc.disable()
    gc.freeze()
    while True:
        data, ancillary, _flags, _address = sock.recvmsg(
            16, _socket.CMSG_SPACE(MAX_DESCRIPTORS * _ITEM), _socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return
        descriptors: list[int] = []
        for level, kind, content in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                descriptors += struct.unpack(
                    f"{len(content) // _ITEM}i", content[: len(content) - len(content) % _ITEM]
                )
        try:
            pid = os.fork()
        except OSError as error:
            # Too many processes now: the agent tries again.
            os.write(descriptors[1], b"failed " + describe(error))
            pid = -1
        if pid == 0:
            sock.detach()
            # Replaced, not closed: a free descriptor 0 would be taken by the next file that is opened.
            os.dup2(1, channel)
            _handle(data, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            _await(pid)


def _await(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # the signal's handler was faster


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _handle(letter: bytes, descriptors: list[int]) -> None:
    """In the forked process; does not return."""
    answer = descriptors[1]
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        # A session of its own: what a terminal or a supervisor does to the agent's session is not meant for tasks.
        os.setsid()
        settings = marshal.loads(_read_all(descriptors[0]))
        os.close(descriptors[0])
        if letter == b"p":
            supervise.probe(settings, answer)
        elif letter == b"s":
            supervise.launch(settings, answer)
        else:
            execute.launch(settings, answer, descriptors[2:])
    except BaseException as error:  # whatever it is, the agent is told, and this copy of the spawner must not go on
        os.write(answer, b"failed " + describe(error))
    finally:
        os._exit(0)


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""


def describe(error: BaseException) -> bytes:
    """An error as one line."""
    text = f"{error.strerror}" if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return text.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n"

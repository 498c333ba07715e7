"""Programs run beside a container's own, in its namespaces, groups and environment: `docker exec` and health checks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence

from agent.worker.executors.process import cgroups
from agent.worker.executors.process.container import Container
from agent.worker.executors.process.health import MAX_OUTPUT
from agent.worker.executors.process.launching import exec_settings, files_folder, program_settings
from agent.worker.executors.process.processes import Process
from agent.worker.executors.process.readiness import readable, write_all
from agent.worker.executors.process.spawning import Answer, Spawner
from agent.worker.interface import RejectedByExecutor, Stream, TemporaryFailure

CHUNK = 65536
# From asm-generic/ioctls.h: let the other side of a terminal be opened; open it without its path.
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


class ExecRefused(RejectedByExecutor):
    """The program cannot be run; `code` is 126 or 127, as a shell would say."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ExecProcess:
    """A running program, with its streams. Close it: that ends it unless it has ended. The agent's death closes it too.

    With a terminal there is one output stream, `stdout`, and input goes through the terminal.
    """

    def __init__(self, pid: int, start: int, answer: Answer, stdin: int | None, outputs: dict[int, Stream]) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self._start = start
        self._answer = answer
        self._stdin = stdin
        self._outputs = outputs
        self._exited = asyncio.Lock()

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """What it writes, until it ends or closes its streams; what it leaves running in the background is not waited for.

        Nothing is buffered: a slow reader makes the program wait.
        """
        # A second descriptor, as `wait` may wait for the first one meanwhile.
        ended = self._answer.duplicate()
        try:
            while self._outputs:
                ready = await readable([*self._outputs, ended])
                over = ended in ready
                for descriptor in list(self._outputs):
                    while data := _read(descriptor):
                        yield self._outputs[descriptor], data
                        if not over:
                            break
                    if data == b"":
                        self._end_output(descriptor)
                if over:
                    for descriptor in list(self._outputs):
                        self._end_output(descriptor)
        finally:
            os.close(ended)

    def _end_output(self, descriptor: int) -> None:
        if self._outputs.pop(descriptor, None) is not None and descriptor != self._stdin:
            os.close(descriptor)

    async def write(self, data: bytes) -> None:
        """Pass input on. BrokenPipeError when the program reads no more."""
        if self._stdin is None:
            raise BrokenPipeError(errno.EPIPE, "standard input is closed")
        await write_all(self._stdin, data)

    async def end_input(self) -> None:
        """There is no more input. In a terminal this is what typing ^D does."""
        if self._stdin is None:
            return
        if os.isatty(self._stdin):
            await write_all(self._stdin, b"\x04")
            return
        os.close(self._stdin)
        self._stdin = None

    def resize(self, rows: int, columns: int) -> None:
        """The terminal's size; nothing without one."""
        if self._stdin is not None and os.isatty(self._stdin):
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        """Its exit code, 128 and the signal's number when it was killed."""
        async with self._exited:
            if self.exit_code is None:
                word, _, code = (await self._answer.line()).partition(" ")
                # Whoever waited for it was killed, and so was the program with it.
                self.exit_code = int(code) if word == "exited" else 128 + signal.SIGKILL
        return self.exit_code

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send it a signal; False when it is gone."""
        process = Process.find(self.pid, self._start)
        if process is None:
            return False
        try:
            return process.send(number)
        finally:
            process.close()

    def close(self) -> None:
        """Let go of the streams; whoever waits for the program kills it then if it still runs. Idempotent."""
        for descriptor in {*self._outputs, *([self._stdin] if self._stdin is not None else [])}:
            os.close(descriptor)
        self._outputs.clear()
        self._stdin = None
        self._answer.close()


async def execute(
    container: Container,
    spawner: Spawner,
    argv: Sequence[str],
    *,
    env: Sequence[str] = (),
    cwd: str = "",
    account: tuple[int, int, list[int]] | None = None,
    terminal: bool = False,
    stdin: bool = False,
) -> ExecProcess:
    """Run `argv` in a running container. ExecRefused when there is no such program, TemporaryFailure when not now."""
    running, run = container.running, container.run
    if not running or run is None:
        raise TemporaryFailure(f"container {container.record.container_id} is not running")
    record = container.record
    program = program_settings(record, argv, files_folder(record), env, cwd, account)
    if terminal:
        program["env"] = ["TERM=xterm", *record.env, *env]
    settings = exec_settings(record, run, program, terminal, cgroups.entries(container.groups))
    outputs, into, theirs = _terminal(run.shim, record.isolated) if terminal else _pipes(stdin)
    try:
        answer = await spawner.ask("x", settings, theirs)
        try:
            word, _, rest = (await answer.line()).partition(" ")
            if word == "running":
                pid, start = rest.split()
                return ExecProcess(int(pid), int(start), answer, into, outputs)
            if word == "refused":
                code, _, text = rest.partition(" ")
                raise ExecRefused(int(code), f"OCI runtime exec failed: {text}: unknown")
            raise TemporaryFailure(f"exec failed: {rest or 'the spawner was killed'}")
        except BaseException:
            answer.close()
            raise
    except BaseException:
        for descriptor in {*outputs, *([into] if into is not None else [])}:
            os.close(descriptor)
        raise
    finally:
        for descriptor in set(theirs):
            os.close(descriptor)


async def run_check(process: ExecProcess) -> tuple[int, str]:
    """Read a health check's output to its end; exit code and the first part of the output. Closes the process."""
    kept = b""
    try:
        async for _stream, data in process.output():
            kept = (kept + data)[:MAX_OUTPUT]
        return await process.wait(), kept.decode("utf-8", "replace")
    finally:
        process.close()


_Streams = tuple[dict[int, Stream], int | None, list[int]]
"""Our output descriptors, our input if any (both non-blocking), and the program's three."""


def _pipes(stdin: bool) -> _Streams:
    out, out_end = os.pipe2(os.O_CLOEXEC)
    err, err_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    outputs = {out: Stream.STDOUT, err: Stream.STDERR}
    if not stdin:
        return outputs, None, [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), out_end, err_end]
    into_end, into = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(into, False)
    return outputs, into, [into_end, out_end, err_end]


def _terminal(shim: int, isolated: bool) -> _Streams:
    """A terminal, of the container's own /dev/pts where it has one: programs look for its name there."""
    if isolated:
        master = os.open(f"/proc/{shim}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    else:
        master, slave = pty.openpty()
    os.set_blocking(master, False)
    return {master: Stream.STDOUT}, master, [slave, slave, slave]


def _read(descriptor: int) -> bytes | None:
    """What there is to read, None for nothing yet, empty at the end. (A terminal whose other side is closed says EIO.)"""
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""

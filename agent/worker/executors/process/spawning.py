"""The agent's side of the spawner: starts it when it is needed, passes requests, hands out the answers."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import marshal
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.worker.executors.process import shim
from agent.worker.executors.process.processes import Process, process_start
from agent.worker.executors.process.readiness import readable, writable
from agent.worker.interface import TemporaryFailure

log = logging.getLogger(__name__)

IN_FLIGHT = 32
"""Requests at a time; each holds some descriptors."""


def interpreter() -> list[str]:
    """The command that runs our own Python bare: no site packages, no environment variables, no user's folder."""
    # The real file: through a virtual environment's link it would look for that environment first.
    words = [os.path.realpath(sys.executable), "-S", "-E", "-s"]
    return [*words, "-B"] if sys.dont_write_bytecode else words


class Answer:
    """The answer to one request, a line at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    async def line(self) -> str:
        """The next line without its end; empty when whoever answers is gone."""
        while b"\n" not in self._rest:
            await readable([self._descriptor])
            data = os.read(self._descriptor, 4096)
            if not data:
                return ""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace")

    def duplicate(self) -> int:
        """Another descriptor, the caller's, that is readable when this has something to say."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Spawner:
    """Starts processes by way of the spawner. Close it; what it started goes on."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._closed = False

    async def ask(self, letter: str, settings: dict[str, object], streams: Sequence[int] = ()) -> Answer:
        """Send a request; `streams` are passed along and stay the caller's. TemporaryFailure when there is no spawner."""
        async with self._slots:
            for attempt in (1, 2):
                channel = self._ensure()
                with _request(settings) as (memory, answer, answer_end):
                    try:
                        await self._send(channel, letter.encode(), [memory, answer_end, *streams])
                    except OSError as error:
                        # It was killed. A request is only ever carried out once: this one never arrived.
                        os.close(answer)
                        self._forget()
                        if attempt == 2:
                            raise TemporaryFailure(f"the spawner cannot be reached: {error}") from None
                        continue
                    except BaseException:
                        os.close(answer)
                        raise
                    return Answer(answer)
        raise AssertionError("unreachable")

    async def _send(self, channel: socket.socket, data: bytes, descriptors: list[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        while True:
            try:
                channel.sendmsg([data], rights)
                return
            except BlockingIOError:
                await writable(channel.fileno())

    def _ensure(self) -> socket.socket:
        if self._closed:
            raise TemporaryFailure("the executor is closed")
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._forget()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            path = Path(shim.__file__).with_name("__main__.py")
            self._process = subprocess.Popen(
                [*interpreter(), str(path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise TemporaryFailure(f"the spawner cannot be started: {error}") from None
        finally:
            theirs.close()
        self._socket = ours
        return ours

    def _forget(self) -> None:
        """Let go of the spawner, which ends when it sees so."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def close(self) -> None:
        """End the spawner, which first carries out what it was sent. Idempotent."""
        self._closed = True
        if self._socket is not None and self._process is not None and (start := process_start(self._process.pid)):
            self._socket.close()
            spawner = Process.find(self._process.pid, start)
            if spawner is not None:
                try:
                    await spawner.gone()
                finally:
                    spawner.close()
        self._forget()


@contextmanager
def _request(settings: dict[str, object]) -> Iterator[tuple[int, int, int]]:
    """A memory file with the settings and both ends of the answer's pipe; the read end is the caller's afterwards."""
    with contextlib.ExitStack() as stack:
        memory = os.memfd_create("settings", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(marshal.dumps(settings))
        answer, answer_end = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, answer_end)
        yield memory, answer, answer_end

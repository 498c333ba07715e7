"""The execs of one server: what was asked for, what runs, and how it ended."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from agent.api_types.errors import NotFound
from agent.api_types.fields import ApiObject, omitempty
from agent.worker.executors.process.execs import ExecProcess

EXECS_KEPT = 256
"""Execs that are remembered; the oldest that has ended makes room."""
KILLED = 137
"""The exit code of a program that was ended because nobody watched it any more."""


class ExecConfig(ApiObject, frozen=True):
    """Body of `POST /containers/ID/exec`."""

    cmd: list[str] = omitempty("Cmd", [])
    env: list[str] = omitempty("Env", [])
    working_dir: str = omitempty("WorkingDir", "")
    user: str = omitempty("User", "")
    tty: bool = omitempty("Tty", False)
    attach_stdin: bool = omitempty("AttachStdin", False)
    attach_stdout: bool = omitempty("AttachStdout", False)
    attach_stderr: bool = omitempty("AttachStderr", False)
    privileged: bool = omitempty("Privileged", False)
    detach_keys: str = omitempty("DetachKeys", "")


@dataclass(slots=True)
class Exec:
    """One exec. `exit_code` is None until it ended."""

    id: str
    container_id: str
    config: ExecConfig
    process: ExecProcess | None = None
    started: bool = False
    exit_code: int | None = None

    def end(self) -> None:
        """Let go of its process, which ends it unless it has ended."""
        if self.process is not None:
            self.process.close()
            self.process = None
        if self.exit_code is None:
            self.exit_code = KILLED

    async def run_to_end(self) -> None:
        """Until it ends; what it writes is read and thrown away."""
        assert self.process is not None
        try:
            async for _ in self.process.output():
                pass
            self.exit_code = await self.process.wait()
        finally:
            self.end()


class Execs:
    """The execs of one server, the newest last."""

    def __init__(self) -> None:
        self._execs: OrderedDict[str, Exec] = OrderedDict()
        self._detached: set[asyncio.Task[None]] = set()

    def add(self, container_id: str, config: ExecConfig) -> Exec:
        """Remember a new one."""
        made = Exec(secrets.token_hex(32), container_id, config)
        self._execs[made.id] = made
        if len(self._execs) > EXECS_KEPT:
            ended = next((old.id for old in self._execs.values() if old.process is None), None)
            if ended is not None and ended != made.id:
                del self._execs[ended]
        return made

    def find(self, exec_id: str) -> Exec:
        """The exec of that id or of that beginning of an id."""
        found = [one for one in self._execs.values() if one.id.startswith(exec_id)]
        if len(found) != 1:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found[0]

    def run_detached(self, one: Exec) -> None:
        """Let it run; what it writes is nobody's."""
        task = asyncio.create_task(one.run_to_end())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)

    async def close(self) -> None:
        """End those that nobody watches."""
        for task in self._detached:
            task.cancel()
        await asyncio.gather(*self._detached, return_exceptions=True)

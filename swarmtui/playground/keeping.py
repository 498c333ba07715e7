"""The session's end of the keeper's socket: requests with answers, and events, on the asyncio loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swarmtui.playground.keeper import Configuration
from swarmtui.playground.wire import Message

_LONGEST_CLOSE = 30.0
"""Seconds; removing the data of fifty engines takes some."""


class KeeperFailed(Exception):
    """The keeper refused a request or is gone; the text says what happened."""


class KeeperGone(KeeperFailed):
    """The keeper has ended, and with it every instance."""


class KeeperLink:
    """A running keeper. Made by `launch`, ended by `close`; a session that dies without closing ends it as well."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process,
        on_event: Callable[[Message], None],
        log: Path,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._process = process
        self._on_event = on_event
        self._log = log
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(), name="playground-keeper")

    @classmethod
    async def launch(
        cls,
        configuration: Configuration,
        lock: int,
        environment: Mapping[str, str],
        on_event: Callable[[Message], None],
    ) -> KeeperLink:
        """Start a keeper and wait until its network is there. `lock` is the descriptor of the session's lock, held."""
        ours, theirs = socket.socketpair()
        log = Path(configuration.folder) / "keeper.log"
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with theirs, os.fdopen(output, "ab"):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "swarmtui.playground.keeper",
                configuration.folder,
                str(theirs.fileno()),
                str(lock),
                pass_fds=(theirs.fileno(), lock),
                env=dict(environment),
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        link = cls(reader, writer, process, on_event, log)
        writer.write(json.dumps(asdict(configuration)).encode() + b"\n")
        try:
            await link._up
        except BaseException:
            await link.abandon()
            raise
        return link

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._process.pid

    async def start(self, instance: str, address: str, hosts: str) -> int:
        """Start an instance; returns its process 1 when it is a machine, before anything runs in it."""
        answer = await self._request("start", instance=instance, address=address, hosts=hosts)
        return int(answer["pid"])

    async def spawn(self, instance: str, service: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start a service in an instance; returns its process id as the host sees it."""
        answer = await self._request(
            "spawn", instance=instance, service=service, argv=list(argv), env=dict(env), log=str(log)
        )
        return int(answer["pid"])

    async def stop(self, instance: str) -> None:
        """Cut an instance's power; returns when everything in it is gone."""
        await self._request("stop", instance=instance)

    async def freeze(self, instance: str, frozen: bool) -> None:
        """Stop all processes of an instance where they are, or let them go on."""
        await self._request("freeze", instance=instance, frozen=frozen)

    async def close(self) -> None:
        """End the session: instances, network, groups, folder. Raises KeeperFailed when something is left."""
        try:
            async with asyncio.timeout(_LONGEST_CLOSE):
                await self._request("close")
        except TimeoutError:
            # It hangs, or was stopped. Killed, it lets go of the session, and the sweep that follows can begin.
            self._process.kill()
        except KeeperGone:
            # What it could not do is done by the sweep that follows.
            pass
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Let go of the keeper, which then ends the session by itself, and wait until it has."""
        self._writer.close()
        await self._process.wait()
        await self._listening

    async def _request(self, operation: str, **content: Any) -> Message:
        if self._listening.done():
            raise KeeperGone(self._gone())
        number = next(self._numbers)
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        self._writer.write(json.dumps({"id": number, "op": operation, **content}).encode() + b"\n")
        try:
            answer = await answered
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise KeeperFailed(answer["error"])
        return answer

    async def _listen(self) -> None:
        failure = ""
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "id" in message:
                    answered = self._waiting.get(message["id"])
                    if answered is not None and not answered.done():
                        answered.set_result(message)
                elif message["event"] == "up":
                    self._up.set_result(None)
                elif message["event"] == "failed":
                    failure = message["error"]
                else:
                    self._on_event(message)
        except ConnectionError:
            failure = failure or self._gone()
        error = KeeperGone(failure or self._gone())
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        if not self._up.done():
            self._up.set_exception(error)
        # Nobody may be waiting for it any more, which is no fault.
        self._up.exception()
        self._on_event({"event": "closed"})

    def _gone(self) -> str:
        try:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        except FileNotFoundError:
            last = []
        return f"the playground's keeper has ended{': ' if last else ''}{''.join(last)}"


def clean_environment(
    session_variable: str, session: str, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What everything in the playground sees: paths and language, no DOCKER_HOST of the person's, and the session's mark."""
    known = os.environ if inherited is None else inherited
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR")
    environment = {name: known[name] for name in kept if name in known}
    environment.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {**environment, session_variable: session}

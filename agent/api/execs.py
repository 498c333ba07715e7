"""`docker exec` in a container that is a process: made by one request, started by another, watched by a third."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.api.call import Call, done, reply
from agent.api.containers import inventory_of, whole_number
from agent.api.exec_table import Exec, ExecConfig
from agent.api.frames import STREAM_NUMBERS, frame, stream_media
from agent.api.splice import CHUNK, TakenOver, take_over
from agent.api_types.errors import ApiError, InvalidArgument
from agent.api_types.fields import ApiObject, omitempty
from agent.worker.executors.process.execs import ExecProcess

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a program that could not be run, as a shell has them."""


class Conflict(ApiError):
    """It was started before."""

    status = 409


class ExecStart(ApiObject, frozen=True):
    """Body of `POST /exec/ID/start`; `console_size` is height and width."""

    detach: bool = omitempty("Detach", False)
    tty: bool = omitempty("Tty", False)
    console_size: list[int] = omitempty("ConsoleSize", [])


async def create(call: Call) -> web.StreamResponse:
    """`POST /containers/ID/exec`."""
    inventory = inventory_of(call)
    config = await call.json(ExecConfig)
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    container = await inventory.find(call.params["id"])
    if not container.running:
        raise Conflict(f"Container {container.record.container_id} is not running")
    made = call.state.execs.add(container.record.container_id, config)
    return reply({"Id": made.id}, 201, subject=f"exec in container {container.record.name}: {config.cmd[0]}")


async def start(call: Call) -> web.StreamResponse:
    """`POST /exec/ID/start`: the connection becomes the program's streams, unless it is detached."""
    inventory = inventory_of(call)
    one = call.state.execs.find(call.params["id"])
    body = await call.json(ExecStart)
    if one.started:
        raise Conflict(f"Error: Exec command {one.id} is already running")
    one.started = True
    config = one.config
    try:
        one.process = await inventory.exec(
            one.container_id,
            config.cmd,
            env=config.env,
            working_dir=config.working_dir,
            user=config.user,
            tty=config.tty,
            stdin=config.attach_stdin and not body.detach,
        )
    except ApiError as error:
        one.exit_code = NOT_FOUND if "not found" in str(error) or "no such file" in str(error) else NOT_EXECUTABLE
        if body.detach:
            raise
        return await _tell(call, one, f"{error}\r\n".encode())
    if len(body.console_size) == 2:
        one.process.resize(body.console_size[0], body.console_size[1])
    if body.detach:
        call.state.execs.run_detached(one)
        return done()
    return await _attach(call, one, one.process)


async def _tell(call: Call, one: Exec, text: bytes) -> web.StreamResponse:
    """The engine says on the program's own output that it cannot be run; the exit code tells it from a program's words."""
    _, writer = take_over(call.request)
    writer.write(_head(call, tty=one.config.tty))
    writer.write(text if one.config.tty else frame(STREAM_NUMBERS["stdout"], text))
    writer.close()
    return TakenOver()


async def _attach(call: Call, one: Exec, process: ExecProcess) -> web.StreamResponse:
    try:
        reader, writer = take_over(call.request)
        writer.write(_head(call, tty=one.config.tty))
        typing = asyncio.create_task(_type(reader, process))
        try:
            async for stream, data in process.output():
                writer.write(data if one.config.tty else frame(STREAM_NUMBERS[stream], data))
                await writer.drain()
            # The CLI asks for the exit code as soon as the stream ends, so it has to be known before.
            one.exit_code = await process.wait()
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)
            writer.close()
    finally:
        one.end()
    return TakenOver()


async def _type(reader: asyncio.StreamReader, process: ExecProcess) -> None:
    """What the client sends goes to the program, until either has had enough."""
    try:
        while data := await reader.read(CHUNK):
            await process.write(data)
        await process.end_input()
    except (BrokenPipeError, ConnectionError):
        return


def _head(call: Call, *, tty: bool) -> bytes:
    media = stream_media(call.version, framed=not tty)
    upgraded = "101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp"
    status = upgraded if "Upgrade" in call.request.headers else "200 OK"
    return f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n\r\n".encode()


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /exec/ID/json`."""
    inventory_of(call)
    one = call.state.execs.find(call.params["id"])
    config = one.config
    return reply(
        {
            "ID": one.id,
            "Running": one.process is not None,
            "ExitCode": one.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": config.cmd[0],
                "arguments": config.cmd[1:],
                "privileged": config.privileged,
                "user": config.user,
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": False,
            "ContainerID": one.container_id,
            "DetachKeys": "",
            "Pid": 0 if one.process is None else one.process.pid,
        }
    )


async def resize(call: Call) -> web.StreamResponse:
    """`POST /exec/ID/resize`."""
    inventory_of(call)
    one = call.state.execs.find(call.params["id"])
    rows, columns = whole_number(call, "h", 0), whole_number(call, "w", 0)
    if not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise InvalidArgument("a terminal has between 0 and 65535 rows and columns")
    if one.process is None:
        raise Conflict(f"Exec {one.id} is not running")
    one.process.resize(rows, columns)
    return done()

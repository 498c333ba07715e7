"""`swarmtui service logs` (and `swarmtui logs`): lines in the order of time, as text or as JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import click
import msgspec

from swarmtui.commands.lookups import hostnames
from swarmtui.commands.output import SHORT_ID, printable
from swarmtui.commands.session import with_client
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import NotFound
from swarmtui.docker_api.times import format_time, parse_duration, parse_time
from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.logs.records import LogLine, LogNotice, LogOptions, LogStream, NoticeKind
from swarmtui.logs.session import LogSession
from swarmtui.model.row_making import task_name
from swarmtui.operations.base import OperationFailed


@click.command("logs")
@click.argument("names", nargs=-1, required=True, metavar="SERVICE|TASK...")
@click.option("-f", "--follow", is_flag=True, help="Stay and print what comes.")
@click.option("-n", "--tail", default="all", show_default=True, help="Lines from the end of each log.")
@click.option("--since", default="", help="Only since a time (2026-11-21T09:00:00Z) or for so long (15m).")
@click.option("--until", default="", help="Only until a time or so long ago.")
@click.option("-t", "--timestamps", is_flag=True, help="Print each line's time.")
@click.option("--no-task-ids", is_flag=True, help="Leave the task's id out.")
@click.option("--no-resolve", is_flag=True, help="Ids instead of names.")
@click.option("--no-trunc", is_flag=True, help="Ids in full.")
@click.option("--raw", is_flag=True, help="The lines alone, control characters as they are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_client
async def service_logs(
    client: EngineClient,
    names: tuple[str, ...],
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    no_task_ids: bool,
    no_resolve: bool,
    no_trunc: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Print the logs of services or tasks, all replicas in the order of time."""
    now = time.time_ns()
    wanted = LogOptions(follow, moment_option(since, now), moment_option(until, now), tail_option(tail))
    services, tasks = [], []
    for name in names:
        try:
            services.append((await client.service(name)).id)
        except NotFound:
            try:
                tasks.append((await client.task(name)).id)
            except NotFound:
                raise OperationFailed(f"no such task or service: {name}") from None
    origin = Origins(client, ids=not no_task_ids, resolve=not no_resolve, full=no_trunc)
    writer = Writer(origin, timestamps=timestamps, raw=raw, as_json=as_json)
    async with LogSession(client, services=services, tasks=tasks, options=wanted) as session:
        async for batch in session.batches():
            for event in batch:
                if isinstance(event, LogLine):
                    await writer.line(event)
                else:
                    writer.notice(event)
            sys.stdout.flush()


def moment_option(text: str, now: int) -> int:
    """A time, seconds since the epoch, or a duration before `now`; nanoseconds since the epoch, 0 for ""."""
    if not text:
        return 0
    try:
        return parse_time(text) if "T" in text else now - parse_duration(text)
    except ValueError:
        whole, _, fraction = text.partition(".")
        if whole.isdecimal() and (not fraction or fraction.isdecimal()):
            return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    raise click.UsageError(f"{text!r} is neither a time such as 2026-11-21T09:00:00Z nor a duration such as 15m")


def tail_option(text: str) -> int | None:
    """A number of lines; None for all."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise click.UsageError(f'--tail {text}: write a number of lines, or "all"')
    return int(text)


class Origins:
    """Names of tasks and nodes, looked up once each."""

    def __init__(self, client: EngineClient, *, ids: bool, resolve: bool, full: bool) -> None:
        self._client = client
        self._ids = ids
        self._resolve = resolve
        self._full = full
        self._names: dict[str, str] = {}
        self._services: dict[str, Service | None] = {}
        self._nodes: Mapping[str, Node] = {}
        self.width = 0
        """Of the longest name so far: the text behind it is aligned."""

    async def name(self, line: LogLine) -> str:
        """`web.1.rb008m8o2mzv@node2`."""
        known = self._names.get(line.task_id)
        if known is None:
            known = self._names[line.task_id] = await self._look_up(line)
            self.width = max(self.width, len(known))
        return known

    async def _look_up(self, line: LogLine) -> str:
        task_id = line.task_id if self._full else line.task_id[:SHORT_ID]
        if not self._resolve or not line.task_id:
            return f"{task_id}@{line.node_id[:SHORT_ID]}" if line.node_id else task_id
        try:
            task = await self._client.task(line.task_id)
        except NotFound:
            task = Task(id=line.task_id, service_id=line.service_id, node_id=line.node_id)
        if task.service_id not in self._services:
            try:
                self._services[task.service_id] = await self._client.service(task.service_id)
            except NotFound:
                self._services[task.service_id] = None
        if line.node_id not in self._nodes:
            self._nodes = await hostnames(self._client)
        node = self._nodes.get(line.node_id)
        name = task_name(task, self._services[task.service_id])
        host = node.description.hostname if node else line.node_id
        return f"{name}.{task_id}@{host}" if self._ids else f"{name}@{host}"


class Writer:
    """Lines to stdout, those of a replica's stderr and all notices to stderr."""

    def __init__(self, origins: Origins, *, timestamps: bool, raw: bool, as_json: bool) -> None:
        self._origins = origins
        self._timestamps = timestamps
        self._raw = raw
        self._json = as_json
        self._escape = not raw and sys.stdout.isatty()

    async def line(self, line: LogLine) -> None:
        """Print a line."""
        if self._json:
            fields = {
                "time": format_time(line.timestamp) if line.timestamp else None,
                "stream": line.stream.value,
                "task": line.task_id,
                "service": line.service_id,
                "node": line.node_id,
                "name": await self._origins.name(line),
                "text": line.text,
            }
            click.echo(msgspec.json.encode(fields).decode())
            return
        text = printable(line.text) if self._escape else line.text
        if self._timestamps and line.timestamp:
            text = f"{format_time(line.timestamp)} {text}"
        if not self._raw:
            name = await self._origins.name(line)
            text = f"{name.ljust(self._origins.width)}    | {text}"
        # Not `click.echo`: it would take colours out of what goes into a file.
        if line.stream is LogStream.STDERR:
            sys.stdout.flush()  # Where both go to the same place the order must hold.
            sys.stderr.write(text + "\n")
        else:
            sys.stdout.write(text + "\n")

    def notice(self, notice: LogNotice) -> None:
        """Print what is missing; not with the lines, which may go into a file."""
        if notice.kind is NoticeKind.STARTED:
            return
        if self._json:
            fields = {"time": format_time(notice.timestamp) if notice.timestamp else None, "notice": notice.kind.value}
            click.echo(msgspec.json.encode({**fields, "text": notice.text}).decode())
            return
        click.echo(f"-- {printable(notice.text)}", err=True)

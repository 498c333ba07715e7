"""`/services/ID/logs` and `/tasks/ID/logs`: the lines of all replicas, merged by the cluster, in Docker's frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from agent.api.backend import LogOptions, LogReader, LogsMissing
from agent.api.call import Call
from agent.api.frames import STREAM_NUMBERS, SYSTEM_ERROR, frame, stream_media
from agent.api.lookup import NO_LEADER, find_service, find_task, manager_store
from agent.api.moments import parse_moment
from agent.api_types.container import ContainerSpec
from agent.api_types.errors import InvalidArgument, Unavailable
from agent.api_types.task import Task
from agent.api_types.times import format_time
from agent.rpc.messages import LogRecord
from agent.store.store import Store


def format_record(record: LogRecord, task: Task | None, *, timestamps: bool, details: bool) -> bytes:
    """A line as Docker writes it: time, details, text, line end."""
    parts = []
    if timestamps:
        parts.append(format_time(record.timestamp).encode())
    if details:
        node_id, service_id = (task.node_id, task.service_id) if task is not None else ("", "")
        prefix = "com.docker.swarm"
        parts.append(
            f"{prefix}.node.id={node_id},{prefix}.service.id={service_id},{prefix}.task.id={record.task_id}".encode()
        )
    parts.append(record.data)
    return b" ".join(parts) + b"\n"


def missing_text(missing: list[LogsMissing]) -> str:
    """What to say at the end of an incomplete stream (swarmkit manager/logbroker)."""
    reasons = ", ".join(notice.reason for notice in missing)
    return (
        "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. "
        f"some logs could not be retrieved for the following reasons: {reasons}\n"
    )


def log_options(call: Call) -> LogOptions:
    """The options of the query; InvalidArgument for what makes no sense."""
    stdout, stderr = call.flag("stdout", lenient=True), call.flag("stderr", lenient=True)
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = call.query.get("tail", "")
    if tail in ("", "all"):
        lines = -1
    elif tail.isascii() and tail.isdigit():
        lines = int(tail)
    elif tail.startswith("-") and tail[1:].isdigit():
        raise InvalidArgument("negative tail values not supported")
    else:
        raise InvalidArgument('tail value must be a positive integer or "all"')
    return LogOptions(
        since=parse_moment(call.query.get("since", ""), "since") or 0,
        until=parse_moment(call.query.get("until", ""), "until") or 0,
        tail=lines,
        follow=call.flag("follow", lenient=True),
        stdout=stdout,
        stderr=stderr,
    )


def _reader(call: Call) -> LogReader:
    if call.backend.logs is None:
        raise Unavailable(NO_LEADER)
    return call.backend.logs


async def of_service(call: Call) -> web.StreamResponse:
    """`GET /services/ID/logs`."""
    store = manager_store(call.backend)
    options = log_options(call)
    await call.fresh(store)
    service = store.view(lambda tx: find_service(tx, call.params["id"]))
    records = _reader(call).read(service_id=service.id, options=options)
    return await _write(call, store, records, service.spec.task_template.container_spec)


async def of_task(call: Call) -> web.StreamResponse:
    """`GET /tasks/ID/logs`."""
    store = manager_store(call.backend)
    options = log_options(call)
    await call.fresh(store)
    task = store.view(lambda tx: find_task(tx, call.params["id"]))
    records = _reader(call).read(task_ids=[task.id], options=options)
    return await _write(call, store, records, task.spec.container_spec)


async def _write(
    call: Call, store: Store, records: AsyncGenerator[LogRecord | LogsMissing, None], container: ContainerSpec | None
) -> web.StreamResponse:
    """A container with a terminal has one stream and no frames."""
    framed = container is None or not container.tty
    timestamps, details = call.flag("timestamps", lenient=True), call.flag("details", lenient=True)
    tasks: dict[str, Task | None] = {}
    missing: list[LogsMissing] = []
    with call.streaming():
        response = await call.open_stream(stream_media(call.version, framed))
        async with aclosing(records) as lines:
            async for record in lines:
                if isinstance(record, LogsMissing):
                    missing.append(record)
                    continue
                if record.task_id not in tasks:
                    tasks[record.task_id] = _task(store, record.task_id)
                text = format_record(record, tasks[record.task_id], timestamps=timestamps, details=details)
                await response.write(frame(STREAM_NUMBERS[record.stream], text) if framed else text)
        if missing:
            notice = missing_text(missing).encode()
            await response.write(frame(SYSTEM_ERROR, notice) if framed else notice)
    return response


def _task(store: Store, task_id: str) -> Task | None:
    return store.view(lambda tx: tx.get(Task, task_id))

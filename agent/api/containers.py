"""The containers and images of a node without an engine: what the process executor runs, as the Docker Engine's API shows it.

Only what belongs to the tasks of services can be seen and stopped; making containers is the swarm's work alone.
"""

from __future__ import annotations

from aiohttp import web

from agent.api.call import Call, done, reply
from agent.api.frames import STREAM_NUMBERS, frame, stream_media
from agent.api.moments import parse_moment
from agent.api_types.codec import encode_json
from agent.api_types.errors import InvalidArgument, NotFound, Unimplemented
from agent.api_types.times import format_time
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.executors.process.inventory import FILTERS, Inventory

NO_ENGINE = "this node has no Docker Engine: its tasks are processes of the host"


def inventory_of(call: Call) -> Inventory:
    """What runs here; Unimplemented when it is not the process executor that runs it."""
    executor = call.backend.executor
    if not isinstance(executor, ProcessExecutor):
        raise Unimplemented(f"{call.request.method} {call.path}: {NO_ENGINE}")
    return executor.inventory


def whole_number(call: Call, name: str, default: int) -> int:
    """An integer of the query."""
    raw = call.query.get(name, "")
    if not raw:
        return default
    digits = raw.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise InvalidArgument(f'invalid value for {name}: strconv.Atoi: parsing "{raw}": invalid syntax')
    return int(raw)


async def list_containers(call: Call) -> web.StreamResponse:
    """`GET /containers/json`."""
    filters = call.filters(*FILTERS)
    shown = await inventory_of(call).list_containers(
        all=call.flag("all", lenient=True), filters=filters.values, limit=whole_number(call, "limit", 0)
    )
    return reply(shown)


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /containers/ID/json`."""
    return reply(await inventory_of(call).inspect(call.params["id"]))


async def logs(call: Call) -> web.StreamResponse:
    """`GET /containers/ID/logs`."""
    inventory = inventory_of(call)
    stdout, stderr = call.flag("stdout", lenient=True), call.flag("stderr", lenient=True)
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = call.query.get("tail", "")
    timestamps = call.flag("timestamps", lenient=True)
    container = await inventory.inspect(call.params["id"])
    framed = not container["Config"]["Tty"]
    lines = inventory.logs(
        call.params["id"],
        since=parse_moment(call.query.get("since", ""), "since") or 0,
        until=parse_moment(call.query.get("until", ""), "until") or 0,
        follow=call.flag("follow", lenient=True),
        # The engine takes whatever is no number for "all".
        tail=int(tail) if tail.isascii() and tail.isdigit() else -1,
        stdout=stdout,
        stderr=stderr,
    )
    with call.streaming():
        response = await call.open_stream(stream_media(call.version, framed))
        async for line in lines:
            text = line.data + b"\n"
            if timestamps:
                text = format_time(line.timestamp).encode() + b" " + text
            await response.write(frame(STREAM_NUMBERS[line.stream], text) if framed else text)
    return response


async def top(call: Call) -> web.StreamResponse:
    """`GET /containers/ID/top`."""
    return reply(await inventory_of(call).top(call.params["id"]))


async def stats(call: Call) -> web.StreamResponse:
    """`GET /containers/ID/stats`."""
    inventory = inventory_of(call)
    await inventory.find(call.params["id"])
    stream = call.query.get("stream", "true") not in ("0", "false", "False")
    elements = inventory.stats(call.params["id"], stream=stream, one_shot=call.flag("one-shot", lenient=True))
    with call.streaming():
        response = await call.open_stream("application/json")
        async for element in elements:
            await response.write(encode_json(element) + b"\n")
    return response


async def stop(call: Call) -> web.StreamResponse:
    """`POST /containers/ID/stop`: 304 when it did not run."""
    grace = whole_number(call, "t", 0) if call.query.get("t") else None
    stopped = await inventory_of(call).stop(call.params["id"], grace, call.query.get("signal", ""))
    return done(204 if stopped else 304, subject=f"container {call.params['id']}")


async def kill(call: Call) -> web.StreamResponse:
    """`POST /containers/ID/kill`."""
    await inventory_of(call).kill(call.params["id"], call.query.get("signal", ""))
    return done(204, subject=f"container {call.params['id']}")


async def wait(call: Call) -> web.StreamResponse:
    """`POST /containers/ID/wait`: the head at once, the exit code when it ended."""
    inventory = inventory_of(call)
    await inventory.find(call.params["id"])
    with call.streaming():
        response = await call.open_stream("application/json")
        await response.write(encode_json({"StatusCode": await inventory.wait(call.params["id"])}) + b"\n")
    return response


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /containers/ID`."""
    await inventory_of(call).remove(call.params["id"], force=call.flag("force", lenient=True))
    return done(204, subject=f"container {call.params['id']}")


async def list_images(call: Call) -> web.StreamResponse:
    """`GET /images/json`: the images that ship with the product."""
    filters = call.filters("before", "dangling", "label", "reference", "since", "until")
    if filters.get("dangling") and filters.exact("dangling", "true"):
        return reply([])
    return reply(await inventory_of(call).images(filters.values))


async def inspect_image(call: Call) -> web.StreamResponse:
    """`GET /images/NAME/json`."""
    return reply(await inventory_of(call).image(call.params["name"]))


async def inspect_distribution(call: Call) -> web.StreamResponse:
    """`GET /distribution/NAME/json`: what a registry would say of an image that every node has.

    Without a digest the docker CLI keeps the image's name as it is, and does not warn that nodes may run different ones.
    """
    await inventory_of(call).image(call.params["name"])
    return reply({"Descriptor": {"mediaType": "", "digest": "", "size": 0}, "Platforms": []})


async def inspect_volume(call: Call) -> web.StreamResponse:
    """`GET /volumes/NAME`: none can be shown, and `docker inspect NAME` goes on to services and tasks."""
    inventory_of(call)
    raise NotFound(f"get {call.params['name']}: no such volume")


async def inspect_plugin(call: Call) -> web.StreamResponse:
    """`GET /plugins/NAME/json`: there is none, and `docker inspect NAME` goes on."""
    inventory_of(call)
    raise NotFound(f'plugin "{call.params["name"]}" not found')

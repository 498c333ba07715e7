"""`swarmtui events`: what happens, as it happens."""

from __future__ import annotations

import time

import click

from swarmtui.commands.log_output import moment_option
from swarmtui.commands.service import FILTER, filters_of
from swarmtui.commands.session import with_client
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.engine_types import Event
from swarmtui.docker_api.times import format_time


@click.command()
@FILTER
@click.option("--since", default="", help="From a time or so long ago on.")
@click.option("--until", default="", help="Until a time or so long ago; without, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_client
async def events(client: EngineClient, filters: tuple[str, ...], since: str, until: str, as_json: bool) -> None:
    """Print the cluster's and the engine's events."""
    now = time.time_ns()
    begin, end, wanted = moment_option(since, now), moment_option(until, now), filters_of(filters)
    if as_json:
        async for line in client.raw_events(since=begin, until=end, filters=wanted):
            click.echo(line.decode(errors="replace"))
        return
    async for event in client.events(since=begin, until=end, filters=wanted):
        click.echo(event_line(event))


def event_line(event: Event) -> str:
    """As the docker CLI prints it: time, type, action, id, attributes."""
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((event.actor.attributes or {}).items()))
    text = f"{format_time(event.time_nano)} {event.type} {event.action} {event.actor.id}"
    return f"{text} ({attributes})" if attributes else text

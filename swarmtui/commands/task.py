"""`swarmtui task`: every task of the cluster."""

from __future__ import annotations

import asyncio
import time

import click

from swarmtui.commands.lookups import hostnames, node_id
from swarmtui.commands.service import FILTER, JSON, NO_TRUNC, QUIET_IDS, filters_of
from swarmtui.commands.session import CommandFailed, failure_text, print_json, with_client
from swarmtui.commands.task_table import task_table
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import NotFound


@click.group()
def task() -> None:
    """Look at tasks."""


@task.command("ls")
@FILTER
@QUIET_IDS
@JSON
@NO_TRUNC
@with_client
async def list_tasks(
    client: EngineClient, filters: tuple[str, ...], quiet: bool, as_json: bool, no_trunc: bool
) -> None:
    """List the tasks of all services, history included."""
    wanted = filters_of(filters)
    if "node" in wanted:
        wanted["node"] = [await node_id(client, name) for name in wanted["node"]]
    if as_json:
        print_json(await client.raw_list("/tasks", wanted))
        return
    tasks, services, nodes = await asyncio.gather(client.tasks(wanted), client.services(), hostnames(client))
    by_id = {each.id: each for each in services}
    click.echo(task_table(tasks, by_id, nodes, now=time.time_ns(), quiet=quiet, full=no_trunc))


@task.command()
@click.argument("tasks", nargs=-1, required=True)
@with_client
async def inspect(client: EngineClient, tasks: tuple[str, ...]) -> None:
    """Print TASKS as JSON."""
    found, errors = [], []
    for name in tasks:
        try:
            found.append(await client.raw_task(name))
        except NotFound as error:
            errors.append(failure_text(error))
    print_json(found)
    if errors:
        raise CommandFailed("\n".join(errors))

"""`swarmtui node`: ls, ps, inspect, update, promote, demote, rm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import click

from swarmtui.commands.lookups import hostnames, node_id
from swarmtui.commands.output import table
from swarmtui.commands.service import FILTER, JSON, NO_TRUNC, QUIET_IDS, filters_of, named_failure
from swarmtui.commands.service_options import KEY_VALUE, many
from swarmtui.commands.session import CommandFailed, failure_text, print_json, with_client
from swarmtui.commands.task_table import task_table
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import NotFound
from swarmtui.docker_api.types import Node
from swarmtui.operations.base import Operation, OperationFailed
from swarmtui.operations.nodes import AVAILABILITIES, ROLES, NodeUpdate, RemoveNode
from swarmtui.operations.roles import SetRole


@click.group()
def node() -> None:
    """Look at and change nodes."""


@node.command("ls")
@FILTER
@QUIET_IDS
@JSON
@with_client
async def list_nodes(client: EngineClient, filters: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """List nodes."""
    wanted = filters_of(filters)
    if as_json:
        print_json(await client.raw_list("/nodes", wanted))
        return
    nodes, info = await asyncio.gather(client.nodes(wanted), client.info())
    nodes.sort(key=lambda each: (each.description.hostname, each.id))
    if quiet:
        for each in nodes:
            click.echo(each.id)
        return
    here = info.swarm.node_id if info.swarm else ""
    rows = [_cells(each, here) for each in nodes]
    click.echo(table(("ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"), rows))


def _cells(each: Node, here: str) -> tuple[str, ...]:
    manager = each.manager_status
    status = ""
    if manager is not None:
        status = "Leader" if manager.leader else manager.reachability.capitalize()
    return (
        f"{each.id} *" if each.id == here else each.id,
        each.description.hostname,
        each.status.state.capitalize(),
        each.spec.availability.capitalize(),
        status,
        each.description.engine.engine_version,
    )


@node.command("ps")
@click.argument("nodes", nargs=-1)
@FILTER
@QUIET_IDS
@JSON
@NO_TRUNC
@with_client
async def list_tasks(
    client: EngineClient, nodes: tuple[str, ...], filters: tuple[str, ...], quiet: bool, as_json: bool, no_trunc: bool
) -> None:
    """List the tasks of NODES, of this one without."""
    found, errors = [], []
    for name in nodes or ("self",):
        try:
            found.append(await node_id(client, name))
        except NotFound as error:
            errors.append(failure_text(error))
    if found:
        wanted = {**filters_of(filters), "node": found}
        if as_json:
            print_json(await client.raw_list("/tasks", wanted))
        else:
            tasks, services, known = await asyncio.gather(client.tasks(wanted), client.services(), hostnames(client))
            by_id = {each.id: each for each in services}
            click.echo(task_table(tasks, by_id, known, now=time.time_ns(), quiet=quiet, full=no_trunc))
    if errors:
        raise CommandFailed("\n".join(errors))


@node.command()
@click.argument("nodes", nargs=-1, required=True)
@with_client
async def inspect(client: EngineClient, nodes: tuple[str, ...]) -> None:
    """Print NODES as JSON; `self` is this one."""
    found, errors = [], []
    for name in nodes:
        try:
            found.append(await client.raw_node(await node_id(client, name) if name == "self" else name))
        except NotFound as error:
            errors.append(failure_text(error))
    print_json(found)
    if errors:
        raise CommandFailed("\n".join(errors))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--availability", type=click.Choice(AVAILABILITIES), default=None, help="Whether tasks come and stay.")
@click.option("--role", type=click.Choice(ROLES), default=None, help="What it does in the cluster.")
@many("--label-add", kind=KEY_VALUE, metavar="KEY=VALUE", help="Set a label.")
@many("--label-rm", metavar="KEY", help="Take a label away.")
@with_client
async def update(
    client: EngineClient,
    name: str,
    availability: str | None,
    role: str | None,
    label_add: tuple[tuple[str, str], ...],
    label_rm: tuple[str, ...],
) -> None:
    """Change NODE."""
    target = await node_id(client, name)
    operation = NodeUpdate(
        client, target, availability=availability, role=role, add=dict(label_add), remove=list(label_rm)
    )
    await operation.submit()
    click.echo(name)


@node.command()
@click.argument("nodes", nargs=-1, required=True)
@with_client
async def promote(client: EngineClient, nodes: tuple[str, ...]) -> None:
    """Make NODES managers."""
    await _each(nodes, lambda name: SetRole(client, name, "manager"), "{} promoted to a manager in the swarm.")


@node.command()
@click.argument("nodes", nargs=-1, required=True)
@with_client
async def demote(client: EngineClient, nodes: tuple[str, ...]) -> None:
    """Make NODES workers."""
    await _each(nodes, lambda name: SetRole(client, name, "worker"), "Manager {} demoted in the swarm.")


@node.command("rm")
@click.argument("nodes", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove it although it is not down.")
@with_client
async def remove(client: EngineClient, nodes: tuple[str, ...], force: bool) -> None:
    """Forget NODES that are down."""
    await _each(nodes, lambda name: RemoveNode(client, name, force=force), "{}")


async def _each(names: tuple[str, ...], operation: Callable[[str], Operation], done: str) -> None:
    errors = []
    for name in names:
        try:
            await operation(name).submit()
            click.echo(done.format(name))
        except OperationFailed as error:
            errors.append(named_failure(name, error) if len(names) > 1 else failure_text(error))
    if errors:
        raise CommandFailed("\n".join(errors))

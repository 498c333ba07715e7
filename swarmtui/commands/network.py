"""`swarmtui network`: ls, inspect, rm."""

from __future__ import annotations

import click

from swarmtui.commands.output import short_id, table
from swarmtui.commands.service import FILTER, JSON, NO_TRUNC, QUIET_IDS, filters_of
from swarmtui.commands.session import CommandFailed, failure_text, print_json, with_client
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ApiError


@click.group()
def network() -> None:
    """Look at and remove networks."""


@network.command("ls")
@FILTER
@QUIET_IDS
@JSON
@NO_TRUNC
@with_client
async def list_networks(
    client: EngineClient, filters: tuple[str, ...], quiet: bool, as_json: bool, no_trunc: bool
) -> None:
    """List networks, those of this host alone too; `--filter scope=swarm` leaves them out."""
    wanted = filters_of(filters)
    if as_json:
        print_json(await client.raw_list("/networks", wanted))
        return
    found = sorted(await client.networks(wanted), key=lambda each: (each.name, each.other_id))
    if quiet:
        for each in found:
            click.echo(short_id(each.other_id, no_trunc))
        return
    rows = [(short_id(each.other_id, no_trunc), each.name, each.driver, each.scope) for each in found]
    click.echo(table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows))


@network.command()
@click.argument("networks", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="With the services and tasks on it.")
@with_client
async def inspect(client: EngineClient, networks: tuple[str, ...], verbose: bool) -> None:
    """Print NETWORKS as JSON."""
    found, errors = [], []
    for name in networks:
        try:
            found.append(await client.raw_network(name, verbose=verbose))
        except ApiError as error:
            errors.append(failure_text(error))
    print_json(found)
    if errors:
        raise CommandFailed("\n".join(errors))


@network.command("rm")
@click.argument("networks", nargs=-1, required=True)
@with_client
async def remove(client: EngineClient, networks: tuple[str, ...]) -> None:
    """Remove NETWORKS that nothing uses."""
    errors = []
    for name in networks:
        try:
            await client.remove_network(name)
            click.echo(name)
        except ApiError as error:
            errors.append(failure_text(error))
    if errors:
        raise CommandFailed("\n".join(errors))

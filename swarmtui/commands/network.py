"""`swarmtui network`: create, ls, inspect, rm."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import click

from swarmtui.commands.output import short_id, table
from swarmtui.commands.service import FILTER, JSON, NO_TRUNC, QUIET_IDS, filters_of
from swarmtui.commands.service_options import KEY_VALUE, many
from swarmtui.commands.session import CommandFailed, failure_text, print_json, with_client
from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ApiError


@click.group()
def network() -> None:
    """Create, look at and remove networks."""


@network.command()
@click.argument("name")
@click.option("-d", "--driver", default="overlay", show_default=True, help="Who makes it.")
@many("--subnet", metavar="CIDR", help="A range of addresses of its own; chosen from the cluster's pools without.")
@many("--gateway", metavar="ADDRESS", help="The hosts' address on the subnet that it lies in.")
@many("--ip-range", metavar="CIDR", help="Part of a subnet that addresses are given from.")
@click.option("--attachable", is_flag=True, help="Containers that a person runs may join.")
@click.option("--internal", is_flag=True, help="Nothing leads out of it.")
@click.option("--ingress", is_flag=True, help="The network of published ports.")
@click.option("--ipv6", is_flag=True, help="With IPv6 subnets.")
@many("--label", kind=KEY_VALUE, metavar="KEY=VALUE", help="A label.")
@many("-o", "--opt", metavar="KEY[=VALUE]", help="An option of the driver: `encrypted` for traffic between hosts.")
@with_client
async def create(
    client: EngineClient,
    name: str,
    driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    attachable: bool,
    internal: bool,
    ingress: bool,
    ipv6: bool,
    label: tuple[tuple[str, str], ...],
    opt: tuple[str, ...],
) -> None:
    """Create the network NAME."""
    try:
        configs = subnet_configs(subnet, gateway, ip_range)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    request: Json = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": driver,
        "Attachable": attachable,
        "Internal": internal,
        "Ingress": ingress,
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Config": configs},
        "Options": {key: value for key, _, value in (each.partition("=") for each in opt)},
        "Labels": dict(label),
    }
    made = await client.create_network(request)
    for warning in made.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(made.id)


def subnet_configs(subnets: Sequence[str], gateways: Sequence[str], ranges: Sequence[str]) -> list[Json]:
    """`IPAM.Config`: each gateway and range with the subnet that it lies in. ValueError says what does not fit."""
    configs: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, Json] = {}
    for text in subnets:
        subnet = ipaddress.ip_network(text, strict=False)
        if any(subnet.overlaps(other) for other in configs if other.version == subnet.version):
            raise ValueError("multiple overlapping subnet configuration is not supported")
        configs[subnet] = {"Subnet": text}
    for word, key, texts in (("gateway", "Gateway", gateways), ("range", "IPRange", ranges)):
        for text in texts:
            first = ipaddress.ip_interface(text)
            config = next((config for subnet, config in configs.items() if first.ip in subnet), None)
            if config is None:
                raise ValueError(f"no matching subnet for {word} {text}")
            if key in config:
                raise ValueError(f"cannot configure multiple {word}s ({config[key]}, {text}) on one subnet")
            config[key] = text
    return list(configs.values())


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

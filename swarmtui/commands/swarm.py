"""`swarmtui swarm`: init, join, leave, join-token, inspect. Keys, certificates and settings are in `swarm_trust`."""

from __future__ import annotations

import click

from swarmtui.commands.session import CommandFailed, print_json, with_client
from swarmtui.commands.swarm_options import ADVERTISE, AVAILABILITY, DATA_PATH, LISTEN
from swarmtui.commands.swarm_trust import ca, read_swarm, show_unlock_key, unlock, unlock_key, update
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.engine_types import Swarm
from swarmtui.operations.base import OperationFailed


@click.group()
def swarm() -> None:
    """Start, join and leave a swarm, and change its settings, keys and certificates."""


for _command in (update, ca, unlock, unlock_key):
    swarm.add_command(_command)


@swarm.command()
@ADVERTISE
@LISTEN
@DATA_PATH
@click.option("--data-path-port", type=click.IntRange(0, 49151), default=0, help="Port of the containers' traffic.")
@click.option("--default-addr-pool", multiple=True, metavar="CIDR", help="Pool that networks are cut from.")
@click.option("--default-addr-pool-mask-length", type=click.IntRange(1, 32), default=24, help="Size of a network.")
@click.option("--force-new-cluster", is_flag=True, help="Start anew from this node's state.")
@click.option("--autolock", is_flag=True, help="Managers ask for a key at their start.")
@AVAILABILITY
@with_client
async def init(
    client: EngineClient,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    data_path_port: int,
    default_addr_pool: tuple[str, ...],
    default_addr_pool_mask_length: int,
    force_new_cluster: bool,
    autolock: bool,
    availability: str,
) -> None:
    """Start a swarm with this node as its first manager."""
    node_id = await client.init_swarm(
        {
            "ListenAddr": listen_addr,
            "AdvertiseAddr": advertise_addr,
            "DataPathAddr": data_path_addr,
            "DataPathPort": data_path_port,
            "DefaultAddrPool": list(default_addr_pool),
            "SubnetSize": default_addr_pool_mask_length,
            "ForceNewCluster": force_new_cluster,
            "AutoLockManagers": autolock,
            "Availability": availability,
            "Spec": {"Labels": {}, "EncryptionConfig": {"AutoLockManagers": autolock}},
        }
    )
    click.echo(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
    if autolock:
        show_unlock_key(await client.unlock_key())
    token = (await client.swarm()).join_tokens.worker
    click.echo("To add a worker to this swarm, run the following command:\n")
    click.echo(f"    swarmtui swarm join --token {token} {await _manager_address(client)}\n")
    click.echo("To add a manager to this swarm, run 'swarmtui swarm join-token manager' and follow the instructions.")


@swarm.command()
@click.option("--token", required=True, help="Join token of a worker or manager.")
@ADVERTISE
@LISTEN
@DATA_PATH
@AVAILABILITY
@click.argument("address", metavar="HOST:PORT")
@with_client
async def join(
    client: EngineClient,
    token: str,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    availability: str,
    address: str,
) -> None:
    """Let this node join the swarm whose manager listens at HOST:PORT."""
    await client.join_swarm(
        {
            "ListenAddr": listen_addr,
            "AdvertiseAddr": advertise_addr,
            "DataPathAddr": data_path_addr,
            "RemoteAddrs": [address],
            "JoinToken": token,
            "Availability": availability,
        }
    )
    info = (await client.info()).swarm
    role = "manager" if info is not None and info.control_available else "worker"
    click.echo(f"This node joined a swarm as a {role}.")


@swarm.command()
@click.option("-f", "--force", is_flag=True, help="Leave although this node is a manager.")
@with_client
async def leave(client: EngineClient, force: bool) -> None:
    """Let this node leave its swarm."""
    await client.leave_swarm(force)
    click.echo("Node left the swarm.")


@swarm.command("join-token")
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is worth nothing then.")
@click.option("-q", "--quiet", is_flag=True, help="The token alone.")
@click.argument("role", type=click.Choice(["worker", "manager"]))
@with_client
async def join_token(client: EngineClient, rotate: bool, quiet: bool, role: str) -> None:
    """Show how a worker or manager joins."""
    if rotate:
        version, spec = await read_swarm(client)
        await client.update_swarm(version, spec, rotate_worker=role == "worker", rotate_manager=role == "manager")
        if not quiet:
            click.echo(f"Successfully rotated {role} join token.\n")
    token = _token(await client.swarm(), role)
    if quiet:
        click.echo(token)
        return
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    swarmtui swarm join --token {token} {await _manager_address(client)}\n")


@swarm.command()
@with_client
async def inspect(client: EngineClient) -> None:
    """Print the swarm as JSON."""
    print_json(await client.raw_swarm())


def _token(found: Swarm, role: str) -> str:
    token = found.join_tokens.manager if role == "manager" else found.join_tokens.worker
    if not token:
        raise CommandFailed("Error: the engine showed no join token")
    return token


async def _manager_address(client: EngineClient) -> str:
    """Where a new node reaches this manager."""
    info = (await client.info()).swarm
    if info is None or not info.node_id:
        raise OperationFailed("this node is in no swarm")
    node = await client.node(info.node_id)
    if node.manager_status is None:
        raise OperationFailed("this node is not a manager")
    return node.manager_status.addr

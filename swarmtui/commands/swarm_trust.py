"""`swarmtui swarm update|ca|unlock|unlock-key`: settings, the certificate authority, and the key that locks managers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

from swarmtui.commands.session import CommandFailed, Value, print_json, with_client
from swarmtui.commands.values import duration
from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ConnectionFailed, OutOfSequence, Unavailable
from swarmtui.operations.base import OperationFailed
from swarmtui.operations.spec_edit import ATTEMPTS

DURATION = Value("duration", duration)
POLL_SECONDS = 0.5
OUTAGE_SECONDS = 30.0
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


async def read_swarm(client: EngineClient) -> tuple[int, Json]:
    """Version and specification of the swarm, as it wants them back."""
    raw = await client.raw_swarm()
    try:
        return raw["Version"]["Index"], raw["Spec"]
    except (KeyError, TypeError):
        raise OperationFailed("the engine's answer is no swarm: its version or spec is missing") from None


async def change_swarm(client: EngineClient, edit: Callable[[Json], None], **rotate: bool) -> None:
    """Read, change, write; again when somebody else wrote meanwhile."""
    for _ in range(ATTEMPTS):
        version, spec = await read_swarm(client)
        edit(spec)
        try:
            return await client.update_swarm(version, spec, **rotate)
        except OutOfSequence:
            continue
    raise OperationFailed(f"the swarm changes all the time; tried {ATTEMPTS} times")


def show_unlock_key(key: str, *, quiet: bool = False) -> None:
    """The key, with Docker's words around it."""
    if quiet:
        click.echo(key)
        return
    click.echo("To unlock a swarm manager after it restarts, run the `swarmtui swarm unlock`")
    click.echo(f"command and provide the following key:\n\n    {key}\n")
    click.echo("Remember to store this key in a password manager, since without it you")
    click.echo("will not be able to restart the manager.\n")


def _child(spec: Json, name: str) -> Json:
    if not isinstance(spec.get(name), dict):
        spec[name] = {}
    found: Json = spec[name]
    return found


@click.command()
@click.option(
    "--autolock", type=bool, default=None, metavar="true|false", help="Managers ask for a key at their start."
)
@click.option("--cert-expiry", type=DURATION, default=None, metavar="DURATION", help="Life of nodes' certificates.")
@click.option("--dispatcher-heartbeat", type=DURATION, default=None, metavar="DURATION", help="How often nodes report.")
@click.option("--task-history-limit", type=click.IntRange(0), default=None, help="Ended tasks kept a slot.")
@click.option("--snapshot-interval", type=click.IntRange(1), default=None, help="Log entries between two snapshots.")
@click.option("--max-snapshots", type=click.IntRange(0), default=None, help="Old snapshots kept.")
@with_client
async def update(client: EngineClient, /, autolock: bool | None, **given: Any) -> None:
    """Change the swarm's settings."""
    places = {
        "cert_expiry": ("CAConfig", "NodeCertExpiry"),
        "dispatcher_heartbeat": ("Dispatcher", "HeartbeatPeriod"),
        "task_history_limit": ("Orchestration", "TaskHistoryRetentionLimit"),
        "snapshot_interval": ("Raft", "SnapshotInterval"),
        "max_snapshots": ("Raft", "KeepOldSnapshots"),
    }
    wanted = {places[name]: value for name, value in given.items() if value is not None}
    if autolock is not None:
        wanted["EncryptionConfig", "AutoLockManagers"] = autolock
    if not wanted:
        raise click.UsageError("nothing to change: name a setting")
    locked_before = False

    def edit(spec: Json) -> None:
        nonlocal locked_before
        locked_before = bool(_child(spec, "EncryptionConfig").get("AutoLockManagers"))
        for (group, name), value in wanted.items():
            _child(spec, group)[name] = value

    await change_swarm(client, edit)
    click.echo("Swarm updated.")
    if autolock and not locked_before:
        show_unlock_key(await client.unlock_key())


@click.command("unlock-key")
@click.option("--rotate", is_flag=True, help="Make a new key; managers take it over one by one.")
@click.option("-q", "--quiet", is_flag=True, help="The key alone.")
@JSON
@with_client
async def unlock_key(client: EngineClient, rotate: bool, quiet: bool, as_json: bool) -> None:
    """Show or change the key that a locked manager asks for."""
    if rotate:

        def edit(spec: Json) -> None:
            if not _child(spec, "EncryptionConfig").get("AutoLockManagers"):
                raise CommandFailed("Error: cannot rotate because autolock is not turned on")

        await change_swarm(client, edit, rotate_unlock_key=True)
        if not quiet and not as_json:
            click.echo("Successfully rotated manager unlock key.\n")
    key = await client.unlock_key()
    if as_json:
        print_json({"UnlockKey": key})
    elif not key:
        raise CommandFailed("Error: no unlock key is set")
    else:
        show_unlock_key(key, quiet=quiet)


@click.command()
@with_client
async def unlock(client: EngineClient) -> None:
    """Unlock this manager; the key is asked for, or read from standard input."""
    info = (await client.info()).swarm
    state = info.local_node_state if info is not None else "inactive"
    if state == "inactive":
        raise CommandFailed("Error: This node is not part of a swarm")
    if state != "locked":
        raise CommandFailed("Error: swarm is not locked")
    # Never as an argument: arguments are seen by everybody on the machine.
    asked = sys.stdin.isatty()
    key = click.prompt("Enter unlock key", hide_input=True, err=True) if asked else sys.stdin.readline()
    await client.unlock_swarm(key.strip())


@click.command()
@click.option("--rotate", is_flag=True, help="Make a new root certificate, and wait until every node has one of its.")
@click.option("--ca-cert", type=click.File(), help="With --rotate: this one.")
@click.option("--ca-key", type=click.File(), help="With --rotate: its key.")
@click.option(
    "--cert-expiry", type=DURATION, default=None, metavar="DURATION", help="With --rotate: nodes' certificates."
)
@click.option("-d", "--detach", is_flag=True, help="With --rotate: do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="With --rotate: no progress.")
@JSON
@with_client
async def ca(
    client: EngineClient,
    rotate: bool,
    ca_cert: TextIO | None,
    ca_key: TextIO | None,
    cert_expiry: int | None,
    detach: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show the cluster's root certificate, or make a new one."""
    if not rotate:
        if ca_cert or ca_key or cert_expiry is not None or detach or quiet:
            raise click.UsageError("only --rotate takes these options")
        raw = await client.raw_swarm()
        _show_root(raw, as_json)
        return
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key belong together")
    certificate = ca_cert.read() if ca_cert is not None else ""
    key = ca_key.read() if ca_key is not None else ""
    before = _root(await client.raw_swarm())

    def edit(spec: Json) -> None:
        config = _child(spec, "CAConfig")
        config["ForceRotate"] = int(config.get("ForceRotate") or 0) + 1
        config["SigningCACert"], config["SigningCAKey"] = certificate, key
        if cert_expiry is not None:
            config["NodeCertExpiry"] = cert_expiry

    await change_swarm(client, edit)
    if detach:
        return
    raw = await _rotated(client, before, quiet=quiet or as_json)
    _show_root(raw, as_json)


def _root(raw: Json) -> str:
    return str((raw.get("TLSInfo") or {}).get("TrustRoot") or "")


def _show_root(raw: Json, as_json: bool) -> None:
    root = _root(raw)
    if as_json:
        rotating = bool(raw.get("RootRotationInProgress"))
        print_json({**(raw.get("TLSInfo") or {}), "RootRotationInProgress": rotating})
    elif not root:
        raise CommandFailed("Error: No CA information available")
    else:
        click.echo(root.strip())


async def _rotated(client: EngineClient, before: str, *, quiet: bool) -> Json:
    """Wait until every node has a certificate of the new root; how many have is told on stderr."""
    told = ""
    lost_at: float | None = None
    loop = asyncio.get_running_loop()
    while True:
        try:
            raw = await client.raw_swarm()
            if not raw.get("RootRotationInProgress") and _root(raw) != before:
                return raw
            nodes = await client.raw_list("/nodes")
            lost_at = None
        except (ConnectionFailed, Unavailable) as error:
            # The root is changed under everybody, the manager that is asked included.
            lost_at = loop.time() if lost_at is None else lost_at
            if loop.time() - lost_at > OUTAGE_SECONDS:
                raise OperationFailed(f"the rotation was accepted, but then the cluster was lost: {error}") from error
            await asyncio.sleep(POLL_SECONDS)
            continue
        # Until the last node has changed over, the old root is the swarm's.
        done = sum(
            1 for node in nodes if ((node.get("Description") or {}).get("TLSInfo") or {}).get("TrustRoot") != before
        )
        line = f"{done} of {len(nodes)} nodes have a certificate of the new root"
        if not quiet and line != told:
            click.echo(line, err=True)
            told = line
        await asyncio.sleep(POLL_SECONDS)

"""`swarmtui service`: create, ls, ps, inspect, scale, rollback, rm. Update and logs are modules of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from swarmtui.commands import service_options as options
from swarmtui.commands.log_output import service_logs
from swarmtui.commands.lookups import config_references, hostnames, network_targets, secret_references
from swarmtui.commands.output import short_id, table
from swarmtui.commands.progress import show
from swarmtui.commands.service_update import update
from swarmtui.commands.session import CommandFailed, Value, failure_text, print_json, with_client
from swarmtui.commands.task_table import task_table
from swarmtui.commands.values import as_filters, replica_count
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import NotFound
from swarmtui.docker_api.types import Service
from swarmtui.model.row_making import ports_text, service_mode, short_image, wanted_replicas
from swarmtui.operations.base import OperationFailed
from swarmtui.operations.service_life import CreateService, RemoveService
from swarmtui.operations.services import RollbackService, ScaleService

__all__ = ["service"]

FILTER = click.option("-f", "--filter", "filters", multiple=True, help="Show only what matches: KEY=VALUE.")
QUIET_IDS = click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
DETACH = click.option("-d", "--detach", is_flag=True, help="Do not wait for the service to converge.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the engine's JSON.")
NO_TRUNC = click.option("--no-trunc", is_flag=True, help="Ids in full.")


@click.group()
def service() -> None:
    """Create, look at and change services."""


service.add_command(update)
service.add_command(service_logs)


@service.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--name", default="", help="Its name; the engine makes one up without.")
@click.option("--replicas", type=click.IntRange(0), default=None, help="How many tasks.")
@click.option("--mode", type=click.Choice(options.MODES), default="replicated", show_default=True, help="Its mode.")
@click.option("--max-concurrent", type=click.IntRange(0), default=None, help="Tasks of a job at a time.")
@options.many(
    "-p", "--publish", kind=options.PORT, metavar="PORT", help="Publish a port: 8081:8000[/udp] or long form."
)
@options.many("-e", "--env", help="Set an environment variable: NAME=VALUE.")
@options.many("--env-file", kind=click.Path(path_type=Path), help="Read environment variables from a file.")
@options.many("-l", "--label", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Label of the service.")
@options.many("--container-label", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Label of its containers.")
@options.many("--constraint", help="Only nodes that match: node.labels.disk==ssd.")
@options.many(
    "--placement-pref", kind=options.PREFERENCE, metavar="PREF", help="Spread over a label: spread=node.labels.zone."
)
@options.many("--mount", kind=options.MOUNT, metavar="MOUNT", help="Mount: type=volume,src=data,dst=/data.")
@options.many("--network", help="Attach to a network.")
@options.many(
    "--secret", kind=options.SECRET, metavar="SECRET", help="Give it a secret: NAME or source=,target=,mode=."
)
@options.many(
    "--config", kind=options.CONFIG, metavar="CONFIG", help="Give it a config: NAME or source=,target=,mode=."
)
@options.many("--group", help="Further group of the container's user.")
@options.many("--host", kind=options.HOST, metavar="NAME:IP", help="Line of its /etc/hosts.")
@options.many("--dns", help="Name server.")
@options.many("--cap-add", kind=options.CAPABILITY, metavar="CAP", help="Add a capability.")
@options.many("--cap-drop", kind=options.CAPABILITY, metavar="CAP", help="Drop a capability.")
@options.many("--generic-resource", kind=options.GENERIC, metavar="KIND=N", help="Reserve a resource of a kind.")
@options.many("--sysctl", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Kernel setting.")
@options.many("--ulimit", kind=options.ULIMIT, metavar="NAME=SOFT[:HARD]", help="Resource limit.")
@options.many("--log-opt", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Option of the log driver.")
@options.scalar_options
@click.option("--no-resolve-image", is_flag=True, hidden=True, help="Accepted for Docker's sake: never resolved here.")
@DETACH
@QUIET
@click.argument("image")
@click.argument("arguments", nargs=-1, metavar="[COMMAND] [ARG]...", type=click.UNPROCESSED)
@with_client
async def create(
    client: EngineClient, /, image: str, arguments: tuple[str, ...], detach: bool, quiet: bool, **given: Any
) -> None:
    """Create a service from IMAGE."""
    spec = options.build(image, arguments, given)
    template = spec["TaskTemplate"]
    networks = await network_targets(client, given["network"])
    if networks:
        template["Networks"] = networks
    for key, references in (
        ("Secrets", await secret_references(client, given["secret"])),
        ("Configs", await config_references(client, given["config"])),
    ):
        if references:
            template["ContainerSpec"][key] = references
    operation = CreateService(client, spec)
    await operation.submit()
    for warning in operation.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(operation.service_id)
    if not detach:
        await show(operation, quiet=quiet)


@service.command("ls")
@FILTER
@QUIET_IDS
@JSON
@NO_TRUNC
@with_client
async def list_services(
    client: EngineClient, filters: tuple[str, ...], quiet: bool, as_json: bool, no_trunc: bool
) -> None:
    """List services."""
    wanted = filters_of(filters)
    if as_json:
        print_json(await client.raw_list("/services", wanted, {"status": "true"}))
        return
    services = sorted(await client.services(wanted, status=not quiet), key=lambda each: each.spec.name)
    if quiet:
        for each in services:
            click.echo(each.id)
        return
    rows = [_service_cells(each, no_trunc) for each in services]
    click.echo(table(("ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"), rows))


def _service_cells(each: Service, full: bool) -> tuple[str, ...]:
    mode = service_mode(each)
    published = each.endpoint.ports if each.endpoint else None
    image = short_image(each.spec.task_template.image)
    return (short_id(each.id, full), each.spec.name, mode, _replicas(each, mode), image, ports_text(published))


def _replicas(each: Service, mode: str) -> str:
    """`2/3`, with what a job has completed and the bound a node, as the docker CLI writes it."""
    status = each.service_status
    running, desired = (status.running_tasks, status.desired_tasks) if status else (0, wanted_replicas(each) or 0)
    if mode.endswith("job"):
        completed = status.completed_tasks if status else 0
        total = wanted_replicas(each)
        return f"{running}/{desired} ({completed}/{desired + completed if total is None else total} completed)"
    placement = each.spec.task_template.placement
    bound = f" (max {placement.max_replicas} per node)" if placement and placement.max_replicas else ""
    return f"{running}/{desired}{bound}"


@service.command("ps")
@click.argument("services", nargs=-1, required=True)
@FILTER
@QUIET_IDS
@JSON
@NO_TRUNC
@with_client
async def list_tasks(
    client: EngineClient,
    services: tuple[str, ...],
    filters: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    no_trunc: bool,
) -> None:
    """List the tasks of SERVICES."""
    found, missing = [], []
    for name in services:
        try:
            found.append(await client.service(name))
        except NotFound:
            missing.append(name)
    if found:
        wanted = {**filters_of(filters), "service": [each.id for each in found]}
        await _resolve_node_filter(client, wanted)
        if as_json:
            print_json(await client.raw_list("/tasks", wanted))
        else:
            tasks = await client.tasks(wanted)
            click.echo(
                task_table(
                    tasks,
                    {each.id: each for each in found},
                    await hostnames(client),
                    now=time.time_ns(),
                    quiet=quiet,
                    full=no_trunc,
                )
            )
    if missing:
        raise CommandFailed("\n".join(f"no such service: {name}" for name in missing))


async def _resolve_node_filter(client: EngineClient, wanted: dict[str, list[str]]) -> None:
    if "node" in wanted:
        wanted["node"] = [(await client.node(name)).id for name in wanted["node"]]


@service.command()
@click.argument("services", nargs=-1, required=True)
@with_client
async def inspect(client: EngineClient, services: tuple[str, ...]) -> None:
    """Print SERVICES as JSON, with defaults filled in."""
    found, errors = [], []
    for name in services:
        try:
            found.append(await client.raw_service(name, defaults=True))
        except NotFound:
            errors.append(f"Error: no such service: {name}")
    print_json(found)
    if errors:
        raise CommandFailed("\n".join(errors))


@service.command()
@click.argument(
    "counts", nargs=-1, required=True, type=Value("service=replicas", replica_count), metavar="SERVICE=N..."
)
@DETACH
@QUIET
@with_client
async def scale(client: EngineClient, counts: tuple[tuple[str, int], ...], detach: bool, quiet: bool) -> None:
    """Change how many replicas services have: web=9 api=3."""
    operations, errors = [], []
    for name, replicas in counts:
        operation = ScaleService(client, name, replicas)
        try:
            await operation.submit()
            operations.append(operation)
            click.echo(f"{name} scaled to {replicas}")
        except OperationFailed as error:
            errors.append(named_failure(name, error))
    if not detach:
        for operation in operations:
            try:
                await show(operation, quiet=quiet)
            except OperationFailed as error:
                errors.append(named_failure(operation.title, error))
    if errors:
        raise CommandFailed("\n".join(errors))


@service.command()
@click.argument("name", metavar="SERVICE")
@DETACH
@QUIET
@with_client
async def rollback(client: EngineClient, name: str, detach: bool, quiet: bool) -> None:
    """Go back to SERVICE's specification before its last update."""
    operation = RollbackService(client, name)
    await operation.submit()
    click.echo(name)
    if not detach:
        await show(operation, quiet=quiet)


@service.command("rm")
@click.argument("services", nargs=-1, required=True)
@with_client
async def remove(client: EngineClient, services: tuple[str, ...]) -> None:
    """Remove SERVICES and their tasks."""
    errors = []
    for name in services:
        try:
            await RemoveService(client, name).submit()
            click.echo(name)
        except OperationFailed as error:
            errors.append(failure_text(error))
    if errors:
        raise CommandFailed("\n".join(errors))


def filters_of(texts: tuple[str, ...]) -> dict[str, list[str]]:
    """The `--filter` options for the API."""
    try:
        return as_filters(texts)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def named_failure(name: str, error: OperationFailed) -> str:
    """A failure of one of several services: its name before the text."""
    text = failure_text(error)
    return text if name in text.partition(":")[0] else f"{name}: {text}"

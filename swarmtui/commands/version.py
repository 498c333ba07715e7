"""`swarmtui version` and `swarmtui context ls`."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import click

from swarmtui.commands.output import table
from swarmtui.commands.session import CommandFailed, failure_text, print_json
from swarmtui.commands.target import Target
from swarmtui.contexts.resolve import list_contexts
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.engine_types import EngineVersion
from swarmtui.docker_api.errors import EngineError


def own_version() -> str:
    """This distribution's version; "unknown" when it runs from a folder that was not installed."""
    try:
        return package_version("swarmtui")
    except PackageNotFoundError:
        return "unknown"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def version(target: Target, as_json: bool) -> None:
    """Show this program's version and the engine's."""

    async def ask() -> tuple[str, EngineVersion]:
        context = target.resolve()
        async with EngineClient(context.address) as client:
            return str(context.address), await client.version()

    shown: dict[str, dict[str, str]] = {"Client": {"Version": own_version()}}
    failure = ""
    try:
        address, engine = asyncio.run(ask())
        shown["Server"] = {
            "Version": engine.version,
            "ApiVersion": engine.api_version,
            "MinAPIVersion": engine.min_api_version,
            "OS/Arch": f"{engine.os}/{engine.arch}",
            "Address": address,
        }
    except EngineError as error:
        failure = failure_text(error)
    if as_json:
        print_json(shown)
    else:
        for part, values in shown.items():
            click.echo(f"{part}:")
            for name, value in values.items():
                click.echo(f" {name + ':':<15} {value}")
    if failure:
        raise CommandFailed(failure)


@click.group()
def context() -> None:
    """Look at the contexts: which clusters can be reached by name."""


@context.command("ls")
@click.pass_obj
def list_them(target: Target) -> None:
    """List contexts; the one in use is marked."""
    try:
        current = target.resolve().name
        found = list_contexts()
    except EngineError as error:
        raise CommandFailed(failure_text(error)) from error
    rows = [
        (f"{each.name} *" if each.name == current else each.name, each.description, str(each.address)) for each in found
    ]
    click.echo(table(("NAME", "DESCRIPTION", "DOCKER ENDPOINT"), rows))

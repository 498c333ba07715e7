"""`swarmtui` without a command: the console on a cluster."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import click

from swarmtui.commands.target import Target
from swarmtui.docker_api.errors import BadAddress

if TYPE_CHECKING:
    from swarmtui.docker_api.client import EngineClient


def open_console(target: Target) -> None:
    """Run it until the person leaves. The connection's own trouble is shown inside, not here."""
    try:
        context = target.resolve()
        others = target.others(context)
    except BadAddress as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo('Error: the console needs a terminal; "swarmtui --help" shows the commands that do not', err=True)
        sys.exit(1)

    def connect() -> AbstractAsyncContextManager[EngineClient]:
        # Called after the first paint: aiohttp takes longer to import than the screen to draw.
        from swarmtui.docker_api.client import EngineClient

        return EngineClient(context.address, others=lambda: others)

    from swarmtui.ui.app import SwarmApp

    unicode = "utf" in (sys.stdout.encoding or "").lower()
    app = SwarmApp(connect=connect, context=context.name, glyphs="unicode" if unicode else "ascii")
    app.run()
    sys.exit(app.return_code or 0)

"""The command line: the console without a command, every operation with one.

Commands are imported when they are called for: `swarmtui --help` and the console's first paint must not wait for HTTP.
"""

from __future__ import annotations

import importlib
import io
import sys

import click

COMMANDS = {
    "service": ("swarmtui.commands.service:service", "Create, look at and change services."),
    "node": ("swarmtui.commands.node:node", "Look at and change nodes."),
    "task": ("swarmtui.commands.task:task", "Look at tasks."),
    "network": ("swarmtui.commands.network:network", "Create, look at and remove networks."),
    "swarm": ("swarmtui.commands.swarm:swarm", "Start, join, leave and change a swarm."),
    "managers": ("swarmtui.commands.managers:managers", "Look at the managers' group."),
    "backup": ("swarmtui.commands.backup:backup", "Write the cluster's whole state to an encrypted file."),
    "restore": ("swarmtui.commands.backup:restore", "Begin the cluster of a backup again on this node."),
    "logs": ("swarmtui.commands.log_output:service_logs", "Print the logs of services or tasks."),
    "events": ("swarmtui.commands.events:events", "Print the cluster's events."),
    "context": ("swarmtui.commands.version:context", "Look at the contexts."),
    "playground": ("swarmtui.playground.command:playground", "Start a cluster on this machine."),
    "version": ("swarmtui.commands.version:version", "Show this program's version and the engine's."),
}
"""Name, where the click command is, and its line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-H",
    "--host",
    "hosts",
    multiple=True,
    metavar="ADDRESS",
    help="The engine: unix:///PATH or tcp://HOST:PORT. Given again: another manager, asked when the first is lost.",
)
@click.option("-c", "--context", default=None, metavar="NAME", help="Docker context to use.")
@click.pass_context
def cli(ctx: click.Context, hosts: tuple[str, ...], context: str | None) -> None:
    """A terminal console for container clusters. Without a command it opens the console."""
    from swarmtui.commands.target import Target

    ctx.obj = Target(hosts, context)
    if ctx.invoked_subcommand is None:
        from swarmtui.commands.console import open_console

        open_console(ctx.obj)


def main() -> None:
    """Entry point of `swarmtui`."""
    for stream in (sys.stdout, sys.stderr):
        # A log has letters that the terminal's encoding may not have: they are written as escapes, not as a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="swarmtui")

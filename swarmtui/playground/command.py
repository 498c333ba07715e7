"""`swarmtui playground`: start a session, show it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import click

from swarmtui.playground import agents, report
from swarmtui.playground.addresses import LAST_NUMBER, NoFreeSubnet, instance_name
from swarmtui.playground.changes import Change, ChangeKind
from swarmtui.playground.places import UnusableBase
from swarmtui.playground.session import Options, PlaygroundError, PlaygroundSession
from swarmtui.playground.templates import DEFAULT_NODES, DEFAULT_TEMPLATE, TEMPLATES
from swarmtui.playground.tier import AUTO, Tier, TierUnavailable

CONSOLE = "swarmtui.ui.app"
"""The room above this one: found by its name when a console is wanted, so that this one never needs it."""

Show = Callable[[PlaygroundSession], Awaitable[None]]
"""What is done with a session once it is ready; the session ends when it returns."""


@click.command()
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default=None,
    help=f"So many managers and workers.  [default: {DEFAULT_TEMPLATE}]",
)
@click.option(
    "--nodes", type=click.IntRange(1, LAST_NUMBER), default=None, help="Instances to start, instead of a template."
)
@click.option(
    "--managers",
    type=click.IntRange(1, LAST_NUMBER),
    default=None,
    help="How many of them are managers; with five nodes or more three are, unless this says otherwise.",
)
@click.option(
    "--headless", is_flag=True, help="Print addresses and DOCKER_HOST values instead of opening the console, and stay."
)
@click.option(
    "--json", "as_json", is_flag=True, help="With --headless: print one JSON object when ready, nothing else."
)
@click.option(
    "--tier",
    type=click.Choice([AUTO, *(tier.value for tier in Tier)]),
    default=AUTO,
    show_default=True,
    help="Kind of instances; auto takes the richest that this machine allows.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0, 168, min_open=True),
    default=4.0,
    show_default=True,
    help="Length of the session.",
)
@click.option(
    "--agent",
    default=shlex.join(agents.PROGRAM),
    hidden=True,
    help="Another program to start as each instance's agent, with its arguments.",
)
def playground(
    template: str | None,
    nodes: int | None,
    managers: int | None,
    headless: bool,
    as_json: bool,
    tier: str,
    hours: float,
    agent: str,
) -> None:
    """A cluster on this machine for one session. Everything in it is deleted when the session ends."""
    if template is not None and (nodes is not None or managers is not None):
        raise click.UsageError(
            "--template says how many nodes and managers there are; leave --nodes and --managers out"
        )
    if template is not None:
        nodes, managers = TEMPLATES[template].nodes, TEMPLATES[template].managers
    nodes = nodes or DEFAULT_NODES
    if managers is not None and managers > nodes:
        raise click.UsageError(f"{managers} managers do not fit into {nodes} nodes")
    if as_json and not headless:
        raise click.UsageError("--json needs --headless: with the console open there is nobody to read it")
    if not headless and not sys.stdout.isatty():
        raise click.UsageError("the console needs a terminal; use --headless, with --json for programs")
    show = _console if not headless else _print_json if as_json else _print_text
    options = Options(
        nodes=nodes, managers=managers or 0, tier=tier, length=timedelta(hours=hours), agent=shlex.split(agent)
    )
    try:
        asyncio.run(_serve_until_told(options, show))
    except (PlaygroundError, TierUnavailable, NoFreeSubnet, UnusableBase) as error:
        raise click.ClickException(str(error)) from error


async def _serve_until_told(options: Options, show: Show) -> None:
    """Serve until `show` returns or a signal comes, at whatever moment: the session is left in order in any case."""
    serving = asyncio.ensure_future(_serve(options, show))
    with _signals() as told:
        telling = asyncio.ensure_future(told.wait())
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        if not serving.done():
            serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _serve(options: Options, show: Show) -> None:
    progress = report.ProgressLines([instance_name(number) for number in range(1, options.nodes + 1)])
    click.echo(f"starting {options.nodes} instances on this machine ...", err=True)
    async with PlaygroundSession(options, progress=progress) as session:
        progress.clear()
        if session.swept:
            click.echo(f"cleaned up after {len(session.swept)} session(s) that were killed", err=True)
        try:
            await show(session)
        finally:
            click.echo("ending the playground ...", err=True)


async def _print_json(session: PlaygroundSession) -> None:
    click.echo(report.as_json(session))
    await _stay(session)


async def _print_text(session: PlaygroundSession) -> None:
    click.echo(report.for_people(session))
    await _stay(session)


async def _stay(session: PlaygroundSession) -> None:
    session.subscribe(_say)
    await session.over.wait()


def _say(change: Change) -> None:
    if change.instance is None:
        click.echo(change.text, err=True)
    elif change.kind is ChangeKind.CHANGED:
        click.echo(f"{change.instance.name}: {change.instance.state}", err=True)


async def _console(session: PlaygroundSession) -> None:
    app = importlib.import_module(CONSOLE).SwarmApp(playground=session)
    running = asyncio.ensure_future(app.run_async())
    ending = asyncio.ensure_future(session.over.wait())
    try:
        await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        if not running.done():
            # The console gives the terminal back as it found it.
            app.exit()
        await running
    if session.over.is_set():
        click.echo(session.ending, err=True)
    if app.return_code:
        sys.exit(app.return_code)


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set. A signal that the caller ignores (`nohup`) stays ignored."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    heard = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in heard:
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in heard:
            loop.remove_signal_handler(number)

"""What every command shares: which engine, running the loop, and errors as one line and exit status 1."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
import msgspec

from swarmtui.commands.target import Target
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ApiError, EngineError
from swarmtui.operations.base import OperationFailed

INTERRUPTED, READER_GONE = 130, 141
"""Exit statuses: what a shell says of a program that SIGINT or SIGPIPE ended."""

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


class CommandFailed(click.ClickException):
    """An error as the docker CLI prints it: the text alone, exit status 1."""

    def show(self, file: Any = None) -> None:
        """On stderr, without click's prefix."""
        click.echo(self.format_message(), err=True, file=file)


def failure_text(error: EngineError | OperationFailed) -> str:
    """The engine's refusals with Docker's words before them, our own errors as they are."""
    if isinstance(error, ApiError):
        return f"Error response from daemon: {error}"
    cause = error.__cause__
    if isinstance(error, OperationFailed) and isinstance(cause, ApiError) and str(cause) == str(error):
        return f"Error response from daemon: {error}"
    return f"Error: {error}"


def with_client(function: Callable[Concatenate[EngineClient, P], Awaitable[T]]) -> Callable[P, T]:
    """A command body that gets a connected client; what goes wrong ends the program with its text."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        target = click.get_current_context().ensure_object(Target)

        async def body() -> T:
            context = target.resolve()
            others = target.others(context)
            async with EngineClient(context.address, others=lambda: others) as client:
                return await function(client, *args, **kwargs)

        return run(body())

    return command


def run(body: Coroutine[Any, Any, T]) -> T:
    """The loop, from beginning to end of a command."""
    try:
        return asyncio.run(body)
    except (EngineError, OperationFailed) as error:
        raise CommandFailed(failure_text(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader (`| head`) has gone: there is nothing to say, and nowhere to say it. Python would complain once more
        # when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(READER_GONE) from None


class Value(click.ParamType[V]):
    """An option's value read by one of the pure parsers of `values`."""

    def __init__(self, name: str, parse: Callable[[str], V]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> V:
        """The parsed value; a usage error with the parser's text."""
        if not isinstance(value, str):
            parsed: V = value
            return parsed
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def print_json(value: Any) -> None:
    """JSON for people and programs: indented, keys in the engine's order."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=4).decode())

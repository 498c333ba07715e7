"""`swarmtui backup` and `swarmtui restore`: the whole state of a cluster in one encrypted file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from swarmtui.commands.passphrase import OPTION, passphrase
from swarmtui.commands.session import CommandFailed, with_client
from swarmtui.commands.swarm_options import ADVERTISE, LISTEN
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ConnectionFailed, NotFound
from swarmtui.operations.backup_file import BackupWriter, BadBackup, Progress, check, pieces
from swarmtui.operations.base import OperationFailed

REDRAW_SECONDS = 0.1


class Meter:
    """Bytes on one line of a terminal; nothing where stderr is a file."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._live = sys.stderr.isatty()
        self._drawn_at = 0.0

    def show(self, progress: Progress) -> None:
        """Draw, if some time has passed."""
        now = time.monotonic()
        if not self._live or now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        share = f" ({progress.done * 100 // progress.total} %)" if progress.total else ""
        sys.stderr.write(f"\r\x1b[K{self._verb} {progress.done / 1e6:.1f} MB{share}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="The file; made up without.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@OPTION
@with_client
async def backup(client: EngineClient, output: Path | None, force: bool, passphrase_file: Path | None) -> None:
    """Write the cluster's whole state to an encrypted file.

    Services, networks, nodes, secrets, configs, tokens and the certificate authority; not what is in volumes.
    """
    target = output or Path(f"swarmtui-{time.strftime('%Y%m%d-%H%M%S')}.backup")
    if os.path.lexists(target) and not force:  # noqa: ASYNC240 (nothing else runs yet)
        raise OperationFailed(f"{target} is there already; --force replaces it")
    secret = passphrase(passphrase_file, new=True)
    progress, meter = Progress(), Meter("backing up")
    try:
        with _new_file(target, force=force) as file:
            writer = await asyncio.to_thread(BackupWriter, file, secret)
            async with client.backup() as stream:
                async for chunk in stream:
                    writer.write(chunk)
                    progress.done += len(chunk)
                    meter.show(progress)
            if not progress.done:
                raise OperationFailed("the manager sent an empty backup")
            writer.finish()
    except NotFound as error:
        raise OperationFailed("this engine makes no backups; a Docker Engine's swarm is backed up as files") from error
    except OSError as error:
        raise OperationFailed(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        meter.clear()
    click.echo(f"{target}: {progress.done:,} bytes of state, encrypted. Without the passphrase it is worth nothing.")


@contextlib.contextmanager
def _new_file(target: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that is there under its name when it is complete, and not at all otherwise."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            part.replace(target)
        else:
            # Unlike a rename this fails when somebody made the file meanwhile.
            os.link(part, target)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ADVERTISE
@LISTEN
@OPTION
@with_client
async def restore(
    client: EngineClient, file: Path, advertise_addr: str, listen_addr: str, passphrase_file: Path | None
) -> None:
    """Begin the cluster of a backup again, with this node as its only manager.

    The node must be in no swarm. The other nodes of the backup are listed as down until they join again.
    """
    info = await client.info()
    if info.swarm is not None and info.swarm.local_node_state != "inactive":
        raise OperationFailed(
            f"{info.name or 'this node'} is in a swarm already; leave it first with `swarmtui swarm leave`"
        )
    secret = passphrase(passphrase_file, new=False)
    progress, meter = Progress(), Meter("restoring")
    try:
        # All of it is read before any of it is sent: a file that turns out to be damaged must not leave half a cluster.
        progress.total = await asyncio.to_thread(check, file, secret)
        node_id = await client.restore(
            _metered(pieces(file, secret, progress), progress, meter),
            {"listenAddr": listen_addr, "advertiseAddr": advertise_addr},
        )
    except BadBackup as error:
        raise CommandFailed(f"Error: {file}: {error}") from error
    except NotFound as error:
        raise OperationFailed("this engine restores no backups; only our agents do") from error
    except ConnectionFailed as error:
        raise OperationFailed(
            f"{error}; whether the backup was restored is not known: look at `swarmtui node ls`"
        ) from error
    except OSError as error:
        raise OperationFailed(f"{file} cannot be read: {error.strerror or error}") from error
    finally:
        meter.clear()
    click.echo(f"Swarm restored: current node ({node_id}) is its only manager.")
    click.echo("Add managers again: `swarmtui swarm join-token manager` shows how.")


async def _metered(source: AsyncIterator[bytes], progress: Progress, meter: Meter) -> AsyncIterator[bytes]:
    async for piece in source:
        meter.show(progress)
        yield piece

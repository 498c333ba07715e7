"""What one agent is told on its command line."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agent.rpc.addresses import split_address

MAX_SOCKET_PATH = 107
"""Bytes that the path of a unix socket may have (Linux: sun_path)."""

DEFAULT_PORT = 2377

PROCESS = "process"


class SettingsError(ValueError):
    """A setting that cannot work; the text names the option, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One agent. `listen_host` and `listen_port` are where other nodes reach it; `engine` is a socket path, None for the
    process executor, which gives its tasks addresses from `task_addresses` (None: its default).
    """

    data_dir: Path
    socket: Path
    listen_host: str
    listen_port: int
    engine: str | None
    hostname: str
    task_addresses: str | None
    log_level: str
    log_json: bool


def program_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("swarmtui")
    except PackageNotFoundError:
        return "0.0.0"


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The command line as settings. Prints and exits on --help, --version and on options that do not exist."""
    parser = argparse.ArgumentParser(
        prog="swarmtui-agent", description="Run one swarmtui agent in the foreground.", allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, default=Path("/var/lib/swarmtui"), metavar="DIR", help="state on disk")
    parser.add_argument(
        "--socket", type=Path, default=Path("/run/swarmtui/docker.sock"), metavar="PATH", help="the API's unix socket"
    )
    parser.add_argument(
        "--listen",
        default=f"0.0.0.0:{DEFAULT_PORT}",
        metavar="ADDRESS:PORT",
        help="where other nodes reach this one; published ports answer on this address too",
    )
    parser.add_argument(
        "--engine",
        default="unix:///var/run/docker.sock",
        metavar="unix:///PATH|process",
        help="the Docker Engine that runs containers, or 'process' for the images that ship with swarmtui",
    )
    parser.add_argument("--hostname", default=socket.gethostname(), metavar="NAME", help="the node's name")
    parser.add_argument(
        "--task-addresses",
        metavar="NETWORK",
        help="with --engine process: addresses for tasks, one each (default: those of 127.77.X.0/24 that follows --listen)",
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-json", action="store_true", help="one JSON object a line on stderr")
    parser.add_argument("--version", action="version", version=f"swarmtui-agent {program_version()}")
    given = parser.parse_args(arguments)
    try:
        return _settings(given)
    except SettingsError as error:
        parser.error(str(error))


def _settings(given: argparse.Namespace) -> Settings:
    path = given.socket.absolute()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SettingsError(
            f"--socket: the path has {len(os.fsencode(path))} bytes, a unix socket may have {MAX_SOCKET_PATH}: {path}"
        )
    try:
        host, port = split_address(given.listen if ":" in given.listen else f"{given.listen}:{DEFAULT_PORT}")
    except ValueError as error:
        raise SettingsError(f"--listen: {error}; give ADDRESS:PORT, such as 10.0.0.11:{DEFAULT_PORT}") from None
    engine = None
    if given.engine != PROCESS:
        if not given.engine.startswith("unix:///"):
            raise SettingsError(f"--engine: {given.engine!r} is neither unix:///PATH nor 'process'")
        engine = given.engine.removeprefix("unix://")
    return Settings(
        data_dir=given.data_dir.absolute(),
        socket=path,
        listen_host=host,
        listen_port=port,
        engine=engine,
        hostname=given.hostname,
        task_addresses=given.task_addresses,
        log_level=given.log_level,
        log_json=given.log_json,
    )

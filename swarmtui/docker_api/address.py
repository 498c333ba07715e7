"""Where an engine listens: `unix:///path`, `tcp://host:port`, `http://` and `https://`, as `DOCKER_HOST` has them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from swarmtui.docker_api.errors import BadAddress

SOCKET_PATH_LIMIT = 107
"""Bytes that a socket's path may have: `sun_path` holds 108 with its final NUL (man 7 unix)."""

DEFAULT_TCP_PORT = 2375
DEFAULT_TLS_PORT = 2376


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Certificate files (PEM) for a TCP address; `verify` False accepts any server."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """One engine: a socket path, or a host and port with or without TLS."""

    socket: str = ""
    host: str = ""
    port: int = 0
    tls: TLSFiles | None = None

    def __str__(self) -> str:
        if self.socket:
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def socket_address(path: str) -> EngineAddress:
    """The address of a socket in the file system; BadAddress when the kernel could not take the path."""
    size = len(os.fsencode(path))
    if "\0" in path:
        raise BadAddress(f"the socket path holds a NUL: {path!r}")
    if size > SOCKET_PATH_LIMIT:
        raise BadAddress(
            f"the socket path has {size} bytes and the kernel takes {SOCKET_PATH_LIMIT} at most: {path} "
            "(use a shorter folder, or a symbolic link to it)"
        )
    if not path.startswith("/"):
        raise BadAddress(f"the socket path must be absolute: unix:///{path}")
    return EngineAddress(socket=path)


def parse_address(text: str, tls: TLSFiles | None = None) -> EngineAddress:
    """`DOCKER_HOST`'s forms. BadAddress says what is wrong and which forms there are."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        if text.startswith("/"):
            return socket_address(text)
        scheme, rest = "tcp", text
    if scheme == "unix":
        return socket_address(rest or "/var/run/docker.sock")
    if scheme in ("tcp", "http", "https"):
        return _tcp_address(text, scheme, rest, tls)
    if scheme == "ssh":
        raise BadAddress(
            f"{text}: ssh addresses are not supported yet; forward the socket instead: "
            f"ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock {rest} and use unix:///tmp/engine.sock"
        )
    raise BadAddress(f"{text}: unknown kind of address {scheme!r}; use unix:///PATH or tcp://HOST:PORT")


def _tcp_address(text: str, scheme: str, rest: str, tls: TLSFiles | None) -> EngineAddress:
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError as error:
        raise BadAddress(f"{text}: {error}; write tcp://HOST:PORT") from None
    try:
        port = parts.port
    except ValueError:
        raise BadAddress(f"{text}: the port must be a number from 1 to 65535") from None
    if port == 0:
        raise BadAddress(f"{text}: the port must be a number from 1 to 65535")
    if not parts.hostname or not re.fullmatch(r"[A-Za-z0-9._:%-]+", parts.hostname):
        raise BadAddress(f"{text}: no host; write tcp://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise BadAddress(f"{text}: only a host and a port are understood; write tcp://HOST:PORT")
    if scheme == "https" and tls is None:
        tls = TLSFiles()
    default = DEFAULT_TLS_PORT if tls else DEFAULT_TCP_PORT
    return EngineAddress(host=parts.hostname, port=port or default, tls=tls)

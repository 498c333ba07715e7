"""The host's own resolvers, as its resolv.conf names them now."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")

MOST = 3
"""Resolvers that are used, as in the C library (MAXNS)."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Whom to ask what this host does not know."""

    address: str
    port: int = 53


class HostResolvers:
    """Callable: the resolvers of a resolv.conf, read again when the file changed (DHCP and VPNs rewrite it)."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._resolvers: tuple[Resolver, ...] = ()

    def __call__(self) -> Sequence[Resolver]:
        """The resolvers in their order; none when the file is missing or names none."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._resolvers = parse_resolv_conf(self._path.read_text(errors="replace"))
                self._stamp = stamp
        except OSError as error:
            if self._stamp is not None:
                logger.warning("%s cannot be read, its last resolvers are used on: %s", self._path, error)
                self._stamp = None
        return self._resolvers


def parse_resolv_conf(text: str) -> tuple[Resolver, ...]:
    """The `nameserver` lines of a resolv.conf that hold an address (resolv.conf(5)); three at most."""
    found: dict[Resolver, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            continue
        found[Resolver(words[1])] = None
    return tuple(found)[:MOST]

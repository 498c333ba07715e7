"""The ground of a session: sweep what dead ones left, choose the tier and the addresses, make the folder."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from swarmtui.playground.addresses import SWARM_PORT, Addressing, choose_offset, choose_subnet, host_link, parse_routes
from swarmtui.playground.places import Record, base_folder, base_lock, leave_base, make_session, sessions
from swarmtui.playground.sweep import sweep
from swarmtui.playground.tier import Choice, choose, probe


@dataclass(slots=True)
class Ground:
    """What a session stands on. `lock` is the descriptor that keeps it alive in the eyes of others."""

    choice: Choice
    addressing: Addressing
    folder: Path
    lock: int
    record: Record
    swept: list[str]
    """Ids of dead sessions that were cleaned up on the way."""

    def leave(self) -> None:
        """Let go of the lock; remove what the keeper, which should have removed it all, left."""
        os.close(self.lock)
        base = self.folder.parent
        if base.exists():
            with base_lock(base):
                sweep(base)
            leave_base(base)


def prepare(wanted_tier: str, base: Path | None = None) -> Ground:
    """Make the ground. Blocks; raises TierUnavailable, NoFreeSubnet, UnusableBase."""
    choice = choose(wanted_tier, probe())
    base = base or base_folder(dict(os.environ), os.getuid())
    with base_lock(base):
        swept = sweep(base)
        living, _dead = sessions(base)
        known = [Record.read(folder) for folder in living]
        if choice.tier.isolated:
            taken = [*routes(), *(IPv4Network(record.subnet) for record in known if record.subnet)]
            addressing = Addressing(choose_subnet(taken))
        else:
            used = {record.offset for record in known if record.tier == choice.tier}
            addressing = Addressing(None, choose_offset(lambda offset: offset in used or is_taken(offset)))
        folder, lock = make_session(base)
        record = Record(
            session=folder.name,
            tier=str(choice.tier),
            subnet=str(addressing.subnet) if addressing.subnet else None,
            offset=addressing.offset,
            host_link=host_link(folder.name) if addressing.subnet else None,
        )
        record.write(folder)
    return Ground(choice, addressing, folder, lock, record, swept)


def routes() -> list[IPv4Network]:
    """Networks that this host has a route to."""
    listing = subprocess.run(
        ["ip", "-4", "route", "show", "table", "all"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return parse_routes(listing.stdout)


def is_taken(offset: int) -> bool:
    """Whether something listens where the first instance of a loopback session would: another user's playground, say."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((str(Addressing(None, offset).instance(1)), SWARM_PORT))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False

"""Pictures of networks on disk, so that an agent that starts again goes on before a manager is reached. Blocking."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from agent.network.tables import NetworkPicture, NetworkTables
from agent.rpc.messages import NetworkUpdate

logger = logging.getLogger(__name__)

_SUFFIX = ".network"


class KeptPictures:
    """A file a network in `folder`. What is damaged counts as missing: the manager tells it all again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def used(self) -> bool:
        """Whether this node ever had a network."""
        return self._folder.is_dir()

    def load(self) -> list[NetworkPicture]:
        """What was there when it was last written."""
        tables = NetworkTables()
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                tables.apply(msgspec.msgpack.decode(path.read_bytes(), type=NetworkUpdate))
            except (OSError, msgspec.DecodeError) as error:
                logger.warning("%s is left out: %s", path, error)
        return list(tables.networks.values())

    def write(self, picture: NetworkPicture) -> None:
        """Whole or not at all; not forced to the disk, as a power cut takes the network itself along."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{picture.id}{_SUFFIX}"
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(picture.as_update()))
        fresh.replace(path)

    def remove(self, network_id: str) -> None:
        """Forget a network. Idempotent."""
        (self._folder / f"{network_id}{_SUFFIX}").unlink(missing_ok=True)

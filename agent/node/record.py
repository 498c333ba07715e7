"""What a node remembers of its swarm across restarts, beside its certificate: where it listens and what it advertises."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agent.raft.log import sync_folder

FORMAT = 1
NAME = "swarm.json"


class RecordDamaged(Exception):
    """The file cannot be read as a record; the text names it and says what to do."""


class SwarmRecord(msgspec.Struct, frozen=True):
    """This node's part in a swarm. Addresses are `address:port`; `managers` were known when it was written.

    `asked_listen` and `asked_advertise` are what a person asked for at init or join, resolved again at every start: the
    host may have another address by then. None in records of versions that did not keep them. `alone` says that this
    manager is on its way to be the only one of a new group (`--force-new-cluster`): not all of that is done yet.
    """

    cluster_id: str
    node_id: str
    listen: str
    advertise: str
    managers: list[str] = []
    asked_listen: str | None = None
    asked_advertise: str | None = None
    alone: bool = False
    format: int = FORMAT


def load_record(folder: Path) -> SwarmRecord | None:
    """The record in `folder`, None when the node is in no swarm. Blocks for a moment."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = msgspec.json.decode(data, type=SwarmRecord)
    except msgspec.DecodeError as error:
        raise RecordDamaged(
            f"{path} is damaged ({error}); restore it, or move {folder} away and let this node join again"
        ) from None
    if record.format > FORMAT:
        raise RecordDamaged(f"{path} has format {record.format}, this version reads {FORMAT}: upgrade this agent")
    return record


def save_record(folder: Path, record: SwarmRecord) -> None:
    """Write the record, whole or not at all, on the disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / f"{NAME}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / NAME)
    sync_folder(folder)

"""A member's folder made from a state that comes from elsewhere: a group begins again from a backup."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.raft.core.membership import Membership
from agent.raft.core.messages import HardState, SnapshotMeta
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.folder import FolderLock
from agent.raft.interface import Sealer
from agent.raft.storage import MemberStorage

FIRST_TERM = 1


def begin_with(folder: Path, sealer: Sealer, member_id: str, address: str, index: int, chunks: Iterable[bytes]) -> None:
    """Make an empty folder that of a group of this member alone, whose state at `index` (1 at least) is `chunks`.

    Durable when it returns; blocks. Raises FileExistsError for a folder that holds a group already.
    """
    membership = Membership((member_id,), (), {member_id: address})
    snapshot = SnapshotMeta(index, FIRST_TERM, membership)
    hard_state = HardState(FIRST_TERM, "", index)
    status = Status(RoleName.FOLLOWER, FIRST_TERM, "")
    lock = FolderLock(folder)
    storage = MemberStorage(folder, sealer)
    try:
        recovered = storage.recover(Membership(), lambda chunks: None)
        if recovered.entries or recovered.snapshot.index or recovered.hard_state.term:
            raise FileExistsError(f"{folder} holds the state of a group")
        storage.save(snapshot, chunks)
        storage.write(Ready(0, status, (), snapshot, hard_state, (), True, (), (), ()))
    finally:
        storage.close()
        lock.release()

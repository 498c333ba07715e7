"""What the store and consensus expect of each other.

A group of one member (`single.SingleMember`) and a Raft group implement `Consensus` alike, so that nothing above this
room changes with the number of managers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol


class Sealer(Protocol):
    """Encryption of what goes to disk; `agent.pki` implements it."""

    def seal(self, plain: bytes) -> bytes:
        """`plain` encrypted and authenticated."""
        ...

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes; raises ValueError when they were changed or the key is another one."""
        ...


class StateMachine(Protocol):
    """Who the committed entries are for; `agent.store` implements it. Called on one loop, in order of index."""

    def apply(self, index: int, data: bytes) -> None:
        """Take one committed entry. Must not fail and must not block."""
        ...

    def snapshot(self) -> AsyncIterator[bytes]:
        """The whole state as of now, in chunks; yields to the loop between them."""
        ...

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        """Replace the state by a snapshot taken at `index`."""
        ...


class Consensus(Protocol):
    """An agreed, durable order of entries."""

    def propose(self, data: bytes) -> asyncio.Future[int]:
        """Ask for an entry; the future holds its index once it is durable, committed and applied here.

        It fails with `NotLeader` when it surely was not taken, with `OutcomeUnknown` when nobody can say.
        """
        ...

    async def read_index(self) -> int:
        """An index that covers every write acknowledged before the call; waits until it is applied here."""
        ...


class NotLeader(Exception):
    """This member does not lead; the entry was not taken."""


class OutcomeUnknown(Exception):
    """The leader was lost while the entry was under way; it may or may not come to be."""

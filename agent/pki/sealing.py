"""Encryption of a manager's state at rest, with a data key in the identity's folder."""

from __future__ import annotations

from pathlib import Path


class Locked(Exception):
    """The data key is wrapped by an unlock key that is needed first."""


class Sealing:
    """AES-256-GCM with the node's data key; implements `agent.raft.interface.Sealer`. The repr shows nothing of it."""

    @classmethod
    def create(cls, folder: Path) -> Sealing:
        """A new data key, saved in `folder` (0600) before this returns."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, unlock_key: str | None = None) -> Sealing:
        """The saved data key; IdentityMissing, IdentityDamaged, Locked (no unlock key), InvalidUnlockKey."""
        raise NotImplementedError

    @classmethod
    def load_or_create(cls, folder: Path) -> Sealing:
        """The saved data key, or a new one where there is none."""
        raise NotImplementedError

    def seal(self, plain: bytes) -> bytes:
        """`plain` encrypted and authenticated."""
        raise NotImplementedError

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes; ValueError when they were changed or the key is another one."""
        raise NotImplementedError

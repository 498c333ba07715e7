"""Auto-lock of a manager's two secret files: its identity and its data keys.

The private key in identity.json is sealed by a key that lives in data-keys.json, and that file alone is wrapped by the
unlock key. So locking, unlocking and changing the unlock key are each decided by one file that is replaced whole: after a
crash everything opens by the old key or everything by the new one.
"""

from __future__ import annotations

from agent.pki.identity import NodeIdentity
from agent.pki.sealing import Sealing


def lock(identity: NodeIdentity, sealing: Sealing, unlock_key: str | None) -> None:
    """Make both files of a manager readable with `unlock_key` alone, or with no key (None). Blocks on the disk.

    InvalidUnlockKey when the text is no key; OSError when the disk refuses, and then the old key still holds. As long as
    auto-lock is on, a renewed identity is saved with `identity.save(folder, sealing)`.
    """
    if unlock_key is not None:
        # Sealed by a key that is still as plain as before: whatever comes between, both files open alike.
        identity.save(sealing.folder, sealing)
        sealing.lock(unlock_key)
    else:
        sealing.lock(None)
        identity.save(sealing.folder)

"""Removing an object once, however often the request for it arrives."""

from __future__ import annotations

from collections.abc import Callable

from agent.api.attempts import found_again, surely_gone
from agent.api.call import Call
from agent.store.store import Store
from agent.store.tables import O
from agent.store.transactions import ReadTx, WriteTx


async def remove_object(
    call: Call, store: Store, kind: type[O], find: Callable[[ReadTx], O], check: Callable[[WriteTx, O], None]
) -> O | None:
    """Remove what `find` finds (it raises NotFound) unless `check` raises; None when an earlier attempt removed it."""
    removed: list[O] = []

    def change(tx: WriteTx) -> None:
        found = found_again(call.attempt, tx, find)
        if found is not None:
            check(tx, found)
            tx.delete(kind, found.id)
            removed.append(found)

    await store.update(change)
    if removed:
        return removed[0]
    surely_gone(store, find)
    return None

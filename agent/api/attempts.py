"""What managers tell each other about a request that one of them sends on to the leader, beside the request itself.

A leader can be lost before its answer arrives, and then nobody knows whether the change was made. So a request that is sent
again says so, and carries what makes the first attempt recognisable: a create the id of the object that it makes, every
other write the id of the object that it is about. `made_before`, `changed_before` and `found_again` look whether the change
is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.api_types.errors import NotFound, Unavailable
from agent.api_types.identity import ID_LENGTH
from agent.raft.interface import OutcomeUnknown
from agent.store.store import Store
from agent.store.tables import O
from agent.store.transactions import ReadTx, WriteTx

PREFIX = "swarmtui-forward-"
"""Headers of ours, in lower case; taken from another manager alone, never from a client."""
CALLER = "Swarmtui-Forward-Caller"
OBJECT_ID = "Swarmtui-Forward-Object"
REPEATED = "Swarmtui-Forward-Repeated"
OUTCOME = "Swarmtui-Forward-Outcome"


UNKNOWN_OUTCOME = (
    "rpc error: code = Unavailable desc = the leader was lost before it answered: the change may have been made or not. "
    "Look whether it was before you ask for it again"
)


class Outcome(StrEnum):
    """Beside an answer of status 503: what has become of the request."""

    NOT_TAKEN = "not-taken"
    """Nothing was done: another attempt is safe."""
    UNKNOWN = "unknown"
    """The change may come to be or not."""


@dataclass(slots=True)
class Attempt:
    """One attempt to have a request answered by the leader.

    `caller` is who asked, for the audit line; `forwarded` when another manager sent the request on; `object_id` the object
    that is made or changed, empty as long as nobody knows it; `repeated` when an earlier attempt may have been taken.
    """

    caller: str
    forwarded: bool = False
    object_id: str = ""
    repeated: bool = False

    def headers(self) -> list[tuple[str, str]]:
        """As headers of a request that is sent on."""
        told = [(CALLER, self.caller)]
        if self.object_id:
            told.append((OBJECT_ID, self.object_id))
        if self.repeated:
            told.append((REPEATED, "1"))
        return told


def received_attempt(headers: Mapping[str, str], *, own_process: bool, peer: str) -> Attempt:
    """What the headers of a request say. They count only from this process itself, which speaks for other managers."""
    if not own_process or CALLER not in headers:
        return Attempt(peer)
    object_id = headers.get(OBJECT_ID, "")
    return Attempt(
        caller=headers[CALLER],
        forwarded=True,
        object_id=object_id if len(object_id) == ID_LENGTH and object_id.isalnum() else "",
        repeated=REPEATED in headers,
    )


# -- at the leader, inside of a transaction


def chosen_id(attempt: Attempt, tx: WriteTx) -> str:
    """The id for the object that the request makes; remembered, so that a repeat makes no second one."""
    attempt.object_id = attempt.object_id or tx.new_id()
    return attempt.object_id


def made_before(attempt: Attempt, tx: WriteTx, kind: type[O]) -> O | None:
    """The object that another attempt at this create made, even one that overtook this.

    It is written again as it is: this attempt's entry then stands behind the other's, and is not acknowledged before.
    """
    found = tx.get(kind, attempt.object_id) if attempt.object_id else None
    return None if found is None else tx.update(found)


def changed_before(attempt: Attempt, tx: WriteTx, stored: O, version: int, same: bool) -> bool:
    """Whether an earlier attempt at this update was made; `same` says whether the change is there.

    The object still has the version that the client read: surely not. Another version without the change: nobody can say,
    since a third write may have come over it (Unavailable, with that text). Two clients that ask for the very same state at
    the same moment are both told that it was made, should one of them lose its leader.
    """
    if not attempt.repeated or stored.version.index == version:
        return False
    if not same:
        raise Unavailable(UNKNOWN_OUTCOME)
    tx.update(stored)
    return True


def found_again(attempt: Attempt, tx: WriteTx, find: Callable[[ReadTx], O]) -> O | None:
    """What a removal is about; None when an earlier attempt at it was made. `find` raises NotFound.

    In a repeat a name that may belong to another object by now is Unavailable: that one is not to be removed, and of the
    first one nobody can say who removed it.
    """
    try:
        found = find(tx)
    except NotFound:
        if not attempt.repeated:
            raise
        return None
    if attempt.repeated and attempt.object_id != found.id:
        raise Unavailable(UNKNOWN_OUTCOME)
    attempt.object_id = found.id
    return found


def surely_gone(store: Store, find: Callable[[ReadTx], O]) -> None:
    """After a removal that was made before: OutcomeUnknown while its entry is still under way."""
    try:
        store.view(find)
    except NotFound:
        return
    raise OutcomeUnknown("the removal is still under way")

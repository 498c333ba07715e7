"""Which nodes need an address of their own on which networks: for the balancer of a node, whose connections come from it.

A node has one on every network that a task or a container there uses, and keeps it for `LINGER` after the last is gone, so
that a service that restarts does not change it; not so long where somebody waits for an address.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node
from agent.api_types.times import SECOND
from agent.manager.allocator import problems
from agent.manager.allocator.ledger import Holder, Ledger
from agent.manager.allocator.problems import Problem
from agent.manager.control_loop import earliest
from agent.store.transactions import WriteTx

LINGER = 60 * SECOND
"""How long a node keeps its address on a network that nothing there uses any more, in nanoseconds."""

Place = tuple[str, str]
"""Node id and network id."""


class Balancers:
    """Who uses which network where, and which of those places have their address."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._users: dict[Place, set[Holder]] = {}
        self._uses: dict[Holder, frozenset[Place]] = {}
        self._placed: dict[Place, str] = {}
        """Place -> the attachment's id."""
        self._idle: dict[Place, int] = {}
        """Places that nothing uses, and since when."""
        self.unsettled: dict[Place, None] = {}
        """Places to look at: one that is used and has no address, or the other way round."""

    def use(self, holder: Holder, places: Iterable[Place]) -> None:
        """A task or a container needs exactly these from now on."""
        now = frozenset(places)
        before = self._uses.get(holder, frozenset())
        for place in before - now:
            self._users[place].discard(holder)
            if not self._users[place]:
                del self._users[place]
                self.unsettled[place] = None
        for place in now - before:
            self._users.setdefault(place, set()).add(holder)
            if len(self._users[place]) == 1:
                self.unsettled[place] = None
        if now:
            self._uses[holder] = now
        else:
            self._uses.pop(holder, None)

    def found(self, attachment: Attachment) -> None:
        """A balancer's attachment is in the store."""
        place = (attachment.node_id, attachment.network_id)
        self._placed[place] = attachment.id
        if place not in self._users:
            self.unsettled[place] = None

    def lost(self, attachment_id: str) -> None:
        """An attachment is not in the store any more."""
        place = next((place for place, placed in self._placed.items() if placed == attachment_id), None)
        if place is not None:
            del self._placed[place]
            self.unsettled[place] = None

    def look_at(self, *, node_id: str = "", network_id: str = "") -> None:
        """A node or a network came or went."""
        for place in {*self._placed, *self._users}:
            if place[0] == node_id or place[1] == network_id:
                self.unsettled[place] = None

    def settle(self, tx: WriteTx, place: Place) -> Problem | None:
        """Give a place what it needs, or take it away; what is in the way when no address is left."""
        node_id, network_id = place
        network = tx.get(Network, network_id)
        placed = self._placed.get(place)
        exists = network is not None and tx.get(Node, node_id) is not None
        if placed is not None and (not exists or (place not in self._users and self._is_over(tx, place))):
            tx.delete(Attachment, placed)
            self._ledger.settle((Attachment, placed), (), tx.clock())
            del self._placed[place]
            self._idle.pop(place, None)
        if place in self._users:
            self._idle.pop(place, None)
            if placed is None and exists and network is not None:
                return self._place(tx, place, network)
        return None

    def _is_over(self, tx: WriteTx, place: Place) -> bool:
        return self._idle.setdefault(place, tx.clock()) + LINGER <= tx.clock()

    def _place(self, tx: WriteTx, place: Place, network: Network) -> Problem | None:
        if not self._ledger.is_open(network.id):
            return Problem("", "", problems.NETWORKS)
        attachment_id = tx.new_id()
        holder: Holder = (Attachment, attachment_id)
        addresses = self._ledger.give(holder, network.id, tx.clock())
        if addresses is None:
            return problems.exhausted(network)
        tx.create(Attachment(id=attachment_id, network_id=network.id, node_id=place[0], addresses=addresses))
        self._placed[place] = attachment_id
        return None

    def yield_idle(self, network_id: str) -> bool:
        """Give up what nothing uses on a network that is full; whether there was something."""
        idle = [place for place in self._idle if place[1] == network_id and place in self._placed]
        for place in idle:
            self._idle[place] = -LINGER
            self.unsettled[place] = None
        return bool(idle)

    def ripen(self, now: int) -> int | None:
        """Look again at places that have been idle for long enough; the time at which the next one will have been."""
        for place, since in self._idle.items():
            if since + LINGER <= now:
                self.unsettled[place] = None
        return earliest(*(since + LINGER for since in self._idle.values() if since + LINGER > now))

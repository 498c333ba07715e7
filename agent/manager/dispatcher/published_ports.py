"""The newest table of published ports, made again when something in it may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.api_types.service import Service
from agent.api_types.task import Task
from agent.manager.dispatcher.ingress import answers, ingress_services, publishes
from agent.manager.dispatcher.liveness import Liveness
from agent.rpc.messages import IngressTable
from agent.store.store import Store
from agent.store.transactions import ReadTx

GAP = 0.05
"""Seconds between two tables: nodes that come in a crowd would else lead to one each."""


class PublishedPorts:
    """Keeps the table; `on_table` is called when there is another one. `liveness` says who is away and who may yet come."""

    def __init__(self, store: Store, liveness: Callable[[], Liveness], on_table: Callable[[], None]) -> None:
        self.table: IngressTable | None = None
        """None until a new leader can complete one: nobody is told of less than the old leader told."""
        self.addresses: dict[str, str] = {}
        """The listener (`host:port`) of every node that this leader heard."""
        self._store = store
        self._liveness = liveness
        self._on_table = on_table
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something may have changed that the table shows."""
        self._changed.set()

    async def run(self) -> None:
        """The first change makes another table at once; what follows within a moment goes into the next one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._make()
            await asyncio.sleep(GAP)

    def _make(self) -> None:
        if self.awaits_backends():
            return
        services = self._store.view(lambda tx: ingress_services(tx, self.addresses, self._liveness().away))
        if self.table is None or services != self.table.services:
            self.table = IngressTable(services)
            self._on_table()

    def awaits_backends(self) -> bool:
        """Whether a node that runs tasks of a published service has not been heard by this leader, but may yet be."""
        awaited = set(self._liveness().awaited())
        if self.table is not None or not awaited:
            return False

        def any_backend(tx: ReadTx) -> bool:
            published = {service.id for service in tx.all(Service) if publishes(service)}
            return any(
                task.service_id in published and answers(task)
                for node_id in awaited
                for task in tx.find(Task, "node", node_id)
            )

        return self._store.view(any_backend)

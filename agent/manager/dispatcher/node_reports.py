"""What is known of nodes' lives on its way to the store: state, message, address, description."""

from __future__ import annotations

import asyncio
from itertools import islice

import msgspec

from agent.api_types.node import Node, NodeDescription, NodeState
from agent.manager.control_loop import BATCH
from agent.store.store import Store
from agent.store.transactions import WriteTx


class NodeReport(msgspec.Struct, frozen=True, gc=False):
    """A change of a node; None leaves what is there."""

    state: NodeState | None = None
    message: str = ""
    address: str | None = None
    description: NodeDescription | None = None


def merge(before: NodeReport, after: NodeReport) -> NodeReport:
    """Two reports as one: the later one wins where it says something."""
    has_state = after.state is not None
    return NodeReport(
        state=after.state if has_state else before.state,
        message=after.message if has_state else before.message,
        address=before.address if after.address is None else after.address,
        description=before.description if after.description is None else after.description,
    )


def apply_report(node: Node, report: NodeReport) -> Node:
    """The node with what is reported of it."""
    status = node.status
    if report.state is not None:
        status = msgspec.structs.replace(status, state=report.state, message=report.message)
    if report.address is not None:
        status = msgspec.structs.replace(status, addr=report.address)
    return msgspec.structs.replace(node, status=status, description=report.description or node.description)


class NodeWriter:
    """Gathers reports of nodes and writes them, many in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reports: dict[str, NodeReport] = {}
        self._wake = asyncio.Event()

    def report(self, node_id: str, report: NodeReport) -> None:
        """A node changed; returns at once."""
        before = self._reports.get(node_id)
        self._reports[node_id] = report if before is None else merge(before, report)
        self._wake.set()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._reports:
                batch = dict(islice(self._reports.items(), BATCH))
                for node_id in batch:
                    del self._reports[node_id]
                await self._store.update(lambda tx, batch=batch: _write(tx, batch))  # type: ignore[misc]
                await asyncio.sleep(0)


def _write(tx: WriteTx, reports: dict[str, NodeReport]) -> None:
    for node_id, report in reports.items():
        node = tx.get(Node, node_id)
        if node is None:
            continue
        changed = apply_report(node, report)
        if changed != node:
            tx.update(changed)

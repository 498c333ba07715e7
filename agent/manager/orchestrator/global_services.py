"""Global services: one task on every node that fits.

The task is made for its node; the scheduler only verifies that it can run there. A paused node keeps its task but gets
no other one; a drained, down or no longer fitting node has it shut down.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.service import Service
from agent.api_types.task import TaskState
from agent.manager.constraints import placement_fits
from agent.manager.orchestrator.changes import NewTask, SlotChange, replace_all
from agent.manager.orchestrator.reconciler import Reconciler, ServiceView
from agent.manager.orchestrator.restarts import restart_slot
from agent.manager.restart import Cause, may_restart
from agent.manager.slots import Slot, ended_by_itself, is_global_service, unfit
from agent.store.watching import Event, EventKind


class GlobalOrchestrator(Reconciler):
    """Keeps global services on all nodes that fit."""

    def handles(self, service: Service) -> bool:
        return is_global_service(service)

    def restart(self, view: ServiceView, slot: Slot) -> SlotChange | None:
        node = view.nodes.get(str(slot.key))
        if not may_stay(view.service, node):
            return replace_all(slot, None) if slot.wanted else None
        if not takes_tasks(node):
            return None
        return restart_slot(view.service, slot, view.nodes.get, view.now)

    def resize(self, view: ServiceView) -> list[SlotChange]:
        changes = []
        for node in view.nodes.values():
            slot = view.slots.get(node.id) or Slot(node.id, ())
            if takes_tasks(node) and may_stay(view.service, node) and not slot.wanted and not is_settled(slot):
                changes.append(SlotChange(slot, new=NewTask(TaskState.RUNNING)))
        return changes

    def updatable(self, view: ServiceView, closing: Sequence[SlotChange]) -> list[Slot]:
        changing = {change.slot.key for change in closing}
        return [
            slot
            for slot in view.slots.values()
            if slot.key not in changing
            and (slot.wanted or is_settled(slot))
            and may_stay(view.service, node := view.nodes.get(str(slot.key)))
            and takes_tasks(node)
        ]

    def node_matters(self, event: Event) -> bool:
        if event.kind is not EventKind.UPDATE or not isinstance(event.old, Node) or not isinstance(event.object, Node):
            return True
        return placement_facts(event.old) != placement_facts(event.object)


def may_stay(service: Service, node: Node | None) -> bool:
    """Whether a task of the service may be on the node."""
    return node is not None and not unfit(node) and placement_fits(service.spec.task_template.placement, node)


def takes_tasks(node: Node | None) -> bool:
    """Whether the node gets new tasks: it is there and nobody paused or drained it."""
    return (
        node is not None and node.status.state is NodeState.READY and node.spec.availability is NodeAvailability.ACTIVE
    )


def is_settled(slot: Slot) -> bool:
    """Whether the slot's last task ended by itself and its policy leaves it at that."""
    newest = slot.newest
    return (
        newest is not None
        and newest.desired_state is TaskState.SHUTDOWN
        and ended_by_itself(newest)
        and not may_restart(newest, slot.tasks, Cause.ENDED)
    )


def placement_facts(node: Node) -> tuple[object, ...]:
    """All of a node that decides whether tasks may be placed on it."""
    return (
        node.status.state,
        node.status.addr,
        node.spec.availability,
        node.spec.role,
        node.spec.labels,
        node.description.hostname,
        node.description.platform,
        node.description.engine.labels,
    )

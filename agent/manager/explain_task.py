"""Why a task is where it is, or why it waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.restart_policy import policy_of
from agent.api_types.task import RestartCondition, Task, TaskState
from agent.api_types.times import SECOND, parse_time
from agent.manager.allocator.ports import NO_PORT_LEFT
from agent.manager.allocator.troubles import networks_without_balancer, troubles_of_task
from agent.manager.restart import Cause, may_restart
from agent.manager.scheduler.filters import Pipeline
from agent.manager.scheduler.node_info import NodeInfo
from agent.manager.slots import (
    CONSTRAINTS_NOT_MET,
    Slot,
    down,
    ended,
    ended_by_itself,
    read_slot,
    slot_key,
    stopping,
    wanted,
)
from agent.store.transactions import ReadTx


class NodeVerdict(msgspec.Struct, frozen=True):
    """Whether one node could take the task now; `reason` is what keeps it from there."""

    node_id: str
    hostname: str
    fits: bool
    reason: str = ""


class Explanation(msgspec.Struct, frozen=True):
    """`summary` says how it is in one sentence, `reasons` why, `advice` what a person can do."""

    kind: str
    id: str
    name: str
    summary: str
    reasons: list[str] = []
    advice: list[str] = []
    nodes: list[NodeVerdict] = []


def task_name(task: Task) -> str:
    """`service.slot` or, for a global service's task, `service.node`; the id where no service is known."""
    service = task.service_annotations.name if task.service_annotations is not None else ""
    return f"{service}.{task.slot or task.node_id}" if service else task.id


def node_name(tx: ReadTx, node_id: str) -> str:
    """The node's hostname, or its id where it has none or is gone."""
    node = tx.get(Node, node_id)
    return node_id if node is None else node.description.hostname or node_id


class TaskStory:
    """One task, its slot and its node, and what there is to say."""

    def __init__(self, tx: ReadTx, task_id: str, now: int, suspected: Callable[[str], bool]) -> None:
        task = tx.get(Task, task_id)
        if task is None:
            raise KeyError(task_id)
        self.tx = tx
        self.task = task
        self.now = now
        self.suspected = suspected
        self.slot = Slot(slot_key(task)[1], read_slot(tx, *slot_key(task)))
        self.reasons: list[str] = []
        self.advice: list[str] = []
        self.nodes: list[NodeVerdict] = []

    def node_of(self, node_id: str) -> Node | None:
        return self.tx.get(Node, node_id)

    @property
    def where(self) -> str:
        return f"node {node_name(self.tx, self.task.node_id)}"

    def tell(self) -> Explanation:
        task = self.task
        if ended(task):
            summary = self._ended()
        elif not wanted(task):
            summary = self._unwanted()
        elif task.status.state in (TaskState.NEW, TaskState.PENDING):
            summary = self._waiting_for_a_node()
        elif task.desired_state is TaskState.READY:
            summary = self._waiting_to_start()
        else:
            summary = self._on_its_way()
        if wanted(task) and not ended(task):
            self._tell_of_the_one_before()
        return Explanation("task", task.id, task_name(task), summary, self.reasons, self.advice, self.nodes)

    # -- it waits

    def _waiting_for_a_node(self) -> str:
        task = self.task
        if task.status.state is TaskState.NEW:
            if task.status.err:
                return self._waiting_for_the_allocator()
            return "The task was just made."
        self.nodes = verdicts(self.tx, task)
        if any(each.fits for each in self.nodes):
            return "The task waits for the scheduler, which places it in a moment."
        counts: dict[str, list[str]] = {}
        for each in self.nodes:
            counts.setdefault(each.reason, []).append(each.hostname or each.node_id)
        for reason, names in sorted(counts.items(), key=lambda pair: -len(pair[1])):
            self.reasons.append(f"{sentence(reason)}: {listed(names)}.")
            self.advice += advice_for(reason, task)
        if not self.nodes:
            self.reasons.append("The cluster has no node.")
        if task.node_id:
            return f"The task was made for {self.where}, which cannot take it."
        return "The task waits: no node can take it."

    def _waiting_for_the_allocator(self) -> str:
        task = self.task
        self.reasons.append(f"{sentence(task.status.err)}.")
        name = task.service_annotations.name if task.service_annotations is not None else "SERVICE"
        self.advice += [told.advice.replace("SERVICE", name) for told in troubles_of_task(self.tx, task)]
        if task.status.err == NO_PORT_LEFT:
            return "The task waits for a published port."
        return "The task waits for its networks."

    def _waiting_to_start(self) -> str:
        task = self.task
        if task.start_after and (left := parse_time(task.start_after) - self.now) > 0:
            delay = policy_of(task.spec).delay / SECOND
            self.reasons.append(f"The restart policy delays a restart by {_seconds(delay)}.")
            return f"The task starts in {_seconds(left / SECOND)} on {self.where}."
        for other in self.slot.tasks:
            if other.id != task.id and stopping(other, self.node_of):
                name = node_name(self.tx, other.node_id)
                self.reasons.append(f"Task {other.id} of the same slot still stops on node {name}.")
        return f"The task is about to start on {self.where}."

    def _on_its_way(self) -> str:
        task = self.task
        node = self.node_of(task.node_id)
        if node is not None and node.status.state is NodeState.DISCONNECTED:
            self.reasons.append("The node's agent stopped in order and is expected back; its tasks stay meanwhile.")
        elif self.suspected(task.node_id):
            self.reasons.append(
                "The connection to the node broke; when it stays silent the task is replaced elsewhere."
            )
        if task.status.err:
            self.reasons.append(f"{sentence(task.status.err)}.")
        for network in networks_without_balancer(self.tx, task):
            name = network.spec.name
            self.reasons.append(
                f"No address is left on network {name} for the balancer of {self.where}: "
                "virtual addresses do not answer there."
            )
            self.advice.append(f"Take services or containers off network {name}, or make a larger one.")
        match task.status.state:
            case TaskState.RUNNING:
                return f"The task runs on {self.where} since {task.status.timestamp}."
            case TaskState.ASSIGNED:
                return f"The task was given to {self.where}, which has not taken it yet."
            case TaskState.ACCEPTED | TaskState.PREPARING:
                return f"The task is being prepared on {self.where}."
            case _:
                return f"The task is being started on {self.where}."

    def _tell_of_the_one_before(self) -> None:
        """Why there is a new task in the slot at all."""
        before = [task for task in self.slot.tasks if task.created_at < self.task.created_at and not wanted(task)]
        if not before:
            return
        old = before[-1]
        name = node_name(self.tx, old.node_id) if old.node_id else ""
        self.reasons.append(f"It took the place of task {old.id}: {self._why_replaced(old, name)}.")

    def _why_replaced(self, old: Task, name: str) -> str:
        node = self.node_of(old.node_id)
        if old.status.err == CONSTRAINTS_NOT_MET:
            return f"node {name} no longer met the constraints"
        if ended_by_itself(old):
            return f"it {_END[old.status.state]}" + (f" ({old.status.err})" if old.status.err else "")
        if old.spec_version != self.task.spec_version and old.spec != self.task.spec:
            return "the service was updated"
        if old.node_id and node is None:
            return f"its node {name} was removed from the cluster"
        if old.node_id and down(node):
            return f"node {name} is down"
        if node is not None and node.spec.availability is NodeAvailability.DRAIN:
            return f"node {name} is drained"
        return f"node {name} was lost or drained at the time" if name else "it was never given to a node"

    # -- it is over

    def _unwanted(self) -> str:
        task = self.task
        if down(self.node_of(task.node_id)) and task.node_id:
            self.reasons.append(f"The {self.where} is down or gone: nobody knows whether the task still runs there.")
            self.advice.append(
                "When the node comes back it stops the task; a node that will not come back can be removed."
            )
        if task.desired_state is TaskState.REMOVE:
            self.reasons.append("Its service was scaled down or removed.")
            return f"The task is being removed from {self.where}." if task.node_id else "The task is being removed."
        successor = self._successor()
        if successor is not None:
            self.reasons.append(f"Task {successor.id} took its place.")
        return f"The task is being stopped on {self.where}." if task.node_id else "The task is no longer wanted."

    def _ended(self) -> str:
        task = self.task
        if task.status.err:
            self.reasons.append(f"{sentence(task.status.err)}.")
        successor = self._successor()
        if successor is not None:
            self.reasons.append(f"Task {successor.id} took its place.")
        elif task.desired_state is TaskState.SHUTDOWN and not self.slot.wanted and ended_by_itself(task):
            self._why_not_restarted()
        place = f" on {self.where}" if task.node_id else ""
        return f"The task {_END[task.status.state]}{place} at {task.status.timestamp}."

    def _why_not_restarted(self) -> None:
        policy = policy_of(self.task.spec)
        if may_restart(self.task, self.slot.tasks, Cause.ENDED):
            return
        name = self.task.service_annotations.name if self.task.service_annotations is not None else "SERVICE"
        if policy.condition is RestartCondition.NONE:
            self.reasons.append("Its restart policy is none: it is not started again.")
        elif policy.condition is RestartCondition.ON_FAILURE and self.task.status.state is TaskState.COMPLETE:
            self.reasons.append("It finished well and its restart policy is on-failure: it is not started again.")
        else:
            self.reasons.append(f"Its restart policy allows {policy.max_attempts} attempts, and all are used.")
            self.advice.append(f"Mend what makes it fail, then start it again: docker service update --force {name}")

    def _successor(self) -> Task | None:
        later = [task for task in self.slot.tasks if task.created_at > self.task.created_at]
        return later[0] if later else None


_END = {
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "was shut down",
    TaskState.FAILED: "failed",
    TaskState.REJECTED: "was rejected",
    TaskState.REMOVE: "was removed",
    TaskState.ORPHANED: "was given up",
}


def verdicts(tx: ReadTx, task: Task) -> list[NodeVerdict]:
    """What each node says to the task; for a task that was made for a node only that one."""
    pipeline = Pipeline()
    pipeline.set_task(task)
    found = []
    for node in tx.all(Node):
        if task.node_id and node.id != task.node_id:
            continue
        info = NodeInfo(node)
        for other in tx.find(Task, "node", node.id):
            if other.status.state.rank >= TaskState.ASSIGNED.rank:
                info.add(other)
        reason = pipeline.first_refusal(info)
        found.append(NodeVerdict(node.id, node.description.hostname, not reason, _short(reason)))
    return found


_ADVICE = {
    "insufficient resources": "Free resources on a node, add a node, or lower the service's reservations.",
    "host-mode port already in use": "Free the host port, add a node, or publish the port in ingress mode.",
    "missing plugin": "Install the plugin on a node.",
    "unsupported platform": "Add a node with that processor and system, or build the image for those there are.",
    "not available for new tasks": "Activate a node (docker node update --availability active NODE) or start its agent.",
    "max replicas per node limit exceed": "Add a node, or raise --replicas-max-per-node.",
}


def advice_for(reason: str, task: Task) -> list[str]:
    """What to do about a refusal."""
    if reason == "scheduling constraints not satisfied" and task.spec.placement is not None:
        wanted_constraints = " and ".join(task.spec.placement.constraints)
        return [f"Let a node satisfy {wanted_constraints} (docker node update --label-add), or change the constraints."]
    return [_ADVICE[reason]] if reason in _ADVICE else []


def _short(reason: str) -> str:
    return reason.removesuffix(" on 1 node").removeprefix("1 node ")


def sentence(text: str) -> str:
    """A text of the API with a capital and without a full stop."""
    return text[:1].upper() + text[1:].rstrip(".")


def listed(names: Sequence[str]) -> str:
    shown = list(names[:5])
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"

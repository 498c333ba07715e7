"""`/tasks` (moby daemon/cluster/tasks.go, swarmkit manager/controlapi/task.go)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from agent.api.call import Call, reply, reply_list
from agent.api.filters import Filters
from agent.api.lookup import find_node, find_service, find_task, manager_store, task_name
from agent.api.views import task_view
from agent.api_types.errors import InvalidArgument
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.manager.slots import up_to_date
from agent.store.transactions import ReadTx


async def list_tasks(call: Call) -> web.StreamResponse:
    """`GET /tasks`, in order of id. Services and nodes of the filters can be named in any way."""
    store = manager_store(call.backend)
    filters = call.filters("name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime")
    wanted_states = _states(filters)
    await call.fresh(store)

    def wanted(tx: ReadTx) -> list[Task]:
        services = frozenset(find_service(tx, named).id for named in filters.get("service"))
        nodes = frozenset(find_node(tx, named).id for named in filters.get("node"))
        found = [
            task
            for task in _candidates(tx, services, nodes)
            if (not services or task.service_id in services)
            and (not nodes or task.node_id in nodes)
            and (not wanted_states or task.desired_state in wanted_states)
            and _matches(filters, task)
        ]
        if filters.get("_up-to-date"):
            found = [task for task in found if is_up_to_date(tx, task)]
        return sorted(found, key=lambda task: task.id)

    return await reply_list(store.view(wanted), task_view)


def _states(filters: Filters) -> frozenset[TaskState]:
    """An unknown state is status 500 in Docker; what a client got wrong is 400 here."""
    states = []
    for word in filters.get("desired-state"):
        try:
            states.append(TaskState(word.lower()))
        except ValueError:
            raise InvalidArgument(f"Invalid desired-state filter: '{word}'") from None
    return frozenset(states)


def _candidates(tx: ReadTx, services: Iterable[str], nodes: Iterable[str]) -> Iterable[Task]:
    """The fewest tasks that an index can name."""
    if services:
        return [task for service_id in services for task in tx.find(Task, "service", service_id)]
    if nodes:
        return [task for node_id in nodes for task in tx.find(Task, "node", node_id)]
    return tx.all(Task)


def _matches(filters: Filters, task: Task) -> bool:
    labels = task.service_annotations.labels if task.service_annotations is not None else task.labels
    return (
        filters.prefix("id", task.id)
        and (not filters.get("name") or filters.prefix("name", task_name(task)))
        and filters.labels("label", labels)
        and filters.exact("runtime", "container")
    )


def is_up_to_date(tx: ReadTx, task: Task) -> bool:
    """Whether the task is what its service wants now (swarmkit orchestrator.IsTaskDirty); without a service it is not.

    A job's task belongs to the current iteration. Another task is up to date when its spec version is its service's, when
    nothing of its template differs, or when only the placement does and its node still fits.
    """
    service = tx.get(Service, task.service_id)
    if service is None:
        return False
    if service.job_status is not None:
        return task.job_iteration == service.job_status.job_iteration
    return up_to_date(task, service, lambda node_id: tx.get(Node, node_id))


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /tasks/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply(task_view(store.view(lambda tx: find_task(tx, call.params["id"]))))

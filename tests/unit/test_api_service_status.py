"""How many tasks of a service are said to run."""

from __future__ import annotations

from agent.api.services import count_tasks
from agent.api_types.node import Node, NodeState, NodeStatus
from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState, TaskStatus
from agent.store.store import Store
from agent.store.transactions import WriteTx


async def test_the_last_word_of_a_node_that_is_down_does_not_count() -> None:
    store = Store.in_memory()
    service = Service(id="web")

    def fill(tx: WriteTx) -> None:
        tx.create(Node(id="alive", status=NodeStatus(state=NodeState.READY)))
        tx.create(Node(id="dead", status=NodeStatus(state=NodeState.DOWN)))
        for name, node, desired in (
            ("old", "dead", TaskState.SHUTDOWN),
            ("new", "alive", TaskState.RUNNING),
        ):
            tx.create(
                Task(
                    id=name,
                    service_id="web",
                    node_id=node,
                    desired_state=desired,
                    status=TaskStatus(state=TaskState.RUNNING),
                )
            )

    await store.update(fill)
    status = store.view(lambda tx: count_tasks(tx, service))
    assert (status.running_tasks, status.desired_tasks) == (1, 1)

"""The table of `service ps`, `node ps` and `task ls`: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarmtui.commands.output import ago, short_id, table
from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.model.row_making import moment, task_name, task_row

HEADERS = ("ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS")


def task_table(
    tasks: Sequence[Task],
    services: Mapping[str, Service],
    nodes: Mapping[str, Node],
    *,
    now: int,
    quiet: bool = False,
    full: bool = False,
) -> str:
    """As the docker CLI prints it, the newest task of a slot first and its history indented; errors are never cut."""
    named = [(task_name(task, services.get(task.service_id)), task) for task in tasks]
    named.sort(key=lambda pair: (_natural(pair[0]), -moment(pair[1].created_at)))
    if quiet:
        return "\n".join(task.id if full else short_id(task.id) for _, task in named)
    rows, before = [], ""
    for name, task in named:
        row = task_row(task, services.get(task.service_id), nodes.get(task.node_id))
        rows.append(
            (
                short_id(task.id, full),
                f" \\_ {name}" if name == before else name,
                row.image,
                row.node,
                task.desired_state.capitalize(),
                f"{task.status.state.capitalize()} {ago(row.since or row.created, now)}".rstrip(),
                f'"{row.error}"' if row.error else "",
                row.ports,
            )
        )
        before = name
    return table(HEADERS, rows)


def _natural(name: str) -> tuple[str, int, str]:
    """`web.2` before `web.10`."""
    service, _, slot = name.rpartition(".")
    return (service, int(slot), "") if slot.isdecimal() else (service, 0, slot)

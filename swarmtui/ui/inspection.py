"""Describe, raw and why: one object in words, as lines of text. Imported after the first paint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from swarmtui.docker_api.errors import ApiError, EngineError, NotFound, NotImplementedHere
from swarmtui.ui.log_feed import last_lines
from swarmtui.ui.text import age
from swarmtui.ui.views import cores, size

if TYPE_CHECKING:
    from swarmtui.model.rows import NetworkRow, NodeRow, ServiceRow, TaskRow
    from swarmtui.ui.session import ClusterSession

LOG_LINES = 20
"""Lines of a failed task that `why` shows."""


def pairs(items: Iterable[tuple[str, str]]) -> list[str]:
    """`key  value` lines, the keys as wide as the widest, what is empty left out."""
    kept = [(key, value) for key, value in items if value]
    width = max((len(key) for key, _ in kept), default=0)
    return [f"{key:<{width}}  {value}" for key, value in kept]


def section(title: str, lines: list[str]) -> list[str]:
    """Lines under a heading; nothing at all when there are none."""
    return ["", title.upper(), *(f"  {line}" for line in lines)] if lines else []


def describe_node(row: NodeRow, tasks: list[TaskRow], now: float) -> list[str]:
    """A node in words."""
    lines = pairs(
        [
            ("name", row.hostname),
            ("id", row.id),
            ("state", f"{row.state} (status {row.status}, availability {row.availability})"),
            ("message", row.message),
            ("role", "manager, the leader" if row.leader else f"{row.role} {row.reachability}".strip()),
            ("address", row.address),
            ("engine", row.engine),
            ("platform", row.platform),
            ("cpu", f"{cores(row.nano_cpus)} cores, {cores(row.reserved_nano_cpus)} reserved"),
            ("memory", f"{size(row.memory_bytes)}, {size(row.reserved_memory_bytes)} reserved"),
            ("joined", f"{age(now - row.created / 1e9)} ago" if row.created else ""),
        ]
    )
    lines += section("labels", [f"{key}={value}" for key, value in row.labels])
    return lines + section("tasks", task_lines(tasks, now))


def describe_service(row: ServiceRow, tasks: list[TaskRow], now: float) -> list[str]:
    """A service in words."""
    update = row.update
    lines = pairs(
        [
            ("name", row.name),
            ("id", row.id),
            ("state", row.state),
            ("mode", row.mode),
            ("replicas", row.replicas),
            ("image", row.image),
            ("ports", row.ports),
            ("stack", row.stack),
            ("problem", row.error),
            ("update", f"{update.state} {update.done}/{update.total} {update.message}" if update else ""),
            ("created", f"{age(now - row.created / 1e9)} ago" if row.created else ""),
            ("changed", f"{age(now - row.updated / 1e9)} ago" if row.updated else ""),
        ]
    )
    lines += section("labels", [f"{key}={value}" for key, value in row.labels])
    return lines + section("tasks", task_lines(tasks, now))


def describe_task(row: TaskRow, now: float) -> list[str]:
    """A task in words."""
    return pairs(
        [
            ("name", row.name),
            ("id", row.id),
            ("service", row.service),
            ("node", row.node or "none yet"),
            ("state", f"{row.state} for {age(now - row.since / 1e9)}" if row.since else row.state),
            ("wanted", row.desired),
            ("problem", row.error),
            ("message", row.message),
            ("exit code", "" if row.exit_code is None else str(row.exit_code)),
            ("image", row.image),
            ("ports", row.ports),
            ("container", row.container_id),
            ("created", f"{age(now - row.created / 1e9)} ago" if row.created else ""),
            ("specification", "" if row.up_to_date else "older than the service's; it will be replaced"),
        ]
    )


def describe_network(row: NetworkRow, services: list[tuple[ServiceRow, str]], now: float) -> list[str]:
    """A network in words; `services` are those on it, each with its virtual address there, or ""."""
    lines = pairs(
        [
            ("name", row.name),
            ("id", row.id),
            ("driver", row.driver),
            ("scope", row.scope),
            ("subnets", row.subnet),
            ("is", ", ".join(row.flags)),
            ("tasks", f"{row.tasks_running}/{row.tasks_wanted}" if row.services else "none"),
            ("created", f"{age(now - row.created / 1e9)} ago" if row.created else ""),
        ]
    )
    lines += section("labels", [f"{key}={value}" for key, value in row.labels])
    names = max((len(service.name) for service, _ in services), default=0)
    addresses = max((len(address) for _, address in services), default=0)
    return lines + section(
        "services",
        [
            f"{service.name:<{names}}  {address:<{addresses}}  {service.replicas:>7}  {service.state}"
            for service, address in services
        ],
    )


def network_services(session: ClusterSession, row: NetworkRow) -> list[tuple[ServiceRow, str]]:
    """The services on a network, each with its virtual address there."""
    found = []
    for key in row.services:
        if (service := session.service(key)) is None:
            continue
        endpoint = session.model.services[key].endpoint
        given = (endpoint.virtual_ips if endpoint else None) or []
        addresses = [each.addr.partition("/")[0] for each in given if each.network_id == row.id and each.addr]
        found.append((service, ", ".join(addresses)))
    return found


def task_lines(tasks: list[TaskRow], now: float) -> list[str]:
    """One line a task: what runs first, then history."""
    rows = sorted(tasks, key=lambda row: (not row.current, row.service, row.slot, -row.created))
    names, nodes = max((len(r.name) for r in rows), default=0), max((len(r.node) for r in rows), default=0)
    return [
        f"{row.name:<{names}}  {row.state:<9}  {row.node:<{nodes}}  "
        f"{age(now - row.since / 1e9) if row.since else '':>4}  {row.error}".rstrip()
        for row in rows
    ]


async def describe(session: ClusterSession, kind: str, object_id: str, now: float) -> list[str]:
    """An object in words, from the live picture."""
    model = session.model
    if kind == "node" and (node := session.node(object_id)) is not None:
        tasks = [row for task in model.tasks_of(node_id=object_id) if (row := session.task(task.id)) is not None]
        return describe_node(node, tasks, now)
    if kind == "service" and (service := session.service(object_id)) is not None:
        tasks = [row for task in model.tasks_of(service_id=object_id) if (row := session.task(task.id)) is not None]
        return describe_service(service, tasks, now)
    if kind == "task" and (task_row := session.task(object_id)) is not None:
        return describe_task(task_row, now)
    if kind == "network" and (network := session.network(object_id)) is not None:
        return describe_network(network, network_services(session, network), now)
    return [f"this {kind} is gone"]


async def raw(session: ClusterSession, kind: str, object_id: str, *, as_json: bool = False) -> list[str]:
    """The object as the API gives it, as YAML or JSON; an error's text instead when it cannot be read."""
    read: dict[str, Callable[[str], Awaitable[Any]]] = {
        "node": session.client.raw_node,
        "service": session.client.raw_service,
        "task": session.client.raw_task,
        "network": session.client.raw_network,
    }
    try:
        found = await read[kind](object_id)
    except EngineError as error:
        return [f"it cannot be read: {error}"]
    if as_json:
        return json.dumps(found, indent=2, ensure_ascii=False).splitlines()
    return (await asyncio.to_thread(as_yaml, found)).splitlines()


def as_yaml(found: Any) -> str:
    """An object as YAML, in the API's order. Takes milliseconds, so it runs in a thread."""
    import yaml

    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1_000_000)


async def why(session: ClusterSession, kind: str, object_id: str) -> list[str]:
    """Why a task waits or failed, or why a service is short, with the last lines of what failed; nothing cut off."""
    lines = known_reasons(session, kind, object_id)
    try:
        if kind == "task":
            lines += section("what the manager says", explained(await session.client.explain_task(object_id)))
        elif kind == "service":
            lines += section("what the manager says", explained(await session.client.explain_service(object_id)))
        elif kind == "network":
            lines += section("what the manager says", explained(await session.client.explain_network(object_id)))
    except (NotFound, NotImplementedHere):
        # A real Docker Swarm has no such route: what the task says of itself is all there is.
        pass
    except ApiError as error:
        lines += section("what the manager says", [error.message])
    except EngineError as error:
        lines += section("what the manager says", [str(error)])
    for task in failed_tasks(session, kind, object_id)[:1]:
        lines += section(
            f"last lines of {task.name} on {task.node or 'no node'}",
            await last_lines(session.client, task.id, LOG_LINES),
        )
    return lines or ["nothing is wrong that is known here"]


def failed_tasks(session: ClusterSession, kind: str, object_id: str) -> list[TaskRow]:
    """The tasks of the object that failed, the newest first."""
    if kind == "task":
        rows = [session.task(object_id)]
    elif kind == "service":
        rows = [session.task(task.id) for task in session.model.tasks_of(service_id=object_id)]
    elif kind == "network":
        network = session.network(object_id)
        keys = network.services if network is not None else ()
        rows = [session.task(task.id) for key in keys for task in session.model.tasks_of(service_id=key)]
    else:
        rows = [session.task(task.id) for task in session.model.tasks_of(node_id=object_id)]
    found = [row for row in rows if row is not None and (row.glyph == "failed" or row.exit_code)]
    return sorted(found, key=lambda row: -row.since)


def known_reasons(session: ClusterSession, kind: str, object_id: str) -> list[str]:
    """What the live picture itself says."""
    if kind == "task" and (task := session.task(object_id)) is not None:
        code = "" if task.exit_code is None else f"exit code {task.exit_code}"
        state = f"{task.state}, wanted: {task.desired}" + (f", on {task.node}" if task.node else ", on no node yet")
        return [f"{task.name} is {state}", *filter(None, (task.error, task.message, code))]
    if kind == "service" and (service := session.service(object_id)) is not None:
        lines = [f"{service.name} is {service.state}: {service.replicas} run", *filter(None, (service.error,))]
        if service.update is not None:
            lines.append(f"update {service.update.state}: {service.update.message}")
        problems: dict[str, int] = {}
        for task in failed_tasks(session, kind, object_id):
            text = task.error or task.message or task.state
            problems[text] = problems.get(text, 0) + 1
        return lines + section("failures of its tasks", [f"{count} × {text}" for text, count in problems.items()])
    if kind == "node" and (node := session.node(object_id)) is not None:
        return [
            f"{node.hostname} is {node.state} (status {node.status}, availability {node.availability})",
            *filter(None, (node.message,)),
        ]
    if kind == "network" and (network := session.network(object_id)) is not None:
        short = [service for service, _ in network_services(session, network) if not service.healthy]
        reasons = [f"{service.name} {service.state}: {service.error}" for service in short]
        return [
            f"{network.name}: {network.tasks_running} of {network.tasks_wanted} tasks run",
            *section("services that are not whole", reasons),
        ]
    return [f"this {kind} is gone"]


SAID = frozenset({"kind", "id", "name", "summary", "reasons", "advice", "nodes"})
"""What an explanation of our agents holds; anything else is shown as it is."""


def explained(answer: Any) -> list[str]:
    """A manager's explanation: the summary, each reason, what to do, and node by node what speaks against it."""
    if not isinstance(answer, dict):
        return plainly(answer)
    lines = [str(answer["summary"])] if answer.get("summary") else []
    lines += [f"- {reason}" for reason in answer.get("reasons") or ()]
    lines += [f"do: {advice}" for advice in answer.get("advice") or ()]
    nodes = [node for node in answer.get("nodes") or () if isinstance(node, dict)]
    lines += pairs(
        (
            str(node.get("hostname") or node.get("node_id", "")),
            "fits" if node.get("fits") else str(node.get("reason", "")),
        )
        for node in nodes
    )
    rest = {key: value for key, value in answer.items() if key not in SAID}
    return lines + plainly(rest)


def plainly(answer: Any, indent: str = "") -> list[str]:
    """Any answer as lines: texts as they are, keys before values, nothing left out but what is empty."""
    if isinstance(answer, dict):
        lines: list[str] = []
        for key, value in answer.items():
            if value in (None, "", [], {}):
                continue
            if isinstance(value, dict | list):
                lines += [f"{indent}{key}:", *plainly(value, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {value}")
        return lines
    if isinstance(answer, list):
        return [line for item in answer for line in plainly(item, indent)]
    return [f"{indent}{answer}"]

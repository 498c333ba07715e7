"""API objects to rows: pure functions, the words and counts as the docker CLI has them.

Where we say more than Docker the row's docstring says so (a task on a node that is down is `lost`, not `running`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarmtui.docker_api.times import parse_time
from swarmtui.docker_api.types import Config, Network, Node, Port, Secret, Service, Task
from swarmtui.model.managers import MemberRow
from swarmtui.model.rows import NamedRow, NetworkRow, NodeRow, ServiceRow, TaskRow, UpdateProgress
from swarmtui.model.states import RUNNING, Glyph, ended, task_glyph, task_rank

STACK_LABEL = "com.docker.stack.namespace"

_UPDATES = {"updating": "updating", "rollback_started": "rolling back"}
_STOPPED_UPDATES = {"paused": "update paused", "rollback_paused": "rollback paused"}


def moment(text: str | None) -> int:
    """A time of the API in nanoseconds since the epoch; 0 when there is none or it cannot be read."""
    try:
        return parse_time(text or "")
    except ValueError:
        return 0


def short_image(image: str) -> str:
    """Without the digest that the engine resolved: `web:1.4@sha256:...` is `web:1.4`."""
    return image.partition("@")[0]


def sorted_labels(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Labels in the order of their keys."""
    return tuple(sorted((labels or {}).items()))


def ports_text(ports: Iterable[Port] | None, mode: str = "ingress") -> str:
    """As `docker service ls` has them, a range where neighbours map to neighbours: `*:8081-8083->80-82/tcp`."""
    wanted = sorted(
        {
            (port.protocol or "tcp", port.published_port, port.target_port)
            for port in ports or ()
            if (port.publish_mode or "ingress") == mode and port.published_port
        }
    )
    ranges: list[list[tuple[str, int, int]]] = []
    for item in wanted:
        if ranges and ranges[-1][-1] == (item[0], item[1] - 1, item[2] - 1):
            ranges[-1].append(item)
        else:
            ranges.append([item])
    texts = []
    for (protocol, published, target), *rest in ranges:
        if rest:
            texts.append(f"*:{published}-{rest[-1][1]}->{target}-{rest[-1][2]}/{protocol}")
        else:
            texts.append(f"*:{published}->{target}/{protocol}")
    return ", ".join(texts)


def node_down(node: Node | None) -> bool:
    """True when nothing that the node last said can be trusted."""
    return node is not None and node.status.state in ("down", "disconnected")


def counts(task: Task) -> bool:
    """True for a task that the cluster wants: it runs, is on its way, or waits; not history and not on its way out."""
    return task_rank(task.desired_state) <= RUNNING and not ended(task.status.state)


def runs(task: Task, node: Node | None) -> bool:
    """True for a task that is wanted, runs, and whose node is heard of."""
    return task.status.state == "running" and task_rank(task.desired_state) <= RUNNING and not node_down(node)


def up_to_date(task: Task, service: Service | None) -> bool:
    """False when the task was made from an older specification (swarmkit orchestrator.IsTaskDirty).

    Our agents say which version a task was made from; a real Docker does not, so the parts that we read are compared.
    """
    if service is None:
        return True
    if task.spec_version is not None and service.spec_version is not None and task.spec_version == service.spec_version:
        return True
    ours, wanted = task.spec, service.spec.task_template
    return (
        ours.force_update == wanted.force_update
        and ours.container_spec == wanted.container_spec
        and (ours.resources or None) == (wanted.resources or None)
        and (ours.placement or None) == (wanted.placement or None)
    )


def task_name(task: Task, service: Service | None) -> str:
    """Docker's name of a task: `web.3`, and `web.NODEID` where there is no slot."""
    name = service.spec.name if service else (task.name.rpartition(".")[0] or task.service_id)
    return f"{name}.{task.slot or task.node_id or task.id}"


def task_row(task: Task, service: Service | None, node: Node | None) -> TaskRow:
    """The row of a task; `service` and `node` are None when they are gone."""
    status = task.status
    state, glyph = status.state, task_glyph(status.state)
    if node_down(node) and not ended(state) and task.node_id:
        state, glyph = "lost", Glyph.WARNING
    elif state == "running" and task_rank(task.desired_state) > RUNNING:
        state, glyph = "stopping", Glyph.SHUTDOWN
    container = status.container_status
    return TaskRow(
        id=task.id,
        name=task_name(task, service),
        service_id=task.service_id,
        service=service.spec.name if service else task.service_id,
        slot=task.slot,
        node_id=task.node_id,
        node=(node.description.hostname or node.id) if node else task.node_id,
        glyph=glyph,
        state=state,
        desired=task.desired_state,
        current=counts(task) or (task.desired_state == "complete" and state in ("complete", "running")),
        image=short_image(task.spec.image),
        ports=ports_text(status.port_status.ports, "host") if status.port_status else "",
        error=status.err,
        message=status.message,
        exit_code=container.exit_code if container and ended(status.state) else None,
        container_id=container.container_id if container else "",
        since=moment(status.timestamp),
        created=moment(task.created_at),
        up_to_date=up_to_date(task, service),
    )


def node_row(node: Node, tasks: Iterable[Task], member: MemberRow | None = None) -> NodeRow:
    """The row of a node with the tasks assigned to it; `member` says what the managers' group knows of it."""
    running = wanted = cpus = memory = 0
    for task in tasks:
        if not counts(task):
            continue
        wanted += 1
        running += runs(task, node)
        reservations = task.spec.resources.reservations if task.spec.resources else None
        if reservations is not None:
            cpus += reservations.nano_cpus
            memory += reservations.memory_bytes
    manager = node.manager_status
    # The group's own word is newer than what was written down about it.
    leader = member.role == "leader" if member is not None else bool(manager and manager.leader)
    reachability = manager.reachability if manager else ""
    if member is not None:
        reachability = "reachable" if member.reachable else "unreachable"
    state, glyph = _node_state(node, reachability)
    role_glyph = Glyph.WORKER if node.spec.role != "manager" else Glyph.MANAGER
    description = node.description
    return NodeRow(
        id=node.id,
        hostname=description.hostname or node.spec.name or node.id,
        glyph=glyph,
        state=state,
        status=node.status.state,
        availability=node.spec.availability,
        role=node.spec.role,
        role_glyph=Glyph.LEADER if leader else role_glyph,
        leader=leader,
        reachability=reachability,
        address=node.status.addr or (manager.addr.rpartition(":")[0] if manager else ""),
        engine=description.engine.engine_version,
        platform="/".join(part for part in (description.platform.os, description.platform.architecture) if part),
        nano_cpus=description.resources.nano_cpus,
        memory_bytes=description.resources.memory_bytes,
        reserved_nano_cpus=cpus,
        reserved_memory_bytes=memory,
        tasks_running=running,
        tasks_wanted=wanted,
        labels=sorted_labels(node.spec.labels),
        message=node.status.message,
        created=moment(node.created_at),
        updated=moment(node.updated_at),
        log_role=member.role if member is not None and member.role != "manager" else "",
        log_index=member.index if member is not None else -1,
        log_lag=member.lag if member is not None else -1,
    )


def _node_state(node: Node, reachability: str) -> tuple[str, Glyph]:
    state = node.status.state
    if state == "down":
        return "down", Glyph.FAILED
    if state != "ready":
        return state, Glyph.WARNING
    if reachability == "unreachable":
        return "unreachable", Glyph.WARNING
    if node.spec.availability == "drain":
        return "drained", Glyph.PENDING
    if node.spec.availability == "pause":
        return "paused", Glyph.PENDING
    return "ready", Glyph.RUNNING


def service_mode(service: Service) -> str:
    """Docker's word for the mode."""
    mode = service.spec.mode
    if mode.global_service is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated job"
    if mode.global_job is not None:
        return "global job"
    return "replicated"


def wanted_replicas(service: Service) -> int | None:
    """How many replicas the specification asks for; None where nodes decide."""
    mode = service.spec.mode
    if mode.global_service is not None or mode.global_job is not None:
        return None
    if mode.replicated_job is not None:
        job = mode.replicated_job
        return 1 if job.total_completions is None else job.total_completions
    if mode.replicated is None or mode.replicated.replicas is None:
        return 1
    return mode.replicated.replicas


def service_row(service: Service, tasks: Sequence[Task], nodes: Mapping[str, Node]) -> ServiceRow:
    """The row of a service with its tasks (history included)."""
    mode = service_mode(service)
    job = mode.endswith("job")
    if job and service.job_status is not None:
        iteration = service.job_status.job_iteration.index
        tasks = [task for task in tasks if task.job_iteration is None or task.job_iteration.index == iteration]
    running = sum(1 for task in tasks if _runs_for_count(task, nodes, job))
    completed = sum(1 for task in tasks if task.status.state == "complete") if job else 0
    completions = wanted_replicas(service) if job else 0
    if completions is None:
        completions = len({task.node_id for task in tasks if task.node_id})
    wanted = _wanted(service, tasks, mode, completed)
    failures = _open_failures(tasks, nodes)
    waiting = [task for task in tasks if counts(task) and task.status.err and task.status.state != "running"]
    update = _update_progress(service, tasks, nodes, wanted)
    state, glyph = _service_state(service, mode, running, wanted, completed, completions, bool(failures), bool(waiting))
    error = ""
    if glyph not in (Glyph.RUNNING, Glyph.SHUTDOWN, Glyph.COMPLETE) or state == "rolled back":
        error = _newest_error([*waiting, *failures])
        if service.update_status and service.update_status.state in ("paused", "rollback_paused", "rollback_completed"):
            error = "; ".join(text for text in (service.update_status.message, error) if text)
    placement = service.spec.task_template.placement
    published = service.endpoint.ports if service.endpoint and service.endpoint.ports else None
    if published is None and service.spec.endpoint_spec is not None:
        published = service.spec.endpoint_spec.ports
    return ServiceRow(
        id=service.id,
        name=service.spec.name,
        glyph=glyph,
        state=state,
        mode=mode,
        running=running,
        wanted=wanted,
        completed=completed,
        completions=completions,
        failed_recently=len(failures),
        max_per_node=placement.max_replicas if placement else 0,
        update=update,
        image=short_image(service.spec.task_template.image),
        ports=ports_text(published),
        stack=(service.spec.labels or {}).get(STACK_LABEL, ""),
        labels=sorted_labels(service.spec.labels),
        error=error,
        version=service.version.index,
        created=moment(service.created_at),
        updated=moment(service.updated_at),
    )


def _runs_for_count(task: Task, nodes: Mapping[str, Node], job: bool) -> bool:
    if job:
        return task.status.state == "running" and not node_down(nodes.get(task.node_id))
    return runs(task, nodes.get(task.node_id))


def _wanted(service: Service, tasks: Sequence[Task], mode: str, completed: int) -> int:
    replicas = wanted_replicas(service)
    if mode == "global":
        return len({task.node_id for task in tasks if counts(task) and task.node_id})
    if mode == "replicated job":
        concurrent = service.spec.mode.replicated_job.max_concurrent if service.spec.mode.replicated_job else None
        left = max(0, (replicas or 0) - completed)
        return min(left, concurrent) if concurrent else left
    if mode == "global job":
        return len({task.node_id for task in tasks if task.node_id and not ended(task.status.state)})
    return replicas or 0


def _place(task: Task) -> int | str:
    """What a task fills: its slot, or its node where there are no slots."""
    return task.slot or task.node_id


def _open_failures(tasks: Sequence[Task], nodes: Mapping[str, Node]) -> list[Task]:
    """Failed and rejected tasks whose place no task fills by running (or by having completed) since."""
    failed = [task for task in tasks if task.status.state in ("failed", "rejected")]
    if not failed:
        return failed
    whole = {_place(task) for task in tasks if runs(task, nodes.get(task.node_id)) or task.status.state == "complete"}
    return [task for task in failed if _place(task) not in whole]


def _newest_error(tasks: Sequence[Task]) -> str:
    with_text = [task for task in tasks if task.status.err]
    if not with_text:
        return ""
    return max(with_text, key=lambda task: moment(task.status.timestamp)).status.err


def _update_progress(
    service: Service, tasks: Sequence[Task], nodes: Mapping[str, Node], wanted: int
) -> UpdateProgress | None:
    status = service.update_status
    if status is None or status.state not in ("updating", "rollback_started", *_STOPPED_UPDATES, "rollback_completed"):
        return None
    done = sum(1 for task in tasks if runs(task, nodes.get(task.node_id)) and up_to_date(task, service))
    return UpdateProgress(status.state, min(done, wanted), wanted, status.message, moment(status.started_at))


def _service_state(
    service: Service,
    mode: str,
    running: int,
    wanted: int,
    completed: int,
    completions: int,
    failures: bool,
    waiting: bool,
) -> tuple[str, Glyph]:
    update = service.update_status.state if service.update_status else ""
    if update in _STOPPED_UPDATES:
        return _STOPPED_UPDATES[update], Glyph.WARNING
    if mode.endswith("job") and completions and completed >= completions:
        return "complete", Glyph.COMPLETE
    if not mode.endswith("job") and running >= wanted and update not in _UPDATES:
        if wanted == 0:
            return ("no node", Glyph.PENDING) if mode == "global" else ("scaled to 0", Glyph.SHUTDOWN)
        return ("rolled back" if update == "rollback_completed" else "running"), Glyph.RUNNING
    if waiting and not failures:
        return "pending", Glyph.WARNING if running else Glyph.PENDING
    if failures:
        return "failing", Glyph.WARNING if running else Glyph.FAILED
    if update in _UPDATES:
        return _UPDATES[update], Glyph.STARTING
    if mode.endswith("job"):
        return ("running", Glyph.RUNNING) if running else ("starting", Glyph.STARTING)
    return "starting", Glyph.STARTING


def network_row(network: Network, services: Iterable[ServiceRow] = ()) -> NetworkRow:
    """The row of a network, from either of the API's spellings, and of the services on it."""
    spec = network.spec
    ipam = network.ipam_options or network.ipam
    subnets = (ipam.config or ipam.configs or []) if ipam else []
    told = spec.driver_configuration if spec else None
    driver = network.driver_state or told
    options = {**(network.options or {}), **((told.options or {}) if told else {})}
    on_it = sorted(services, key=lambda row: row.name)
    return NetworkRow(
        id=network.id or network.other_id,
        name=spec.name if spec else network.name,
        driver=network.driver or (driver.name if driver else "") or "overlay",
        scope=network.scope or "swarm",
        subnet=", ".join(config.subnet for config in subnets if config.subnet),
        attachable=spec.attachable if spec else network.attachable,
        ingress=spec.ingress if spec else network.ingress,
        internal=spec.internal if spec else network.internal,
        # The option counts by being there; `-o encrypted` has no value.
        encrypted=options.get("encrypted", "false").lower() not in ("false", "0"),
        ipv6=spec.ipv6 if spec else network.ipv6,
        services=tuple(row.id for row in on_it),
        tasks_running=sum(row.running for row in on_it),
        tasks_wanted=sum(row.wanted for row in on_it),
        labels=sorted_labels(spec.labels if spec else network.labels),
        created=moment(network.created_at or network.created),
    )


def named_row(thing: Secret | Config) -> NamedRow:
    """The row of a secret or a config."""
    return NamedRow(
        id=thing.id,
        name=thing.spec.name,
        labels=sorted_labels(thing.spec.labels),
        created=moment(thing.created_at),
        updated=moment(thing.updated_at),
    )

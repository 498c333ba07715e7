"""`/services` (moby daemon/cluster/services.go, swarmkit manager/controlapi/service.go)."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from agent.api.attempts import changed_before, chosen_id, made_before
from agent.api.call import Call, done, reply, reply_list
from agent.api.conversion import accept_service_spec
from agent.api.filters import Filters
from agent.api.lookup import find_service, manager_store
from agent.api.network_targets import check_networks, refuse_networks_of_the_host, with_network_ids
from agent.api.ports import check_port_conflicts
from agent.api.removal import remove_object
from agent.api.views import service_view
from agent.api_types.common import Version
from agent.api_types.container import PullOptions
from agent.api_types.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unimplemented, Unknown
from agent.api_types.node import Node, NodeState
from agent.api_types.secret import Config, Secret
from agent.api_types.service import (
    JobStatus,
    Service,
    ServiceMode,
    ServiceSpec,
    ServiceStatus,
    UpdateState,
    UpdateStatus,
)
from agent.api_types.task import Task, TaskState
from agent.api_types.times import format_time
from agent.api_types.validation import validate_service_spec
from agent.manager.constraints import parse_constraints
from agent.store.tables import UNCOMMITTED
from agent.store.transactions import ReadTx, WriteTx


def mode_name(mode: ServiceMode) -> str:
    """The mode as filters and `docker service ls` name it."""
    if mode.global_service is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated-job"
    return "global-job" if mode.global_job is not None else "replicated"


async def list_services(call: Call) -> web.StreamResponse:
    """`GET /services`, in order of id; with `status=true` the counts of tasks."""
    store = manager_store(call.backend)
    filters = call.filters("name", "id", "label", "mode", "runtime")
    status = call.flag("status")
    await call.fresh(store)

    found = store.view(lambda tx: [service for service in tx.all(Service) if _matches(filters, service)])
    found.sort(key=lambda service: service.id)

    def shown(service: Service) -> Service:
        counts = store.view(lambda tx: count_tasks(tx, service)) if status else None
        return service_view(service, status=counts)

    return await reply_list(found, shown)


def _matches(filters: Filters, service: Service) -> bool:
    return (
        filters.prefix("name", service.spec.name)
        and filters.prefix("id", service.id)
        and filters.labels("label", service.spec.labels)
        and filters.exact("mode", mode_name(service.spec.mode))
        and filters.exact("runtime", "container")
    )


def count_tasks(tx: ReadTx, service: Service) -> ServiceStatus:
    """Tasks that run, that are wanted and, for a job, that are complete in this iteration.

    Docker counts a task on a node that is down as running for a day, and shows 7/6 once it is replaced; here its last
    word does not count.
    """
    mode = service.spec.mode
    iteration = None if service.job_status is None else service.job_status.job_iteration.index
    running = completed = wanted = 0
    for task in tx.find(Task, "service", service.id):
        if iteration is not None:
            if task.job_iteration is None or task.job_iteration.index != iteration:
                continue
            completed += task.status.state is TaskState.COMPLETE
        running += _runs(tx, task)
        if task.desired_state is TaskState.RUNNING or (
            task.desired_state is TaskState.COMPLETE and task.status.state is not TaskState.COMPLETE
        ):
            wanted += 1
    if mode.replicated is not None:
        wanted = mode.replicated.replicas or 0
    elif mode.replicated_job is not None:
        wanted = mode.replicated_job.max_concurrent or 0
    return ServiceStatus(running_tasks=running, desired_tasks=wanted, completed_tasks=completed)


def _runs(tx: ReadTx, task: Task) -> bool:
    if task.status.state is not TaskState.RUNNING:
        return False
    node = tx.get(Node, task.node_id)
    return node is None or node.status.state is not NodeState.DOWN


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /services/ID`."""
    store = manager_store(call.backend)
    insert_defaults = call.flag("insertDefaults")
    await call.fresh(store)
    service = store.view(lambda tx: find_service(tx, call.params["id"]))
    return reply(service_view(service, insert_defaults=insert_defaults))


async def create(call: Call) -> web.StreamResponse:
    """`POST /services/create`."""
    store = manager_store(call.backend)
    spec = _with_auth(await call.json(ServiceSpec), _auth(call))
    if not spec.name:
        spec = replace(spec, name=call.state.new_name())
    await refuse_networks_of_the_host(call, store, spec)
    created: list[Service] = []

    def change(tx: WriteTx) -> None:
        before = made_before(call.attempt, tx, Service)
        if before is not None:
            created.append(before)
            return
        accepted = _accept(tx, spec)
        check_port_conflicts(tx, accepted, service_id="")
        _check_references(tx, accepted)
        if tx.find(Service, "name", accepted.name):
            raise AlreadyExists.grpc(f"name conflicts with an existing object: service {accepted.name} already exists")
        is_job = accepted.mode.replicated_job is not None or accepted.mode.global_job is not None
        job = JobStatus(last_execution=format_time(tx.clock())) if is_job else None
        service = Service(id=chosen_id(call.attempt, tx), spec=accepted, job_status=job, spec_version=UNCOMMITTED)
        created.append(tx.create(service))

    await store.update(change)
    return reply({"ID": created[0].id}, 201, subject=f"service {created[0].spec.name} ({created[0].id})")


def _accept(tx: ReadTx, spec: ServiceSpec) -> ServiceSpec:
    """`spec` as the cluster keeps it, or the error that the client is told; networks are named by id from here on."""
    accepted = accept_service_spec(with_network_ids(tx, spec))
    validate_service_spec(accepted)
    placement = accepted.task_template.placement
    if placement is not None:
        parse_constraints(placement.constraints)
    check_networks(tx, accepted)
    return accepted


def _check_references(tx: ReadTx, spec: ServiceSpec) -> None:
    container = spec.task_template.container_spec
    if container is None:
        return
    missing = []
    for secret_reference in container.secrets:
        secret = tx.get(Secret, secret_reference.secret_id)
        if secret is None or secret.spec.name != secret_reference.secret_name:
            missing.append(secret_reference.secret_name)
    _refuse_missing("secret", missing)
    for config_reference in container.configs:
        config = tx.get(Config, config_reference.config_id)
        if config is None or config.spec.name != config_reference.config_name:
            missing.append(config_reference.config_name)
    _refuse_missing("config", missing)


def _refuse_missing(noun: str, missing: list[str]) -> None:
    if missing:
        raise InvalidArgument.grpc(f"{noun if len(missing) == 1 else noun + 's'} not found: {', '.join(missing)}")


async def update(call: Call) -> web.StreamResponse:
    """`POST /services/ID/update`: a new spec, or with `rollback=previous` the one before."""
    store = manager_store(call.backend)
    spec = await call.json(ServiceSpec)
    version = call.object_version("service")
    rollback = call.query.get("rollback", "")
    auth_from, auth = call.query.get("registryAuthFrom", ""), _auth(call)
    if not spec.name:
        spec = replace(spec, name=call.state.new_name())
    await refuse_networks_of_the_host(call, store, spec)
    changed: list[Service] = []

    def change(tx: WriteTx) -> None:
        # moby looks at the spec first, even for a rollback, which does not use it.
        accepted = accept_service_spec(with_network_ids(tx, spec))
        stored = find_service(tx, call.params["id"])
        kept = _kept_auth(stored, auth_from)
        if rollback not in ("", "none", "previous"):
            raise Unknown(f"unrecognized rollback option {rollback}")
        accepted = _accept(tx, _with_auth(spec, auth or kept))
        if changed_before(call.attempt, tx, stored, version, _is_there(stored, accepted, rollback)):
            changed.append(stored)
            return
        if accepted.endpoint_spec != stored.spec.endpoint_spec:
            check_port_conflicts(tx, accepted, service_id=stored.id)
        _check_change(stored.spec, accepted)
        _check_references(tx, accepted)
        now = format_time(tx.clock())
        updated = _rolled_back(stored, now) if rollback == "previous" else _respecified(stored, accepted)
        if stored.job_status is not None:
            iteration = Version(index=stored.job_status.job_iteration.index + 1)
            updated = replace(updated, job_status=JobStatus(job_iteration=iteration, last_execution=now))
        changed.append(tx.update(replace(updated, version=Version(index=version))))

    await store.update(change)
    return reply({"Warnings": None}, subject=f"service {changed[0].spec.name} ({changed[0].id})")


def _is_there(stored: Service, accepted: ServiceSpec, rollback: str) -> bool:
    """Whether the service shows the update that is asked for; a rollback has put the spec that came with it behind."""
    if rollback != "previous":
        return stored.spec == accepted
    rolled = stored.update_status is not None and stored.update_status.state.startswith("rollback")
    return rolled and stored.previous_spec == accepted


def _auth(call: Call) -> PullOptions | None:
    """The registry's credentials that came with the request, as they came."""
    sent = call.request.headers.get("X-Registry-Auth", "")
    return PullOptions(registry_auth=sent) if sent else None


def _with_auth(spec: ServiceSpec, auth: PullOptions | None) -> ServiceSpec:
    """Credentials come in a header alone; whatever the body says of them does not count."""
    container = spec.task_template.container_spec
    if container is None or container.pull_options == auth:
        return spec
    return replace(
        spec, task_template=replace(spec.task_template, container_spec=replace(container, pull_options=auth))
    )


def _kept_auth(stored: Service, source: str) -> PullOptions | None:
    """The credentials that an update without any goes on with."""
    if source not in ("", "spec", "previous-spec"):
        raise Unknown("unsupported registryAuthFrom value")
    spec: ServiceSpec | None = stored.previous_spec if source == "previous-spec" else stored.spec
    if spec is None:
        raise Unknown("service does not have a previous spec")
    container = spec.task_template.container_spec
    return None if container is None else container.pull_options


def _check_change(old: ServiceSpec, new: ServiceSpec) -> None:
    if old.networks != new.networks and old.task_template.networks == new.task_template.networks:
        raise Unimplemented.grpc("networks must be migrated to TaskSpec before being changed")
    if mode_name(old.mode) != mode_name(new.mode):
        raise Unimplemented.grpc("service mode change is not allowed")
    if old.name != new.name:
        raise Unimplemented.grpc("renaming services is not supported")


def _respecified(stored: Service, spec: ServiceSpec) -> Service:
    return replace(
        stored,
        spec=spec,
        spec_version=UNCOMMITTED,
        previous_spec=stored.spec,
        previous_spec_version=stored.spec_version,
        update_status=None,
    )


def _rolled_back(stored: Service, now: str) -> Service:
    if stored.previous_spec is None:
        raise FailedPrecondition.grpc(f"service {stored.id} does not have a previous spec")
    return replace(
        stored,
        spec=stored.previous_spec,
        spec_version=stored.previous_spec_version,
        previous_spec=stored.spec,
        previous_spec_version=stored.spec_version,
        update_status=UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED, started_at=now, message="manually requested rollback"
        ),
    )


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /services/ID`; its tasks are stopped by the cluster."""
    store = manager_store(call.backend)
    wanted = call.params["id"]
    removed = await remove_object(call, store, Service, lambda tx: find_service(tx, wanted), lambda tx, service: None)
    return done(subject=f"service {wanted if removed is None else f'{removed.spec.name} ({removed.id})'}")

"""`/swarm`: the cluster as a whole (moby daemon/cluster/swarm.go, swarmkit manager/controlapi/cluster.go)."""

from __future__ import annotations

from typing import ClassVar

from aiohttp import web
from msgspec.structs import replace

from agent.api.attempts import changed_before
from agent.api.backend import Backend, LocalState
from agent.api.call import Call, done, reply
from agent.api.lookup import LOCKED, manager_store, the_cluster
from agent.api.views import swarm_view
from agent.api_types.common import Version
from agent.api_types.errors import ApiError, InvalidArgument, Unauthenticated, Unavailable, Unimplemented
from agent.api_types.fields import ApiObject, omitempty
from agent.api_types.node import Node
from agent.api_types.swarm import DAY, Cluster, InitRequest, JoinRequest, SwarmSpec
from agent.api_types.times import SECOND
from agent.api_types.validation import validate_swarm_spec
from agent.manager.root_rotation import signing_ca, with_rotation
from agent.pki.tokens import make_secret
from agent.pki.unlock import InvalidUnlockKey, make_unlock_key
from agent.raft.interface import GroupStatus
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx

EXISTS = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
NOT_PART = "This node is not part of a swarm"
_LEAVING_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
_LAST_MANAGER = (
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
)
_WITHOUT_LEADER = "Doing so may lose the consensus of your cluster. "
_LOST_CONSENSUS = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)


class NotLocked(ApiError):
    """There is nothing to unlock."""

    status: ClassVar[int] = 409


class UnlockRequest(ApiObject, frozen=True):
    """Body of `POST /swarm/unlock`."""

    unlock_key: str = omitempty("UnlockKey", "")


def complete_spec(spec: SwarmSpec) -> SwarmSpec:
    """`spec` with the value that applies wherever the client left one out. The heartbeat is ours: Docker's is 5 s."""
    raft = spec.raft
    return replace(
        spec,
        name="default",
        orchestration=replace(
            spec.orchestration,
            task_history_retention_limit=_default(spec.orchestration.task_history_retention_limit, 5),
        ),
        raft=replace(
            raft,
            snapshot_interval=raft.snapshot_interval or 10_000,
            keep_old_snapshots=_default(raft.keep_old_snapshots, 0),
            log_entries_for_slow_followers=raft.log_entries_for_slow_followers or 500,
            election_tick=raft.election_tick or 10,
            heartbeat_tick=raft.heartbeat_tick or 1,
        ),
        dispatcher=replace(spec.dispatcher, heartbeat_period=spec.dispatcher.heartbeat_period or SECOND),
        ca_config=replace(spec.ca_config, node_cert_expiry=spec.ca_config.node_cert_expiry or 90 * DAY),
    )


def _default(value: int | None, default: int) -> int:
    return default if value is None else value


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /swarm`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply(swarm_view(store.view(the_cluster)))


async def init(call: Call) -> web.StreamResponse:
    """`POST /swarm/init`: the answer is the node's id."""
    request = await call.json(InitRequest)
    check_init(call.backend, request)
    spec = complete_spec(request.spec)
    locks = request.auto_lock_managers or spec.encryption_config.auto_lock_managers
    spec = replace(spec, encryption_config=replace(spec.encryption_config, auto_lock_managers=locks))
    node_id = await call.backend.init(replace(request, spec=spec, auto_lock_managers=locks))
    return reply(node_id, subject=f"swarm of node {node_id}{', forced' if request.force_new_cluster else ''}")


def check_init(backend: Backend, request: InitRequest) -> None:
    """Refuse what cannot begin a swarm. Forced, it may go on from a swarm whose other managers are lost."""
    if backend.local_state is not LocalState.INACTIVE:
        if not request.force_new_cluster:
            raise Unavailable(EXISTS)
        # The state goes on from this manager's own copy: it has to be one, and readable.
        manager_store(backend)
    if not request.listen_addr:
        raise InvalidArgument('invalid ListenAddr "": invalid empty address')
    validate_swarm_spec(request.spec)
    _check_authority(request.spec)
    if request.availability.lower() not in ("", "active", "pause", "drain"):
        raise InvalidArgument(f'invalid Availability: "{request.availability}"')


async def join(call: Call) -> web.StreamResponse:
    """`POST /swarm/join`."""
    request = await call.json(JoinRequest)
    if call.backend.local_state is not LocalState.INACTIVE:
        raise Unavailable(EXISTS)
    if not request.listen_addr:
        raise InvalidArgument('invalid ListenAddr "": invalid empty address')
    if not request.remote_addrs:
        raise InvalidArgument("at least 1 RemoteAddr is required to join")
    if not all(request.remote_addrs):
        raise InvalidArgument('invalid remoteAddr "": invalid empty address')
    if request.availability.lower() not in ("", "active", "pause", "drain"):
        raise InvalidArgument(f'invalid Availability: "{request.availability}"')
    await call.backend.join(request)
    return done(subject=f"swarm at {request.remote_addrs[0]}")


async def leave(call: Call) -> web.StreamResponse:
    """`POST /swarm/leave`."""
    force = call.flag("force", lenient=True)
    if call.backend.local_state is LocalState.INACTIVE:
        raise Unavailable(NOT_PART)
    if not force:
        _refuse_to_leave(call.backend)
    await call.backend.leave(force)
    return done(subject="swarm")


def _refuse_to_leave(backend: Backend) -> None:
    if backend.local_state is LocalState.LOCKED:
        raise Unavailable(
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
        )
    if not backend.is_manager or backend.store is None:
        return
    raise Unavailable(leave_warning(backend.group, backend.store))


def leave_warning(group: GroupStatus | None, store: Store) -> str:
    """What it costs when this manager leaves (moby daemon/cluster/swarm.go)."""
    if group is not None and not group.leader:
        return _LEAVING_MANAGER + _WITHOUT_LEADER + _LOST_CONSENSUS
    reachable, managers = store.view(_count_managers)
    if managers <= 1:
        return _LEAVING_MANAGER + _LAST_MANAGER
    text = _LEAVING_MANAGER
    if reachable - 1 < (managers // 2) + 1:
        text += (
            f"Removing this node leaves {reachable - 1} managers out of {managers}. "
            "Without a Raft quorum your swarm will be inaccessible. "
        )
    return text + _LOST_CONSENSUS


def _count_managers(tx: ReadTx) -> tuple[int, int]:
    managers = [node.manager_status for node in tx.all(Node) if node.manager_status is not None]
    return sum(status.reachability == "reachable" for status in managers), len(managers)


async def update(call: Call) -> web.StreamResponse:
    """`POST /swarm/update`: settings, join tokens, unlock key, and the root certificate that is to be."""
    store = manager_store(call.backend)
    spec = await call.json(SwarmSpec)
    version = call.object_version("swarm")
    rotate_worker = call.flag("rotateWorkerToken")
    rotate_manager = call.flag("rotateManagerToken")
    rotate_key = call.flag("rotateManagerUnlockKey")
    validate_swarm_spec(spec)

    _check_authority(spec)
    rotates = rotate_worker or rotate_manager or rotate_key

    def change(tx: WriteTx) -> None:
        cluster = the_cluster(tx)
        wanted = complete_spec(spec)
        # Of a secret nobody can say whether this request made it: a repeat that finds another version is not recognised.
        if changed_before(call.attempt, tx, cluster, version, cluster.spec == wanted and not rotates):
            return
        tx.update(
            replace(
                with_rotation(replace(cluster, spec=wanted), tx.clock),
                version=Version(index=version),
                worker_secret=make_secret() if rotate_worker else cluster.worker_secret,
                manager_secret=make_secret() if rotate_manager else cluster.manager_secret,
                unlock_key=_next_unlock_key(cluster, spec, rotate_key),
            )
        )

    await store.update(change)
    return done(subject="swarm")


def _next_unlock_key(cluster: Cluster, spec: SwarmSpec, rotate: bool) -> str:
    if not spec.encryption_config.auto_lock_managers:
        return ""
    return make_unlock_key() if rotate or not cluster.unlock_key else cluster.unlock_key


def _check_authority(spec: SwarmSpec) -> None:
    """A root may be given with its key. One that signs elsewhere cannot be used."""
    authority = spec.ca_config
    if authority.external_cas:
        raise Unimplemented(
            "certificates are signed by the swarm's own managers, which an external CA cannot do for them: "
            "give its certificate and key instead (docker swarm ca --rotate --ca-cert FILE --ca-key FILE)"
        )
    if authority.signing_ca_key and not authority.signing_ca_cert:
        raise InvalidArgument.grpc("if a signing CA key is provided, the signing CA cert must also be provided")
    if authority.signing_ca_cert:
        if not authority.signing_ca_key:
            raise InvalidArgument.grpc("a signing CA cert is of no use without its key (SigningCAKey)")
        signing_ca(authority)


async def unlock_key(call: Call) -> web.StreamResponse:
    """`GET /swarm/unlockkey`: empty while managers are not locked."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply({"UnlockKey": store.view(the_cluster).unlock_key})


async def unlock(call: Call) -> web.StreamResponse:
    """`POST /swarm/unlock`."""
    request = await call.json(UnlockRequest)
    if call.backend.local_state is not LocalState.LOCKED:
        manager_store(call.backend)
        raise NotLocked("swarm is not locked")
    if not request.unlock_key:
        raise Unavailable(LOCKED)
    try:
        await call.backend.unlock(request.unlock_key)
    except InvalidUnlockKey:
        raise Unauthenticated("swarm could not be unlocked: invalid key provided") from None
    return done(subject="manager")

"""The node behind the front door: init, join, leave, and what the API may know of this host.

Everything that changes this node's part in a swarm happens here, one change at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence

import msgspec

from agent.api.backend import Explainer, LocalState, LogReader
from agent.api_types.errors import ApiError, InvalidArgument, Unavailable, Unimplemented
from agent.api_types.identity import new_id
from agent.api_types.node import NodeDescription
from agent.api_types.swarm import InitRequest, JoinRequest
from agent.api_types.times import Clock, now_ns
from agent.node.addresses import interfaces, own_source, resolve_advertise, resolve_listen
from agent.node.founding import Founding, found
from agent.node.membership import Membership
from agent.node.record import RecordDamaged, SwarmRecord, load_record, save_record
from agent.node.settings import Settings
from agent.pki.folder import IdentityDamaged, IdentityMissing
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.sealing import Locked
from agent.pki.tokens import InvalidJoinToken
from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.single import FolderInUse
from agent.rpc.addresses import join_address, split_address
from agent.rpc.client import join
from agent.rpc.errors import RpcError, Unreachable
from agent.rpc.messages import ManagerAddress
from agent.store.entries import UnknownFormat
from agent.store.store import Store
from agent.worker.interface import Executor, RejectedByExecutor, TemporaryFailure

logger = logging.getLogger(__name__)

_START_FAILURES = (
    RecordDamaged,
    IdentityMissing,
    IdentityDamaged,
    DamagedFile,
    NewerFormat,
    UnknownFormat,
    FolderInUse,
    Locked,
    OSError,
)
"""What can keep a node from taking its part in a swarm up again; the text is shown by `docker info`."""

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds until a node that fell out of its swarm tries to take its part up again: first, and at most."""


class NodeAgent:
    """This host as a node: implements `agent.api.backend.Backend`. `start` takes up what an earlier life left."""

    def __init__(self, settings: Settings, executor: Executor, *, clock: Clock = now_ns) -> None:
        self.clock = clock
        self.executor: Executor = executor
        self.hostname = settings.hostname
        self.data_dir = str(settings.data_dir)
        self.engine_socket = settings.engine
        self.started_at = clock()
        self.error = ""
        self._settings = settings
        self._folder = settings.data_dir / "swarm"
        self._membership: Membership | None = None
        self._changing = asyncio.Lock()
        self._pending = False
        self._failed = False
        self._failures = 0
        self._guard: asyncio.Task[None] | None = None

    # -- what the API reads

    @property
    def local_state(self) -> LocalState:
        if self._failed:
            return LocalState.ERROR
        if self._pending:
            return LocalState.PENDING
        return LocalState.ACTIVE if self._membership is not None else LocalState.INACTIVE

    @property
    def node_id(self) -> str:
        return self._membership.identity.node_id if self._membership is not None else ""

    @property
    def node_address(self) -> str:
        return split_address(self._membership.record.advertise)[0] if self._membership is not None else ""

    @property
    def remote_managers(self) -> Sequence[ManagerAddress]:
        return self._membership.managers if self._membership is not None else ()

    @property
    def is_manager(self) -> bool:
        return self.store is not None

    @property
    def store(self) -> Store | None:
        return self._membership.store if self._membership is not None else None

    @property
    def logs(self) -> LogReader | None:
        manager = self._membership.manager if self._membership is not None else None
        return manager.log_broker if manager is not None else None

    @property
    def explainer(self) -> Explainer | None:
        manager = self._membership.manager if self._membership is not None else None
        return manager.explainer if manager is not None else None

    # -- life of the agent

    async def start(self) -> None:
        """Take the part in a swarm up again that is on disk. A failure is kept in `error`; the API answers all the same."""
        async with self._changing:
            await self._take_up()

    async def stop(self) -> None:
        """Stop in order: nothing moves away for a minute, containers go on."""
        async with self._changing:
            if self._membership is not None:
                await self._membership.announce_stop()
            await self._exit()

    # -- what the API changes

    async def init(self, request: InitRequest) -> str:
        async with self._changing:
            self._refuse_when_in_a_swarm()
            if request.force_new_cluster:
                raise Unimplemented("there is no other manager to be forced out: this cluster has one manager")
            addresses = self._addresses(request.listen_addr, request.advertise_addr)
            try:
                description = await self._describe()
            except (TemporaryFailure, RejectedByExecutor) as error:
                raise Unavailable(f"the node cannot be described: {error}") from None
            founding = found(request, description, addresses.advertise, self.clock, new_id)
            record = msgspec.structs.replace(addresses, cluster_id=founding.cluster.id, node_id=founding.node.id)
            await self._begin(record, founding.identity, self._make(record, founding.identity, founding))
            logger.info("cluster %s begins with this node, %s", founding.cluster.id, founding.node.id)
            return founding.node.id

    async def join(self, request: JoinRequest) -> None:
        async with self._changing:
            self._refuse_when_in_a_swarm()
            record = self._addresses(request.listen_addr, request.advertise_addr)
            self._pending = True
            try:
                await self._join(request, record)
            finally:
                self._pending = False

    async def leave(self, force: bool) -> None:
        async with self._changing:
            if self._membership is not None:
                await self._membership.clear()
            await self._exit()
            self._failed, self._failures, self.error = False, 0, ""
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            logger.info("this node left the swarm")

    async def unlock(self, key: str) -> None:
        raise InvalidArgument("this manager is not locked")

    # -- parts of these

    def _refuse_when_in_a_swarm(self) -> None:
        if self.local_state is not LocalState.INACTIVE:
            raise Unavailable(
                'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
            )

    def _addresses(self, listen: str, advertise: str) -> SwarmRecord:
        host, port = resolve_listen(listen, self._settings.listen_host, self._settings.listen_port)
        return SwarmRecord("", "", join_address(host, port), resolve_advertise(advertise, host, port, interfaces()))

    async def _join(self, request: JoinRequest, addresses: SwarmRecord) -> None:
        key = NodeKey.create()
        answer = None
        unreachable: list[str] = []
        for address in request.remote_addrs:
            try:
                answer = await join(
                    address if ":" in address else f"{address}:{self._settings.listen_port}",
                    request.join_token,
                    key,
                    listen_address=addresses.advertise,
                    hostname=self.hostname,
                    availability=request.availability.lower(),
                    source=own_source(addresses.listen),
                    clock=self.clock,
                )
                break
            except InvalidJoinToken:
                raise
            except Unreachable as error:
                unreachable.append(str(error))
            except RpcError as error:
                raise Unavailable(str(error)) from None
        if answer is None:
            raise Unavailable("; ".join(unreachable))
        identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
        record = SwarmRecord(
            answer.cluster_id,
            answer.node_id,
            addresses.listen,
            addresses.advertise,
            [manager.address for manager in answer.managers],
        )
        await self._begin(record, identity, self._make(record, identity))
        logger.info("this node is %s, a %s of cluster %s", answer.node_id, answer.role, answer.cluster_id)

    def _make(self, record: SwarmRecord, identity: NodeIdentity, founding: Founding | None = None) -> Membership:
        return Membership(self._folder, record, identity, self.executor, self._describe, self.clock, founding=founding)

    async def _begin(self, record: SwarmRecord, identity: NodeIdentity, membership: Membership) -> None:
        """Enter a swarm for the first time: nothing is left on disk when it does not come to be."""
        # Without a record there is no swarm here: what lies in the folder is of an init or a join that was killed.
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            await self._enter(membership)
            await asyncio.to_thread(identity.save, self._folder / "certificates")
            await asyncio.to_thread(save_record, self._folder, record)
        except BaseException as error:
            await self._exit()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise ApiError(
                    f"cannot begin to listen on {record.listen} or to write {self._folder}: {error}"
                ) from None
            raise

    async def _enter(self, membership: Membership) -> None:
        await membership.__aenter__()
        self._membership = membership
        self._guard = asyncio.create_task(self._watch_over(membership), name="membership")

    async def _exit(self) -> None:
        membership, self._membership = self._membership, None
        guard, self._guard = self._guard, None
        if guard is not None and guard is not asyncio.current_task():
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
        if membership is not None:
            await membership.__aexit__(None, None, None)

    async def _watch_over(self, membership: Membership) -> None:
        """When a membership ends by itself: a removed node forgets the swarm, any other failure is shown."""
        with contextlib.suppress(asyncio.CancelledError):
            reason = await asyncio.shield(membership.ended)
            async with self._changing:
                if self._membership is not membership:
                    return
                if membership.removed:
                    logger.warning("this node was removed from its swarm: %s", reason)
                    await membership.clear()
                await self._exit()
                if membership.removed:
                    await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
                else:
                    self._fail(reason)

    async def _take_up(self) -> None:
        """Enter the swarm that is on disk, if there is one; when that fails, say so and try again later."""
        try:
            record = await asyncio.to_thread(load_record, self._folder)
            if record is None:
                return
            identity = await asyncio.to_thread(NodeIdentity.load, self._folder / "certificates")
            await self._enter(self._make(record, identity))
        except _START_FAILURES as error:
            self._fail(str(error))
        else:
            self._failed, self.error = False, ""

    def _fail(self, reason: str) -> None:
        """Show why the node takes no part in its swarm, and try again after a while that grows."""
        if reason != self.error:
            logger.critical("this node takes no part in its swarm: %s", reason)
        self._failed, self.error = True, reason
        self._failures += 1
        delay = min(FIRST_RETRY * 2 ** (self._failures - 1), LAST_RETRY)
        self._guard = asyncio.create_task(self._try_again(delay), name="membership retry")

    async def _try_again(self, delay: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(delay)
            async with self._changing:
                if self._failed and self._membership is None:
                    await self._take_up()

    async def _describe(self) -> NodeDescription:
        """This host, under the name that people gave it. TemporaryFailure while its engine is away."""
        return msgspec.structs.replace(await self.executor.describe(), hostname=self.hostname)

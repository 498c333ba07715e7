"""The node behind the front door: its part in a swarm from init or join to leave.

Everything that changes this node's part in a swarm happens here, one change at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator

from msgspec.structs import replace

from agent.api.backend import LocalState
from agent.api_types.errors import ApiError, Unavailable
from agent.api_types.identity import new_id
from agent.api_types.node import NodeDescription, NodeRole
from agent.api_types.swarm import InitRequest, JoinRequest
from agent.api_types.times import Clock, now_ns
from agent.node.addresses import interfaces
from agent.node.backup import read_backup
from agent.node.founding import found, found_again
from agent.node.joining import addressed, ask_to_join, readdressed
from agent.node.keys import NodeKeys
from agent.node.manager_part import Write
from agent.node.membership import Membership
from agent.node.record import RecordDamaged, SwarmRecord, load_record, save_record
from agent.node.regrouping import only_manager
from agent.node.settings import Settings
from agent.node.view import NodeView
from agent.pki.folder import IdentityDamaged, IdentityMissing
from agent.pki.identity import NodeIdentity
from agent.pki.sealing import Locked, Sealing
from agent.pki.unlock import InvalidUnlockKey
from agent.raft.core.errors import BrokenInvariant
from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.member import FolderInUse, RaftMember
from agent.raft.seeding import begin_with
from agent.rpc.errors import ListenFailed
from agent.store.entries import UnknownFormat
from agent.worker.interface import Executor, RejectedByExecutor, TemporaryFailure

logger = logging.getLogger(__name__)

_START_FAILURES = (
    RecordDamaged,
    IdentityMissing,
    IdentityDamaged,
    DamagedFile,
    NewerFormat,
    BrokenInvariant,
    UnknownFormat,
    FolderInUse,
    ListenFailed,
    OSError,
)
"""What can keep a node from taking its part in a swarm up again; the text is shown by `docker info`."""

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds until a node that fell out of its swarm tries to take its part up again: first, and at most."""

JOIN_PATIENCE = 20.0
"""Seconds that a join waits for the node to be part of the group of managers (moby's swarmRequestTimeout)."""

DEPARTURE = 10.0
"""Seconds that leaving waits for the leader to take this manager out of the group."""

JOIN_GOES_ON = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)


class NodeAgent(NodeView):
    """This host as a node: implements `agent.api.backend.Backend`. `start` takes up what an earlier life left."""

    def __init__(self, settings: Settings, executor: Executor, *, clock: Clock = now_ns) -> None:
        super().__init__(settings, executor, clock)
        self._settings = settings
        self._folder = settings.data_dir / "swarm"
        self._changing = asyncio.Lock()
        self._unlock_key: str | None = None
        self._failures = 0
        self._guard: asyncio.Task[None] | None = None

    # -- life of the agent

    async def start(self) -> None:
        """Take the part in a swarm up again that is on disk. A failure is kept in `error`; the API answers all the same."""
        async with self._changing:
            await self._take_up()

    async def hand_over(self) -> None:
        """Before the front door closes: whoever needs a leader has another one by then."""
        if self._membership is not None:
            await self._membership.hand_over()

    async def stop(self) -> None:
        """Stop in order: nothing moves away for a minute, containers go on."""
        async with self._changing:
            if self._membership is not None:
                await self._membership.stop_in_order()
            await self._exit()

    # -- what the API changes

    async def init(self, request: InitRequest) -> str:
        async with self._changing:
            if request.force_new_cluster and self.local_state is not LocalState.INACTIVE:
                return await self._begin_alone(request)
            self._refuse_when_in_a_swarm()
            addresses = self._addresses(request.listen_addr, request.advertise_addr)
            founding = found(request, await self._describe_now(), addresses.advertise, self.clock, new_id)
            record = replace(addresses, cluster_id=founding.cluster.id, node_id=founding.node.id)
            await self._clear_folder()
            await self._begin(record, founding.identity, first=founding.write, founding=True)
            logger.info("cluster %s begins with this node, %s", founding.cluster.id, founding.node.id)
            return founding.node.id

    async def join(self, request: JoinRequest) -> None:
        async with self._changing:
            self._refuse_when_in_a_swarm()
            addresses = self._addresses(request.listen_addr, request.advertise_addr)
            self._state = LocalState.PENDING
            try:
                identity, record = await ask_to_join(request, addresses, self._settings, self.clock)
                await self._clear_folder()
                # From here on the cluster counts on this node: a crash must not make it forget who it is.
                await asyncio.to_thread(identity.save, self._folder / "certificates")
                await asyncio.to_thread(save_record, self._folder, record)
                await self._begin(record, identity)
                logger.info("this node is %s, a %s of cluster %s", record.node_id, identity.role, record.cluster_id)
            finally:
                self._state = LocalState.INACTIVE
        if identity.role is NodeRole.MANAGER:
            await self._until_part_of_group()

    async def leave(self, force: bool) -> None:
        async with self._changing:
            await self._depart()
            if self._membership is not None:
                await self._membership.clear()
            await self._exit()
            self._state, self._failures, self.error, self._unlock_key = LocalState.INACTIVE, 0, "", None
            await self._clear_folder()
            logger.info("this node left the swarm")

    async def unlock(self, key: str) -> None:
        async with self._changing:
            if self._state is not LocalState.LOCKED:
                raise Unavailable("swarm is not locked")
            await asyncio.to_thread(NodeKeys.load, self._folder / "certificates", key)
            self._unlock_key = key
            await self._take_up()

    async def restore(self, data: AsyncIterator[bytes], request: InitRequest) -> str:
        async with self._changing:
            self._refuse_when_in_a_swarm()
            addresses = self._addresses(request.listen_addr, request.advertise_addr)
            description = await self._describe_now()
            backup = await read_backup(data)
            founding = found_again(backup.cluster, description, addresses.advertise, self.clock, new_id)
            record = replace(addresses, cluster_id=founding.cluster.id, node_id=founding.node.id)
            await self._clear_folder()
            sealing = await asyncio.to_thread(Sealing.load_or_create, self._folder / "certificates")
            await asyncio.to_thread(
                begin_with,
                self._folder / "raft",
                sealing,
                record.node_id,
                record.advertise,
                backup.index,
                backup.chunks,
            )
            first = only_manager(record.node_id, record.advertise, founding.node)
            await self._begin(record, founding.identity, first=first)
            logger.info("cluster %s goes on from a backup with this node, %s", record.cluster_id, record.node_id)
            return record.node_id

    # -- parts of these

    def _refuse_when_in_a_swarm(self) -> None:
        if self.local_state is not LocalState.INACTIVE:
            raise Unavailable(
                'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
            )

    def _addresses(self, listen: str, advertise: str) -> SwarmRecord:
        return addressed(listen, advertise, self._settings, interfaces())

    async def _describe_now(self) -> NodeDescription:
        try:
            return await self._describe()
        except (TemporaryFailure, RejectedByExecutor) as error:
            raise Unavailable(f"the node cannot be described: {error}") from None

    async def _clear_folder(self) -> None:
        """Without a record there is no swarm here: what lies in the folder is of an init or a restore that was killed."""
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _begin(
        self, record: SwarmRecord, identity: NodeIdentity, *, first: Write | None = None, founding: bool = False
    ) -> None:
        """Enter a swarm for the first time: nothing is left on disk when it does not come to be."""
        try:
            keys = NodeKeys(self._folder / "certificates", identity)
            membership = self._make(record, keys, first=first, founding=founding)
            await self._enter(membership)
            if first is not None:
                await membership.until_first_written()
            await asyncio.to_thread(keys.save, identity)
            await asyncio.to_thread(save_record, self._folder, record)
        except BaseException as error:
            await self._exit()
            await self._clear_folder()
            if isinstance(error, OSError | ListenFailed):
                raise ApiError(
                    f"cannot begin to listen on {record.listen} or to write {self._folder}: {error}"
                ) from None
            raise

    async def _begin_alone(self, request: InitRequest) -> str:
        """`--force-new-cluster`: this manager's state, without the other managers."""
        record = await asyncio.to_thread(load_record, self._folder)
        membership = self._membership
        if record is None or (membership is not None and membership.part is None):
            raise Unavailable("This node is not a swarm manager: a new cluster can only begin with the state of one.")
        if self._state is LocalState.LOCKED:
            raise Unavailable(
                "Swarm is encrypted and needs to be unlocked before it can be used. "
                'Please use "docker swarm unlock" to unlock it.'
            )
        if request.advertise_addr:
            addresses = self._addresses(request.listen_addr, request.advertise_addr)
            record = replace(
                record,
                listen=addresses.listen,
                advertise=addresses.advertise,
                asked_listen=addresses.asked_listen,
                asked_advertise=addresses.asked_advertise,
            )
        await self._exit()
        # The record says what is under way: a crash in the middle of it changes nothing.
        await asyncio.to_thread(save_record, self._folder, replace(record, alone=True, managers=[]))
        await self._take_up()
        if self._membership is None:
            raise ApiError(f"this manager cannot go on alone: {self.error}")
        logger.warning("cluster %s goes on with this manager alone", record.cluster_id)
        return record.node_id

    async def _until_part_of_group(self) -> None:
        """A manager that joined is one as soon as the leader has sent it the cluster's state."""
        try:
            async with asyncio.timeout(JOIN_PATIENCE):
                seen = self.group
                while seen is None or not any(each.id == self.node_id and each.voter for each in seen.members):
                    seen = await self.group_changed(seen)
        except TimeoutError:
            raise Unavailable(JOIN_GOES_ON) from None

    async def _depart(self) -> None:
        """A manager is taken out of the group first, if the group can still decide anything."""
        membership, group = self._membership, self.group
        if membership is None or group is None or sum(member.voter for member in group.members) < 2:
            return
        try:
            async with asyncio.timeout(DEPARTURE):
                await membership.depart()
        except (ApiError, TimeoutError) as error:
            logger.warning(
                "this manager leaves although the others still count on it (%s): demote and remove it there",
                str(error) or "no answer in time",
            )

    # -- taking part

    def _make(
        self, record: SwarmRecord, keys: NodeKeys, *, first: Write | None = None, founding: bool = False
    ) -> Membership:
        return Membership(
            self._folder,
            record,
            keys,
            self.executor,
            self._describe,
            self.clock,
            own_socket=self._settings.socket,
            data_dir=self._settings.data_dir,
            on_part=self._on_part,
            founding=founding,
            first=first,
        )

    async def _enter(self, membership: Membership) -> None:
        await membership.__aenter__()
        self._membership = membership
        self._guard = asyncio.create_task(self._watch_over(membership), name="membership")
        self._on_part()

    async def _exit(self) -> None:
        membership, self._membership = self._membership, None
        guard, self._guard = self._guard, None
        if guard is not None and guard is not asyncio.current_task():
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
        if membership is not None:
            await membership.__aexit__(None, None, None)
        self._on_part()

    async def _watch_over(self, membership: Membership) -> None:
        """When a membership ends by itself: a removed node forgets the swarm, any other failure is shown."""
        with contextlib.suppress(asyncio.CancelledError):
            began = asyncio.get_running_loop().time()
            reason = await asyncio.shield(membership.ended)
            if asyncio.get_running_loop().time() - began > 2 * LAST_RETRY:
                self._failures = 0
            async with self._changing:
                if self._membership is not membership:
                    return
                if membership.removed:
                    logger.warning("this node was removed from its swarm: %s", reason)
                    await membership.clear()
                await self._exit()
                if membership.removed:
                    await self._clear_folder()
                else:
                    self._fail(reason)

    async def _take_up(self) -> None:
        """Enter the swarm that is on disk, if there is one; when that fails, say so and try again later."""
        try:
            record = await asyncio.to_thread(load_record, self._folder)
            if record is None:
                return
            keys = await asyncio.to_thread(NodeKeys.load, self._folder / "certificates", self._unlock_key)
            now = readdressed(record, self._settings, interfaces())
            if now != record:
                logger.info("this node is at %s now; it was at %s", now.advertise, record.advertise)
                await asyncio.to_thread(save_record, self._folder, now)
            first = None
            if now.alone:
                sealing = await asyncio.to_thread(keys.sealing)
                await asyncio.to_thread(
                    RaftMember.force_alone, self._folder / "raft", sealing, now.node_id, now.advertise
                )
                first = only_manager(now.node_id, now.advertise)
            membership = self._make(now, keys, first=first)
            await self._enter(membership)
            if first is not None:
                await membership.until_first_written()
                membership.record = replace(now, alone=False)
                await asyncio.to_thread(save_record, self._folder, membership.record)
        except (Locked, InvalidUnlockKey) as error:
            self._state, self.error = LocalState.LOCKED, ""
            logger.warning("this manager is locked: %s", error)
        except _START_FAILURES as error:
            await self._exit()
            self._fail(str(error))
        else:
            self._state, self.error = LocalState.INACTIVE, ""

    def _fail(self, reason: str) -> None:
        """Show why the node takes no part in its swarm, and try again after a while that grows."""
        if reason != self.error:
            logger.critical("this node takes no part in its swarm: %s", reason)
        self._state, self.error = LocalState.ERROR, reason
        self._failures += 1
        delay = min(FIRST_RETRY * 2 ** (self._failures - 1), LAST_RETRY)
        self._guard = asyncio.create_task(self._try_again(delay), name="membership retry")

    async def _try_again(self, delay: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(delay)
            async with self._changing:
                if self._state is LocalState.ERROR and self._membership is None:
                    await self._take_up()

    async def _describe(self) -> NodeDescription:
        """This host, under the name that people gave it. TemporaryFailure while its engine is away."""
        return replace(await self.executor.describe(), hostname=self.hostname)

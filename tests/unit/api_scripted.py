"""A node for the tests of the front door: a real store in memory, and the rest of the agent played by hand."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import replace

from agent.api.backend import Backend, Explainer, LocalState, LogOptions, LogReader, LogsMissing
from agent.api.server import ApiServer
from agent.api_types.errors import Unavailable
from agent.api_types.identity import IdSource, new_id
from agent.api_types.node import (
    EngineDescription,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from agent.api_types.swarm import Cluster, InitRequest, JoinRequest
from agent.api_types.times import SECOND, now_ns
from agent.pki.root import RootCA
from agent.pki.tokens import make_secret, parse_token
from agent.pki.unlock import InvalidUnlockKey, make_unlock_key
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus
from agent.rpc.messages import LogRecord, ManagerAddress
from agent.store.store import Store
from agent.store.tables import StoreObject
from agent.store.transactions import WriteTx
from agent.worker.interface import Executor, NetworkAttacher


def alone(member_id: str, address: str) -> GroupStatus:
    """The group of a single manager."""
    return GroupStatus(
        member_id=member_id,
        role=MemberRole.LEADER,
        term=1,
        leader=member_id,
        leading=True,
        committed=0,
        applied=0,
        last_index=0,
        members=(MemberStatus(member_id, address, True, 0, True),),
    )


class ScriptedLogs:
    """Log lines that a test wrote down; with `follow` it goes on until it is closed."""

    def __init__(self, records: Iterable[LogRecord | LogsMissing] = ()) -> None:
        self.records = list(records)
        self.asked: list[tuple[str, tuple[str, ...], LogOptions]] = []
        self.closed = 0

    async def read(
        self, *, service_id: str = "", task_ids: Sequence[str] = (), options: LogOptions
    ) -> AsyncGenerator[LogRecord | LogsMissing, None]:
        self.asked.append((service_id, tuple(task_ids), options))
        try:
            for record in self.records:
                yield record
            if options.follow:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


class ScriptedExplainer:
    """Answers that can be told apart."""

    def explain_task(self, task_id: str) -> object:
        return {"task": task_id}

    def explain_service(self, service_id: str) -> object:
        return {"service": service_id}

    def explain_network(self, network_id: str) -> object:
        return {"network": network_id}


class ScriptedBackend:
    """A node that is in no swarm until `init` or `join`."""

    def __init__(self, *, engine_socket: str | None = None, executor: Executor | None = None) -> None:
        self.now = 1_795_253_000 * SECOND
        self.next_ids: list[str] = []
        self.hostname = "h1"
        self.data_dir = "/nowhere"
        self.started_at = self.now
        self.local_state = LocalState.INACTIVE
        self.node_id = ""
        self.node_address = ""
        self.error = ""
        self.remote_managers: Sequence[ManagerAddress] = ()
        self.is_manager = False
        self.store: Store | None = None
        self.logs: LogReader | None = None
        self.explainer: Explainer | None = None
        self.executor = executor
        self.networks: NetworkAttacher | None = None
        self.engine_socket = engine_socket
        self.inits: list[InitRequest] = []
        self.joins: list[JoinRequest] = []
        self.unlocked_with = ""
        self.right_key = ""
        """The only key that unlocks; empty: any does."""
        self.restored: tuple[bytes, InitRequest] | None = None
        self.backup_chunks: list[bytes] = []
        self._group: GroupStatus | None = None
        self._group_news = asyncio.Event()

    @property
    def group(self) -> GroupStatus | None:
        return self._group

    def show_group(self, group: GroupStatus | None) -> None:
        """The group is another one from now on."""
        self._group = group
        self._group_news.set()
        self._group_news = asyncio.Event()

    async def group_changed(self, seen: GroupStatus | None) -> GroupStatus | None:
        while self._group == seen:
            await self._group_news.wait()
        return self._group

    @asynccontextmanager
    async def leader_link(self, caller: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        raise Unavailable("no other manager is played here")
        yield

    async def backup(self) -> AsyncIterator[bytes]:
        for chunk in self.backup_chunks:
            yield chunk

    async def restore(self, data: AsyncIterator[bytes], request: InitRequest) -> str:
        self.restored = b"".join([chunk async for chunk in data]), request
        return await self.init(request)

    def clock(self) -> int:
        self.now += 1000
        return self.now

    def ids(self) -> str:
        return self.next_ids.pop(0) if self.next_ids else new_id()

    async def init(self, request: InitRequest) -> str:
        self.inits.append(request)
        self.store = Store.in_memory(clock=self.clock, ids=self.ids)
        root = RootCA.create(now_ns)
        self.node_id, self.node_address = self.ids(), request.advertise_addr or "127.0.0.1"
        node = Node(
            id=self.node_id,
            spec=NodeSpec(role=NodeRole.MANAGER),
            description=NodeDescription(
                hostname=self.hostname, engine=EngineDescription(labels={"disk": "ssd"}), tls_info=root.tls_info()
            ),
            status=NodeStatus(state=NodeState.READY, addr=self.node_address),
            manager_status=ManagerStatus(leader=True, reachability="reachable", addr=f"{self.node_address}:2377"),
        )
        cluster = Cluster(
            spec=request.spec,
            ca_cert=root.cert_pem.decode(),
            ca_key=(root.key_pem or b"").decode(),
            worker_secret=make_secret(),
            manager_secret=make_secret(),
            unlock_key=make_unlock_key() if request.auto_lock_managers else "",
        )
        await self.put(node, cluster)
        self.show_group(alone(self.node_id, f"{self.node_address}:2377"))
        self.local_state, self.is_manager = LocalState.ACTIVE, True
        self.remote_managers = [ManagerAddress(self.node_id, f"{self.node_address}:2377")]
        self.logs, self.explainer = ScriptedLogs(), ScriptedExplainer()
        return self.node_id

    async def join(self, request: JoinRequest) -> None:
        self.joins.append(request)
        parse_token(request.join_token)
        self.node_id, self.node_address = self.ids(), "127.0.0.2"
        self.local_state = LocalState.ACTIVE

    async def leave(self, force: bool) -> None:
        self.store, self.is_manager, self.local_state = None, False, LocalState.INACTIVE
        self.node_id = self.node_address = ""
        self.remote_managers = ()
        self.show_group(None)

    async def unlock(self, key: str) -> None:
        if self.right_key not in ("", key):
            raise InvalidUnlockKey("invalid key")
        self.unlocked_with = key
        self.local_state = LocalState.ACTIVE

    async def put(self, *objects: StoreObject) -> None:
        """Create or replace objects as another part of the agent would."""
        assert self.store is not None

        def change(tx: WriteTx) -> None:
            for obj in objects:
                stored = tx.get(type(obj), obj.id)
                if stored is None:
                    tx.create(obj)
                else:
                    tx.update(replace(obj, version=stored.version))

        await self.store.update(change)


class Client:
    """An HTTP client on a unix socket."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(
        self, method: str, target: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON (None for no body, bytes for another content type)."""
        kwargs: dict[str, Any] = {"headers": headers or {}}
        if isinstance(body, bytes | io.BytesIO):
            kwargs["data"] = body
        elif body is not None:
            kwargs["json"] = body
        async with self.session.request(method, f"http://docker{target}", **kwargs) as answer:
            raw = await answer.read()
            if not raw:
                return answer.status, None
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, raw


@asynccontextmanager
async def served(
    backend: Backend, folder: Path, name: str = "api.sock", ids: IdSource = new_id
) -> AsyncIterator[Client]:
    """A client of the real server in front of `backend`."""
    path = folder / name
    async with (
        ApiServer(backend, str(path), group=None, ids=ids),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=0)) as session,
    ):
        yield Client(session)


def init_body(**changes: Any) -> dict[str, Any]:
    """What the docker CLI sends for `docker swarm init`."""
    return {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.99.0.1", "Spec": {"Labels": None}} | changes


def service_body(name: str = "web", **changes: Any) -> dict[str, Any]:
    """What the docker CLI sends for `docker service create --name NAME busybox`."""
    return {
        "Name": name,
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}, "ForceUpdate": 0},
        "Mode": {"Replicated": {}},
        "EndpointSpec": {"Mode": "vip"},
    } | changes

"""What nodes say to each other: the messages of each method, as msgpack of tagged structs.

Three methods carry everything beside `join` and `ca`:

- `session` (worker to manager, on the control connection): one stream for the life of a connection. The node opens it
  with `SessionOpen`, then sends `Heartbeat`, `StatusReport`, `Described` and `Leaving`; the manager answers `SessionReady`,
  then `Assignments`, `IngressTable` and `SessionEnd`.
- `logs` (manager to worker, on the bulk connection that the worker dialled): opened with `LogsOpen`, answered by
  `LogRecord` and `LogWatermark`, ended by the worker when it does not follow.
- `relay` (node to node, on a bulk connection): opened with `RelayOpen`, answered by `RelayReady`, then raw bytes both ways.
"""

from __future__ import annotations

import msgspec

from agent.api_types.node import Node, NodeDescription, NodeRole
from agent.api_types.secret import Config, Secret
from agent.api_types.task import Task, TaskStatus


class Message(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """Base of every message; the class name is its tag."""


class ManagerAddress(msgspec.Struct, frozen=True, gc=False):
    """A manager: node id and `address:port` of its listener."""

    node_id: str
    address: str


# -- session: node to manager


class SessionOpen(Message, frozen=True):
    """First message of a session. `address` is where the node's own listener can be reached (`address:port`).

    `lost` is the manager that led as far as the node knows, and that it has lost: who believes in it still need not say so.
    """

    description: NodeDescription
    address: str
    lost: str = ""


class Heartbeat(Message, frozen=True):
    """The node lives."""


class TaskReport(msgspec.Struct, frozen=True, gc=False):
    """What became of a task."""

    task_id: str
    status: TaskStatus


class StatusReport(Message, frozen=True):
    """The newest status of some tasks."""

    reports: list[TaskReport]


class Described(Message, frozen=True):
    """The node changed: engine restarted, resources or labels other than before."""

    description: NodeDescription


class Leaving(Message, frozen=True):
    """The agent stops in order and will be back: nothing moves for `lease` nanoseconds."""

    lease: int


# -- session: manager to node


class SessionReady(Message, frozen=True):
    """The session is open. `heartbeat_period` in nanoseconds; `node` is the manager's record of the peer.

    `settling`: nanoseconds over which the nodes of this cluster spread what can wait when all of them come at once.
    """

    session_id: str
    heartbeat_period: int
    managers: list[ManagerAddress]
    node: Node
    cluster_id: str
    settling: int = 0


class Assignments(Message, frozen=True):
    """What the node is to run. A `complete` one replaces all that came before, else it is a difference.

    `tasks` carry their desired state; a task whose desired state is REMOVE or that is named in `removed_tasks` is to be
    stopped and forgotten. `index` is the store's index that the message shows.
    """

    index: int
    complete: bool
    tasks: list[Task] = []
    removed_tasks: list[str] = []
    secrets: list[Secret] = []
    removed_secrets: list[str] = []
    configs: list[Config] = []
    removed_configs: list[str] = []

    def __repr__(self) -> str:
        """Without the secrets' and configs' data."""
        return (
            f"Assignments(index={self.index}, complete={self.complete}, tasks={[task.id for task in self.tasks]}, "
            f"removed_tasks={self.removed_tasks}, secrets={[secret.id for secret in self.secrets]}, "
            f"configs={[config.id for config in self.configs]})"
        )


class IngressBackend(msgspec.Struct, frozen=True, gc=False):
    """A running task that answers on a published port. `node_address` is its node's listener (`address:port`)."""

    task_id: str
    node_id: str
    node_address: str


class IngressService(msgspec.Struct, frozen=True, gc=False):
    """A port that every node publishes, and who answers there. `protocol` is tcp, udp or sctp."""

    service_id: str
    protocol: str
    published_port: int
    target_port: int
    backends: list[IngressBackend]


class IngressTable(Message, frozen=True):
    """Every published port of the cluster; always complete."""

    services: list[IngressService]


class NodeUpdate(Message, frozen=True):
    """What the node is to know of itself and of its cluster: follows `SessionReady`, and comes again when it changes.

    `role` is what the node is to be: with another one in its certificate it renews that (`renew`) and changes its part.
    `roots` are the root certificates to trust (PEM, one or, during a rotation, several). `issuer` is the digest (sha256,
    hex) of the root that new certificates are signed by: a node whose own is of another one renews it.
    """

    role: NodeRole
    managers: list[ManagerAddress]
    roots: bytes
    issuer: str


# -- networks: part of the session, manager to node


class OverlaySubnet(msgspec.Struct, frozen=True, gc=False):
    """A subnet of a network (CIDR) and its gateway (an address without a length), which is the bridge's on every host."""

    subnet: str
    gateway: str


class OverlayDescription(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A network as its nodes need it. `balancer` is the address (without a length) of this very node's balancer."""

    name: str
    vni: int
    subnets: list[OverlaySubnet]
    balancer: str = ""
    internal: bool = False
    encrypted: bool = False
    ingress: bool = False
    attachable: bool = False
    mtu: int = 1450
    options: dict[str, str] = {}


class OverlayEndpoint(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An address on a network: of a task, of a container that a person runs, or of a node's balancer (no name).

    `id` is the task's or the attachment's, `host` the address that VXLAN reaches its node at. `ready` ones are known to
    names and balancers: they run, are wanted, and their node is not suspected.
    """

    id: str
    address: str
    node_id: str
    host: str
    service_id: str = ""
    name: str = ""
    aliases: list[str] = []
    ready: bool = False


class OverlayService(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A service on a network. Without a virtual address (`vip` is empty) its name stands for its tasks' addresses."""

    id: str
    name: str
    vip: str = ""
    aliases: list[str] = []


class NetworkUpdate(Message, frozen=True):
    """What changed on one network. A `complete` one replaces all that the node knew of it; with `gone` it forgets it.

    `description` is None where it is as before. Services and endpoints that are named replace those of the same id.
    """

    network_id: str
    complete: bool = False
    gone: bool = False
    description: OverlayDescription | None = None
    services: list[OverlayService] = []
    removed_services: list[str] = []
    endpoints: list[OverlayEndpoint] = []
    removed_endpoints: list[str] = []


class NetworkKey(msgspec.Struct, frozen=True, gc=False):
    """A key of the encrypted networks; `generation` counts up. The repr shows nothing of it."""

    generation: int
    key: bytes

    def __repr__(self) -> str:
        return f"NetworkKey(generation={self.generation})"


class NetworkKeys(Message, frozen=True):
    """Keys for traffic between hosts on encrypted networks, oldest first; `sending` is the generation to send with."""

    keys: list[NetworkKey]
    sending: int


class SessionEnd(Message, frozen=True):
    """The manager ends the session; `reason` is for people. With `removed` the node is no longer part of the cluster.

    `leader` is where to go instead, as far as this manager knows. With `leaderless` the managers have no leader and
    cannot have one before others come back: the node keeps its tasks alive by itself (restart policies are its own job).
    """

    reason: str
    removed: bool = False
    leader: ManagerAddress | None = None
    leaderless: bool = False


SessionFromNode = SessionOpen | Heartbeat | StatusReport | Described | Leaving
SessionFromManager = (
    SessionReady | NodeUpdate | Assignments | IngressTable | NetworkUpdate | NetworkKeys | Heartbeat | SessionEnd
)
"""A manager's `Heartbeat` answers the node's: a manager that is silent for three periods is given up."""


# -- renew, depart: node to the leader, on a control connection


class RenewOpen(Message, frozen=True):
    """`renew`: ask for a certificate for `request` (a certificate request, PEM); answered by `RenewAnswer`.

    The node is the one in the certificate of the connection; the role is what the cluster wants it to be.
    """

    request: bytes


class RenewAnswer(Message, frozen=True):
    """A new certificate and the roots to trust (PEM)."""

    certificate: bytes
    roots: bytes


class DepartOpen(Message, frozen=True):
    """`depart`: a manager that leaves for good asks the leader to take it out of the group of managers first."""


class DepartAnswer(Message, frozen=True):
    """Taken out (`error` is empty), or why not."""

    error: str = ""


# -- api: manager to the leader, on connections of their own purpose


class ApiOpen(Message, frozen=True):
    """`api`: one HTTP exchange with the API of the leader of `term`, as raw bytes both ways after `ApiReady`.

    `caller` is for the audit line: who asked, at which node.
    """

    term: int
    caller: str


class ApiReady(Message, frozen=True):
    """The bytes may come. With `error` they may not: nothing was done, and another attempt is safe."""

    error: str = ""


# -- raft: manager to manager


class RaftOpen(Message, frozen=True):
    """`raft`: messages of the group, in batches (`RaftBatch`), from the one that dialled."""


class RaftBatch(Message, frozen=True):
    """Some messages, in order; opaque here. With `ask` the receiver answers `RaftTaken` once it has taken them: a frozen
    process is told by the answer that does not come.
    """

    messages: list[bytes]
    ask: bool = False


class RaftSnapshotOpen(Message, frozen=True):
    """`raft-snapshot`: a snapshot in chunks (`RaftChunk`), each answered by `RaftTaken`."""


class RaftChunk(Message, frozen=True):
    """A chunk; opaque here."""

    data: bytes


class RaftTaken(Message, frozen=True):
    """The batch that asked was taken, or the chunk: then the next may come."""


# -- logs


class LogsOpen(Message, frozen=True):
    """Read the logs of tasks. `since` in nanoseconds since the epoch (0: from the start), `tail` lines a task (-1: all)."""

    task_ids: list[str]
    since: int = 0
    tail: int = -1
    follow: bool = False
    stdout: bool = True
    stderr: bool = True


class LogRecord(Message, frozen=True):
    """One line. `timestamp` in nanoseconds since the epoch by the node's clock; `stream` is stdout or stderr."""

    task_id: str
    timestamp: int
    stream: str
    data: bytes


class LogWatermark(Message, frozen=True):
    """Nothing older than `timestamp` will follow from this node."""

    timestamp: int


LogsFromNode = LogRecord | LogWatermark


# -- relay


class RelayOpen(Message, frozen=True):
    """Connect to `port` of a task that runs on the node that is asked. `protocol` is tcp or udp."""

    task_id: str
    port: int
    protocol: str = "tcp"


class RelayReady(Message, frozen=True):
    """The connection to the task stands (`error` is empty) or could not be made."""

    error: str = ""


# -- join and ca: the only methods for a client without a certificate


class RootOpen(Message, frozen=True):
    """`ca`: ask for the root certificate; answered by `RootAnswer`."""


class RootAnswer(Message, frozen=True):
    """The cluster's root certificate, PEM. The client compares it with the token's digest."""

    root: bytes


class JoinOpen(Message, frozen=True):
    """`join`: ask to become a node; answered by `JoinAnswer`.

    `secret` is the last part of the token, `request` a certificate request (PEM; only its public key counts),
    `address` the node's own listener (`address:port`, may be empty), `availability` empty or as in the API. `node_id` is
    chosen by the manager that hands the question on, and counts from managers alone: it makes a repeat recognisable.
    """

    secret: str
    request: bytes
    hostname: str = ""
    address: str = ""
    availability: str = ""
    node_id: str = ""

    def __repr__(self) -> str:
        return f"JoinOpen(hostname={self.hostname!r}, address={self.address!r}, availability={self.availability!r})"


class JoinAnswer(Message, frozen=True):
    """The node is part of the cluster: its certificate and the root's (PEM), and where the managers are."""

    node_id: str
    role: NodeRole
    cluster_id: str
    certificate: bytes
    root: bytes
    managers: list[ManagerAddress]


class JoinRefused(Message, frozen=True):
    """The node does not become part of the cluster. `wrong_token` when the token is to blame."""

    text: str
    wrong_token: bool = False


AnyMessage = (
    SessionOpen
    | Heartbeat
    | StatusReport
    | Described
    | Leaving
    | SessionReady
    | NodeUpdate
    | Assignments
    | IngressTable
    | NetworkUpdate
    | NetworkKeys
    | SessionEnd
    | RenewOpen
    | RenewAnswer
    | DepartOpen
    | DepartAnswer
    | ApiOpen
    | ApiReady
    | RaftOpen
    | RaftBatch
    | RaftSnapshotOpen
    | RaftChunk
    | RaftTaken
    | LogsOpen
    | LogRecord
    | LogWatermark
    | RelayOpen
    | RelayReady
    | RootOpen
    | RootAnswer
    | JoinOpen
    | JoinAnswer
    | JoinRefused
)
"""Every message: what may stand in a MESSAGE frame."""

"""The swarm as a whole: its settings, its certificate authority, its join tokens (moby api/types/swarm/swarm.go)."""

from __future__ import annotations

from agent.api_types.common import Driver, TLSInfo, Version
from agent.api_types.fields import ApiObject, nested, omitempty, present
from agent.api_types.times import SECOND

DAY = 24 * 3600 * SECOND


class OrchestrationConfig(ApiObject, frozen=True):
    """How many ended tasks a slot keeps; None means the default of 5."""

    task_history_retention_limit: int | None = omitempty("TaskHistoryRetentionLimit", None)


class RaftConfig(ApiObject, frozen=True):
    """Snapshots in log entries; ticks as Docker counts them."""

    snapshot_interval: int = omitempty("SnapshotInterval", 0)
    keep_old_snapshots: int | None = omitempty("KeepOldSnapshots", None)
    log_entries_for_slow_followers: int = omitempty("LogEntriesForSlowFollowers", 0)
    election_tick: int = present("ElectionTick", 0)
    heartbeat_tick: int = present("HeartbeatTick", 0)


class DispatcherConfig(ApiObject, frozen=True):
    """Nanoseconds between two heartbeats of a node; 0 means the default (one second)."""

    heartbeat_period: int = omitempty("HeartbeatPeriod", 0)


class ExternalCA(ApiObject, frozen=True):
    """A certificate authority outside the cluster."""

    protocol: str = present("Protocol", "")
    url: str = present("URL", "")
    options: dict[str, str] = omitempty("Options", {})
    ca_cert: str = present("CACert", "")


class CAConfig(ApiObject, frozen=True):
    """Life of node certificates in nanoseconds, and the root's rotation counter."""

    node_cert_expiry: int = omitempty("NodeCertExpiry", 0)
    external_cas: list[ExternalCA] = omitempty("ExternalCAs", [])
    signing_ca_cert: str = omitempty("SigningCACert", "")
    signing_ca_key: str = omitempty("SigningCAKey", "")
    force_rotate: int = omitempty("ForceRotate", 0)


class TaskDefaults(ApiObject, frozen=True):
    """Defaults for tasks that do not say."""

    log_driver: Driver | None = omitempty("LogDriver", None)


class EncryptionConfig(ApiObject, frozen=True):
    """Whether managers ask for the unlock key at start."""

    auto_lock_managers: bool = present("AutoLockManagers", False)


class SwarmSpec(ApiObject, frozen=True):
    """What a swarm is to be."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    orchestration: OrchestrationConfig = nested("Orchestration", OrchestrationConfig)
    raft: RaftConfig = nested("Raft", RaftConfig)
    dispatcher: DispatcherConfig = nested("Dispatcher", DispatcherConfig)
    ca_config: CAConfig = nested("CAConfig", CAConfig)
    task_defaults: TaskDefaults = nested("TaskDefaults", TaskDefaults)
    encryption_config: EncryptionConfig = nested("EncryptionConfig", EncryptionConfig)


class JoinTokens(ApiObject, frozen=True):
    """The two tokens, in full: a secret that only `GET /swarm` shows."""

    worker: str = present("Worker", "")
    manager: str = present("Manager", "")


class ClusterInfo(ApiObject, frozen=True):
    """The swarm as `/info` shows it."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: SwarmSpec = nested("Spec", SwarmSpec)
    tls_info: TLSInfo = nested("TLSInfo", TLSInfo)
    root_rotation_in_progress: bool = present("RootRotationInProgress", False)
    default_addr_pool: list[str] | None = present("DefaultAddrPool", None)
    subnet_size: int = present("SubnetSize", 0)
    data_path_port: int = present("DataPathPort", 0)


class Swarm(ClusterInfo, frozen=True):
    """The swarm as `GET /swarm` shows it."""

    join_tokens: JoinTokens = nested("JoinTokens", JoinTokens)


class RootRotation(ApiObject, frozen=True):
    """A root certificate on its way out (PEM all three): nodes trust both, new certificates are signed by the new one.

    `cross_signed` is the new root's key signed by the old root: with it, nodes that know only the old one trust new
    certificates too.
    """

    ca_cert: str = omitempty("CACert", "")
    ca_key: str = omitempty("CAKey", "")
    cross_signed: str = omitempty("CrossSigned", "")


class NetworkSecret(ApiObject, frozen=True):
    """A key of the encrypted networks; `generation` counts up. The repr shows nothing of it."""

    generation: int = omitempty("Generation", 0)
    key: bytes = omitempty("Key", b"")
    created_at: str = omitempty("CreatedAt", "")

    def __repr__(self) -> str:
        return f"NetworkSecret(generation={self.generation})"


class Cluster(ApiObject, frozen=True):
    """The swarm as the store keeps it. Never sent to a client as it is: it holds the CA's key and the join secrets.

    `ca_key` is PEM; `worker_secret` and `manager_secret` are the last part of the join tokens (25 characters base 36);
    `unlock_key` is empty while auto-lock is off. `feature_level` is the newest format of entries that every manager
    reads. `last_forced_rotation` is the `force_rotate` of the spec that the root (or its rotation) follows.
    """

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: SwarmSpec = nested("Spec", SwarmSpec)
    ca_cert: str = omitempty("CACert", "")
    ca_key: str = omitempty("CAKey", "")
    worker_secret: str = omitempty("WorkerSecret", "")
    manager_secret: str = omitempty("ManagerSecret", "")
    unlock_key: str = omitempty("UnlockKey", "")
    root_rotation: RootRotation | None = omitempty("RootRotation", None)
    last_forced_rotation: int = omitempty("LastForcedRotation", 0)
    feature_level: int = omitempty("FeatureLevel", 1)
    default_addr_pool: list[str] = omitempty("DefaultAddrPool", [])
    subnet_size: int = omitempty("SubnetSize", 24)
    data_path_port: int = omitempty("DataPathPort", 4789)
    network_keys: list[NetworkSecret] = omitempty("NetworkKeys", [])


class InitRequest(ApiObject, frozen=True):
    """Body of `POST /swarm/init`."""

    listen_addr: str = omitempty("ListenAddr", "")
    advertise_addr: str = omitempty("AdvertiseAddr", "")
    data_path_addr: str = omitempty("DataPathAddr", "")
    data_path_port: int = omitempty("DataPathPort", 0)
    force_new_cluster: bool = omitempty("ForceNewCluster", False)
    spec: SwarmSpec = nested("Spec", SwarmSpec)
    auto_lock_managers: bool = omitempty("AutoLockManagers", False)
    availability: str = omitempty("Availability", "")
    default_addr_pool: list[str] = omitempty("DefaultAddrPool", [])
    subnet_size: int = omitempty("SubnetSize", 0)


class JoinRequest(ApiObject, frozen=True):
    """Body of `POST /swarm/join`."""

    listen_addr: str = omitempty("ListenAddr", "")
    advertise_addr: str = omitempty("AdvertiseAddr", "")
    data_path_addr: str = omitempty("DataPathAddr", "")
    remote_addrs: list[str] = omitempty("RemoteAddrs", [])
    join_token: str = omitempty("JoinToken", "")
    availability: str = omitempty("Availability", "")

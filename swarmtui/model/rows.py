"""Rows for the views: frozen, display-ready, made by pure functions from API objects (`row_making`).

Rows hold times (nanoseconds since the epoch, 0 = unknown), not ages: an age changes every second, a row only when its
object does. Texts of errors are in full; cutting is the widget's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmtui.model.states import Glyph


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node."""

    id: str
    hostname: str
    glyph: Glyph
    """RUNNING, PENDING (drained or paused: see `state`), WARNING (unknown, disconnected), FAILED (down)."""
    state: str
    """ready, drained, paused, down, unknown or disconnected: the one word for the state column."""
    status: str
    """What is known of its life: ready, down, unknown, disconnected."""
    availability: str
    """What a person allows: active, pause, drain."""
    role: str
    """manager or worker."""
    role_glyph: Glyph
    """LEADER, MANAGER or WORKER."""
    leader: bool
    reachability: str
    """Of a manager: reachable, unreachable, unknown; "" for a worker."""
    address: str
    engine: str
    """Version of its engine."""
    platform: str
    """For example linux/x86_64."""
    nano_cpus: int
    memory_bytes: int
    reserved_nano_cpus: int
    """Sum of the reservations of the tasks that are to run on it."""
    reserved_memory_bytes: int
    tasks_running: int
    tasks_wanted: int
    """Tasks on it whose desired state is running."""
    labels: tuple[tuple[str, str], ...]
    message: str
    """The engine's or the cluster's word on a state that is not ready."""
    created: int
    updated: int
    log_role: str = ""
    """Of a manager: leader, follower, candidate or learner; "" where nobody says."""
    log_index: int = -1
    """Of a manager: the last entry of the log that is known to be there; -1: not known."""
    log_lag: int = -1
    """Of a manager: entries that it lacks; -1: not known."""


@dataclass(frozen=True, slots=True)
class UpdateProgress:
    """The last update of a service, while it runs or when it did not end well."""

    state: str
    """updating, paused, rollback_started, rollback_paused or rollback_completed."""
    done: int
    """Tasks of the new version that run."""
    total: int
    message: str
    started: int

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service."""

    id: str
    name: str
    glyph: Glyph
    state: str
    """running, starting, updating, pending, failing, paused, rolling back, rolled back, scaled to 0, complete."""
    mode: str
    """replicated, global, replicated job or global job: Docker's words."""
    running: int
    wanted: int
    completed: int
    """Of a job: tasks that ended well."""
    failed_recently: int
    """Tasks of it that are kept and ended in failed or rejected while their slot is not running again."""
    max_per_node: int
    """0 without bound."""
    update: UpdateProgress | None
    image: str
    """Without the digest."""
    ports: str
    """As `docker service ls` writes them: `*:8081->8000/tcp`."""
    stack: str
    """Name of its stack, or ""."""
    labels: tuple[tuple[str, str], ...]
    error: str
    """Why it is not whole: the newest error text of its tasks, or the update's message; "" while it is whole."""
    version: int
    created: int
    updated: int

    @property
    def replicas(self) -> str:
        """As `docker service ls` writes it: `2/3`, `0/2 (4/4 completed)`, `1/2 (max 5 per node)`."""
        if self.mode == "replicated job" or self.mode == "global job":
            return f"{self.running}/{self.wanted} ({self.completed}/{self.completions} completed)"
        bound = f" (max {self.max_per_node} per node)" if self.max_per_node else ""
        return f"{self.running}/{self.wanted}{bound}"

    completions: int = 0
    """Of a job: how many completions are wanted."""

    @property
    def healthy(self) -> bool:
        """True when nothing is left to do and nothing failed."""
        return self.glyph in (Glyph.RUNNING, Glyph.COMPLETE, Glyph.SHUTDOWN)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task."""

    id: str
    name: str
    """`web.3`, or `web.NODEID` for a global service: Docker's names."""
    service_id: str
    service: str
    slot: int
    """0 for a global service."""
    node_id: str
    node: str
    """Hostname; the id when the node is gone; "" while none is assigned."""
    glyph: Glyph
    state: str
    """The observed state; `orphaned` and others as Docker writes them; `lost` when its node is down."""
    desired: str
    current: bool
    """True while the cluster wants it to run (or, for a job, counts it): not history."""
    image: str
    ports: str
    error: str
    """In full."""
    message: str
    exit_code: int | None
    container_id: str
    since: int
    """When the state was reported."""
    created: int
    up_to_date: bool
    """False when the service's specification is newer than the task's (our agents tell; else True)."""


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network of scope swarm."""

    id: str
    name: str
    driver: str
    scope: str
    subnet: str
    """All its subnets, with commas between them."""
    attachable: bool
    ingress: bool
    internal: bool
    encrypted: bool
    ipv6: bool
    services: tuple[str, ...]
    """Ids of the services on it."""
    tasks_running: int
    tasks_wanted: int
    """Of those services."""
    labels: tuple[tuple[str, str], ...]
    created: int

    @property
    def flags(self) -> tuple[str, ...]:
        """What sets it apart, in words."""
        words = ("ingress", "attachable", "internal", "encrypted", "ipv6")
        return tuple(word for word in words if getattr(self, word))


@dataclass(frozen=True, slots=True)
class NamedRow:
    """One secret or config."""

    id: str
    name: str
    labels: tuple[tuple[str, str], ...]
    created: int
    updated: int


Row = NodeRow | ServiceRow | TaskRow | NetworkRow | NamedRow
"""Everything that a `Difference` can carry; each has `id`."""

"""What the tables show: columns and texts of nodes, services, tasks and networks. Data, no screens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from swarmtui.ui.actions import Scope
from swarmtui.ui.columns import Column
from swarmtui.ui.glyphs import TONES, GlyphSet, Tone, replica_bar
from swarmtui.ui.text import age, natural_key

if TYPE_CHECKING:
    # At run time these modules come after the first paint.
    from swarmtui.model.rows import NetworkRow, NodeRow, ServiceRow, TaskRow

LAGGING = 1000
"""Entries; a manager that lacks so many is busy catching up."""

Now = Callable[[], float]
"""Seconds since 1970."""


class TableSpec(NamedTuple):
    """One table of the console."""

    key: str
    """`nodes`, `services`, `tasks` or `networks`; also the name of its query."""
    scope: Scope
    """Whose actions apply in it, besides those of every table."""
    columns: list[Column[Any]]
    """In the order in which they are given up on a narrow screen, the last one first."""
    empty: str
    """What an empty table says, and what to do."""
    keep: Callable[[Any], bool] | None = None
    """What is shown until history is asked for."""


def tone_of(glyph: str) -> Tone:
    """The tone that a row's glyph gives to its state."""
    return TONES.get(glyph, Tone.PLAIN)


def by_glyph(row: Any) -> Tone:
    """The tone of a row's state."""
    return tone_of(row.glyph)


def labels_of(row: Any) -> Mapping[str, str]:
    """A row's labels, for `label=` in filters; tasks have none."""
    return dict(getattr(row, "labels", ()))


def size(count: int) -> str:
    """Bytes for people, three digits at most: `0`, `512M`, `3.8G`."""
    value = float(count)
    for unit in ("", "K", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError("the last unit takes every number")


def cores(nano: int) -> str:
    """Billionths of a core as cores: `4`, `0.5`."""
    return f"{nano / 1e9:.2f}".rstrip("0").rstrip(".")


def _age_column(now: Now, get: Callable[[Any], int], title: str = "AGE") -> Column[Any]:
    def text(row: Any) -> str:
        moment = get(row)
        return age(now() - moment / 1e9) if moment else ""

    return Column("age", title, text, sort=lambda row: -get(row), right=True, live=True, minimum=4)


def nodes(glyphs: GlyphSet, now: Now) -> TableSpec:
    """The nodes of the cluster."""

    def role(row: NodeRow) -> str:
        return "leader" if row.leader else "learner" if row.log_role == "learner" else row.role

    def share(reserved: int, total: int, words: Callable[[int], str]) -> str:
        return f"{words(reserved)}/{words(total)}" if reserved else words(total)

    columns: list[Column[NodeRow]] = [
        Column("name", "NAME", attrgetter("hostname"), essential=True, minimum=12),
        Column(
            "state", "STATUS", attrgetter("state"), glyph=attrgetter("glyph"), tone=by_glyph, essential=True, minimum=9
        ),
        Column("role", "ROLE", role, glyph=attrgetter("role_glyph"), tone=lambda row: tone_of(row.role_glyph), minimum=9),
        Column(
            "tasks", "TASKS", lambda row: f"{row.tasks_running}/{row.tasks_wanted}",
            sort=attrgetter("tasks_running"), right=True,
            tone=lambda row: Tone.PLAIN if row.tasks_running == row.tasks_wanted else Tone.BUSY,
        ),
        Column("address", "ADDRESS", attrgetter("address"), minimum=15),
        Column(
            "index", "INDEX", lambda row: str(row.log_index) if row.log_index >= 0 else "",
            sort=attrgetter("log_index"), right=True, when_filled=True,
        ),
        Column(
            "lag", "LAG", lambda row: str(row.log_lag) if row.log_lag >= 0 else "", sort=attrgetter("log_lag"),
            tone=lambda row: Tone.PLAIN if row.log_lag < LAGGING else Tone.WARNING, right=True, when_filled=True,
        ),
        Column(
            "message", "MESSAGE", attrgetter("message"), tone=lambda row: Tone.BAD, grow=True, maximum=60, minimum=18,
            when_filled=True,
        ),
        Column(
            "cpu", "CPU", lambda row: share(row.reserved_nano_cpus, row.nano_cpus, cores),
            sort=attrgetter("nano_cpus"), right=True,
        ),
        Column(
            "memory", "MEMORY", lambda row: share(row.reserved_memory_bytes, row.memory_bytes, size),
            sort=attrgetter("memory_bytes"), right=True,
        ),
        _age_column(now, attrgetter("created")),
        Column("engine", "ENGINE", attrgetter("engine"), tone=lambda row: Tone.MUTED),
        Column("platform", "PLATFORM", attrgetter("platform"), tone=lambda row: Tone.MUTED),
        Column("labels", "LABELS", lambda row: " ".join(f"{k}={v}" for k, v in row.labels), hidden=True),
        Column("availability", "AVAILABILITY", attrgetter("availability"), hidden=True),
        Column("id", "ID", attrgetter("id"), hidden=True, maximum=25),
    ]  # fmt: skip
    return TableSpec("nodes", Scope.NODES, columns, "no nodes\nthis engine is in no swarm: docker swarm init")


def services(glyphs: GlyphSet, now: Now) -> TableSpec:
    """The services."""

    def replicas(row: ServiceRow) -> str:
        return f"{row.replicas.split(' ')[0]:>5} {replica_bar(row.running, row.wanted, glyphs)}"

    columns: list[Column[ServiceRow]] = [
        Column("name", "NAME", attrgetter("name"), essential=True, minimum=14),
        Column(
            "state", "STATUS", attrgetter("state"), glyph=attrgetter("glyph"), tone=by_glyph, essential=True, minimum=11
        ),
        Column(
            "replicas",
            "REPLICAS",
            replicas,
            sort=lambda row: row.running / max(1, row.wanted),
            tone=by_glyph,
            minimum=12,
        ),
        Column(
            "error", "PROBLEM", attrgetter("error"), tone=lambda row: Tone.BAD, grow=True, maximum=44, minimum=16,
            when_filled=True,
        ),
        Column("image", "IMAGE", attrgetter("image"), minimum=12),
        Column("ports", "PORTS", attrgetter("ports"), minimum=16, when_filled=True),
        _age_column(now, attrgetter("created")),
        Column("stack", "STACK", attrgetter("stack"), when_filled=True),
        Column("mode", "MODE", attrgetter("mode"), tone=lambda row: Tone.MUTED, minimum=10),
        Column("labels", "LABELS", lambda row: " ".join(f"{k}={v}" for k, v in row.labels), hidden=True),
        Column("id", "ID", attrgetter("id"), hidden=True, maximum=25),
    ]  # fmt: skip
    empty = (
        "no services yet\n"
        "create one in another terminal:\n"
        "docker service create --name whoami --replicas 6 --publish 8081:8000 swarmtui/whoami"
    )
    return TableSpec("services", Scope.SERVICES, columns, empty)


def tasks(glyphs: GlyphSet, now: Now) -> TableSpec:
    """The tasks; those that ended are shown when asked for."""

    def in_order(row: TaskRow) -> str:
        # By slot, then the one that is wanted, then history from the newest on.
        return f"{natural_key(row.name)}\0{'0' if row.current else '1'}{2**63 - row.created:020d}"

    def kept(row: TaskRow) -> bool:
        # What failed stays in sight: it is what a person looks for.
        return row.current or row.glyph == "failed"

    def tone(row: TaskRow) -> Tone:
        return by_glyph(row) if row.current or row.glyph == "failed" else Tone.MUTED

    columns: list[Column[TaskRow]] = [
        Column("name", "NAME", attrgetter("name"), sort=in_order, essential=True, minimum=12),
        Column("state", "STATE", attrgetter("state"), glyph=attrgetter("glyph"), tone=tone, essential=True, minimum=10),
        Column("node", "NODE", lambda row: row.node or "none yet", minimum=6),
        _age_column(now, attrgetter("since"), "SINCE"),
        Column(
            "error", "PROBLEM", attrgetter("error"), tone=lambda row: Tone.BAD, grow=True, maximum=60, minimum=16,
            when_filled=True,
        ),
        Column("image", "IMAGE", attrgetter("image"), minimum=12),
        Column("desired", "WANTED", attrgetter("desired"), tone=lambda row: Tone.MUTED, hidden=True),
        Column("ports", "PORTS", attrgetter("ports"), hidden=True),
        Column(
            "exit", "EXIT", lambda row: "" if row.exit_code is None else str(row.exit_code), hidden=True, right=True
        ),
        Column("service", "SERVICE", attrgetter("service"), hidden=True),
        Column("container", "CONTAINER", attrgetter("container_id"), hidden=True, maximum=12),
        Column("id", "ID", attrgetter("id"), hidden=True, maximum=25),
    ]  # fmt: skip
    return TableSpec("tasks", Scope.TASKS, columns, "no tasks", keep=kept)


def networks(glyphs: GlyphSet, now: Now) -> TableSpec:
    """The networks of the cluster; those of a single host are no part of it."""
    columns: list[Column[NetworkRow]] = [
        Column("name", "NAME", attrgetter("name"), essential=True, minimum=12),
        Column("subnet", "SUBNETS", attrgetter("subnet"), essential=True, minimum=13, maximum=60),
        Column("services", "SERVICES", lambda row: str(len(row.services)), sort=lambda row: len(row.services), right=True),
        Column(
            "tasks", "TASKS", lambda row: f"{row.tasks_running}/{row.tasks_wanted}" if row.services else "0",
            sort=attrgetter("tasks_running"), right=True,
            tone=lambda row: Tone.PLAIN if row.tasks_running >= row.tasks_wanted else Tone.BUSY,
        ),
        Column("flags", "FLAGS", lambda row: " ".join(row.flags), minimum=10, grow=True, when_filled=True),
        Column("driver", "DRIVER", attrgetter("driver"), tone=lambda row: Tone.MUTED, minimum=7),
        Column("scope", "SCOPE", attrgetter("scope"), tone=lambda row: Tone.MUTED),
        _age_column(now, attrgetter("created")),
        Column("labels", "LABELS", lambda row: " ".join(f"{k}={v}" for k, v in row.labels), hidden=True),
        Column("id", "ID", attrgetter("id"), hidden=True, maximum=25),
    ]  # fmt: skip
    empty = "no networks yet\ncreate one in another terminal:\ndocker network create -d overlay --attachable NAME"
    return TableSpec("networks", Scope.NETWORKS, columns, empty)

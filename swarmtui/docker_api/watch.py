"""The agents' watch stream: what one line says, and which of our types each table holds."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from swarmtui.docker_api.errors import MalformedAnswer
from swarmtui.docker_api.types import Config, Network, Node, Secret, Service, Task

TABLES: dict[str, type[Node | Service | Task | Network | Secret | Config]] = {
    "nodes": Node,
    "services": Service,
    "tasks": Task,
    "networks": Network,
    "secrets": Secret,
    "configs": Config,
}
"""The tables that the console knows. A line of any other table is left out."""

WatchedObject = Node | Service | Task | Network | Secret | Config


class _Line(msgspec.Struct, gc=False):
    kind: str
    table: str = ""
    index: int = 0
    object: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class WatchLine:
    """One line: `kind` is snapshot, synced, create, update or remove; `index` is the store's index of the change."""

    kind: str
    table: str
    """nodes, services, tasks, networks, secrets or configs; "" for synced."""
    index: int
    object: WatchedObject | None


_line_decoder = msgspec.json.Decoder(_Line)
_decoders = {table: msgspec.json.Decoder(kind) for table, kind in TABLES.items()}
_KINDS = frozenset({"snapshot", "synced", "create", "update", "remove"})


def table_name(text: str) -> str:
    """The table's name as we write it: `Node`, `node` and `nodes` are one."""
    name = text.lower()
    return name if name.endswith("s") else name + "s"


def decode_watch_line(line: bytes) -> WatchLine | None:
    """A line of the stream; None for a table or a kind that we do not know. MalformedAnswer when it is no such line."""
    try:
        head = _line_decoder.decode(line)
        if head.kind not in _KINDS:
            return None
        if head.kind == "synced":
            return WatchLine(head.kind, "", head.index, None)
        table = table_name(head.table)
        decoder = _decoders.get(table)
        if decoder is None:
            return None
        return WatchLine(head.kind, table, head.index, decoder.decode(head.object))
    except msgspec.DecodeError as error:
        raise MalformedAnswer(f"the engine's watch sent a line that cannot be read ({error}): {line[:200]!r}") from None

"""What a log consists of: lines of replicas, and notices that say what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class LogStream(StrEnum):
    """Which of the process's outputs a line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One line of one replica. A Struct, because there are many: making one costs a tenth of a dataclass."""

    timestamp: int
    """Nanoseconds since the epoch, by the clock of the replica's node; 0 when the engine did not say."""
    text: str
    """Without the line's end. Control sequences are still in it: whoever draws it must escape them."""
    stream: LogStream = LogStream.STDOUT
    task_id: str = ""
    service_id: str = ""
    node_id: str = ""


class NoticeKind(StrEnum):
    """Why a notice is in the log."""

    STARTED = "started"
    """A stream of lines began (first connection, or a replica joined)."""
    MISSING = "missing"
    """A node or replica does not answer; its lines follow when it is back."""
    RECONNECTING = "reconnecting"
    """The connection was lost; `text` has the reason."""
    RECONNECTED = "reconnected"
    """Lines go on without a gap and without duplicates."""
    DROPPED = "dropped"
    """Lines were given up: the disk's bound was reached or the engine said so."""
    LATE = "late"
    """Lines of a replica came after later ones of others had been shown."""
    ENGINE = "engine"
    """The engine's own message inside the stream."""
    ENDED = "ended"
    """The stream is complete (no follow), or the service is gone."""


class LogNotice(msgspec.Struct, frozen=True, gc=False):
    """A row in the log that is not a line: silence is never left unexplained."""

    timestamp: int
    kind: NoticeKind
    text: str
    node_id: str = ""
    task_id: str = ""


LogEvent = LogLine | LogNotice
"""What a `LogSession` yields."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What to read. `since` and `until` are nanoseconds since the epoch, 0 = unbounded; `tail` lines, None = all."""

    follow: bool = True
    since: int = 0
    until: int = 0
    tail: int | None = None
    stdout: bool = True
    stderr: bool = True

"""Fills a log view from the cluster's logs. Imported after the first paint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from swarmtui.docker_api.errors import EngineError
from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogOptions, LogStream, NoticeKind
from swarmtui.logs.session import LogSession
from swarmtui.ui.log_buffer import Kind, Line

if TYPE_CHECKING:
    from swarmtui.logs.session import LogSource

ALARMS = frozenset(
    {NoticeKind.MISSING, NoticeKind.RECONNECTING, NoticeKind.DROPPED, NoticeKind.LATE, NoticeKind.ENGINE}
)
"""Notices that say that something is wrong or missing; the others only tell."""


def line_of(event: LogEvent) -> Line:
    """A log's event as the view keeps it."""
    if isinstance(event, LogNotice):
        return Line(event.timestamp, event.text, event.task_id, Kind.ALARM if event.kind in ALARMS else Kind.NOTICE)
    kind = Kind.STDERR if event.stream is LogStream.STDERR else Kind.STDOUT
    return Line(event.timestamp, event.text, event.task_id, kind)


async def feed(
    source: LogSource,
    write: Callable[[Sequence[Line]], None],
    *,
    services: Sequence[str] = (),
    tasks: Sequence[str] = (),
    options: LogOptions,
    now: Callable[[], int],
) -> None:
    """Writes the log until it ends or the caller is cancelled; an error becomes a row, never silence."""
    try:
        async with LogSession(source, services=services, tasks=tasks, options=options) as session:
            async for batch in session.batches():
                write([line_of(event) for event in batch])
    except EngineError as error:
        write([Line(now(), f"the log cannot be read: {error}", "", Kind.ALARM)])


async def last_lines(source: LogSource, task_id: str, count: int) -> list[str]:
    """The last lines of one task, for `why`; an error is one of them."""
    lines: list[str] = []
    options = LogOptions(follow=False, tail=count)
    try:
        async with LogSession(source, tasks=[task_id], options=options) as session:
            async for batch in session.batches():
                lines += [event.text for event in batch if isinstance(event, LogLine)]
    except EngineError as error:
        lines.append(f"(the log cannot be read: {error})")
    return lines[-count:]

"""What the command prints: the JSON object for programs, lines for people, progress while instances start."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol, TextIO

from swarmtui.playground.booting import Step
from swarmtui.playground.clock import countdown
from swarmtui.playground.instance import Instance
from swarmtui.playground.session import PlaygroundSession


class Shown(Protocol):
    """What the JSON needs of a session."""

    @property
    def instances(self) -> list[Instance]: ...

    @property
    def expires_at(self) -> datetime: ...


def as_json(session: Shown) -> str:
    """One line: `{"instances": [{name, role, address, docker_host, pid, agent_pid}], "expires_at"}`."""
    instances = [instance.as_json() for instance in session.instances]
    return json.dumps(
        {"instances": instances, "expires_at": session.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    )


def for_people(session: PlaygroundSession) -> str:
    """Addresses, and what to type in a second terminal."""
    first = session.instances[0]
    rows = [("", "NAME", "ROLE", "ADDRESS", "DOCKER_HOST")]
    rows += [("", one.name, str(one.role), str(one.address), one.docker_host) for one in session.instances]
    return "\n".join(
        [
            f"tier: {session.tier.tier} ({session.tier.reason})",
            *table(rows),
            "",
            f"This session ends in {countdown(session.remaining)}, or with Ctrl+C; then everything in it is deleted.",
            "In another terminal:",
            "",
            f"  export DOCKER_HOST={first.docker_host}",
            "  docker node ls",
            "  docker service create --name whoami --replicas 6 --publish 8081:8000 swarmtui/whoami",
            f"  curl http://{first.address}:8081",
            "",
        ]
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class ProgressLines:
    """One line an instance, drawn over itself on a terminal; else a line for each that is ready, so that a log stays short."""

    def __init__(self, names: Sequence[str], stream: TextIO | None = None, width: int | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        # One less: a full line would wrap on some terminals, and what is drawn over itself must not.
        self._width = (width or shutil.get_terminal_size().columns) - 1
        self._lines = dict.fromkeys(names, "starting")
        self._drawn = False

    def __call__(self, instance: str, step: Step, seconds: float) -> None:
        """For a session's `progress`."""
        before = self._lines.get(instance, "starting")
        done = f"{step} {seconds:.1f} s" if not self._live or step is Step.READY else str(step)
        self._lines[instance] = done if before == "starting" else f"{before} · {done}"
        if self._live:
            self._draw()
        elif step is Step.READY:
            self._stream.write(f"{instance}: {self._lines[instance]}\n")
            self._stream.flush()

    def begin(self) -> None:
        """Show every instance before anything is done."""
        if self._live:
            self._draw()

    def clear(self) -> None:
        """Take the lines off the terminal again."""
        if self._live and self._drawn:
            self._stream.write(f"\x1b[{len(self._lines)}A\x1b[J")
            self._stream.flush()
            self._drawn = False

    def _draw(self) -> None:
        up = f"\x1b[{len(self._lines)}A" if self._drawn else ""
        lines = [f"  {name:<8} {text}"[: self._width] for name, text in self._lines.items()]
        body = "".join(f"\r\x1b[K{line}\n" for line in lines)
        self._stream.write(up + body)
        self._stream.flush()
        self._drawn = True

"""What a reader of logs asks for, and what it is told when lines are missing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which lines: `since` and `until` in nanoseconds since the epoch (0: no bound), `tail` lines a task (-1: all)."""

    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False
    stdout: bool = True
    stderr: bool = True


@dataclass(frozen=True, slots=True)
class LogsMissing:
    """Lines that could not be had: those of a task on a node that is down or was lost while they were read.

    `task_id` is empty when it is not one task alone.
    """

    task_id: str
    node_id: str
    reason: str

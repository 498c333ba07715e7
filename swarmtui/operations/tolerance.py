"""What a change does to the number of managers that may fail, in words: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmtui.docker_api.types import Node
from swarmtui.model.managers import majority, survived
from swarmtui.operations.base import Change, OperationFailed


@dataclass(frozen=True, slots=True)
class Managers:
    """How many there are, and how many of them answer."""

    count: int
    answering: int


def managers_of(nodes: Iterable[Node], *, without: str = "") -> Managers:
    """The managers among the nodes; `without` leaves one out by its id."""
    statuses = [node.manager_status for node in nodes if node.manager_status is not None and node.id != without]
    return Managers(len(statuses), sum(1 for status in statuses if status.reachability == "reachable"))


def tolerance_changes(before: Managers, after: Managers) -> tuple[Change, ...]:
    """The numbers that change."""
    return (
        Change("managers", str(before.count), str(after.count)),
        Change("failures survived", str(survived(before.count)), str(survived(after.count))),
    )


def tolerance_lines(before: Managers, after: Managers) -> tuple[str, ...]:
    """Warnings: fewer failures survived, an even number, no quorum left."""
    lines = []
    less, more = survived(after.count), survived(before.count)
    needed = majority(after.count)
    if after.count == 0:
        lines.append("warning: it is the last manager: without one the cluster cannot be controlled")
    elif after.answering < needed:
        lines.append(
            f"warning: {needed} of {after.count} managers must answer and {after.answering} would: "
            "no quorum would be left; bring the missing ones back first"
        )
    elif less < more:
        lines.append(
            f"warning: fewer failures are survived: {less} instead of {more}"
            + ("; if any manager is lost then, nothing can be changed" if less == 0 else "")
        )
    if after.count > 1 and after.count % 2 == 0:
        lines.append(
            f"warning: {after.count} managers survive no more failures than {after.count - 1} do, "
            f"and {needed} of them must answer: an odd number is better"
        )
    elif after.answering == needed and after.count > 1 and after.answering < after.count:
        lines.append(f"warning: only {after.answering} of {after.count} managers answer: not one more may fail")
    return tuple(lines)


def refuse_lost_quorum(before: Managers, after: Managers, what: str) -> None:
    """OperationFailed where the cluster would surely refuse."""
    if before.count and not after.count:
        raise OperationFailed(f"{what} is the last manager of the cluster; promote another node first")

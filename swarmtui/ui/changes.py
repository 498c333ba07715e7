"""Actions to operations: which change an action means for which objects. Imported after the first paint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmtui.operations.base import Operation
from swarmtui.operations.nodes import ActivateNode, DrainNode
from swarmtui.operations.service_life import RemoveService
from swarmtui.operations.services import RestartService, ScaleService

if TYPE_CHECKING:
    from swarmtui.operations.client import OperationClient


def operation(client: OperationClient, action_id: str, target: str, argument: str = "") -> Operation:
    """The operation of an action of danger on one object; ValueError (for people) when the argument is wrong."""
    if action_id == "service.scale":
        if not argument.isascii() or not argument.isdigit():
            raise ValueError(f"{argument!r} is no number of replicas")
        return ScaleService(client, target, int(argument))
    made = {
        "service.restart": RestartService,
        "service.remove": RemoveService,
        "node.drain": DrainNode,
        "node.activate": ActivateNode,
    }[action_id]
    found: Operation = made(client, target)
    return found

"""Actions to operations: which change an action means for which objects. Imported after the first paint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from swarmtui.operations.base import Operation
from swarmtui.operations.membership import ForceNewCluster, LeaveSwarm
from swarmtui.operations.nodes import ActivateNode, DrainNode
from swarmtui.operations.roles import SetRole
from swarmtui.operations.service_life import RemoveService
from swarmtui.operations.services import RestartService, ScaleService

if TYPE_CHECKING:
    from swarmtui.operations.client import OperationClient, SwarmClient

_ROLES = {"node.promote": "manager", "node.demote": "worker"}


def operation(client: OperationClient, action_id: str, target: str, argument: str = "") -> Operation:
    """The operation of an action of danger on one object; ValueError (for people) when the argument is wrong."""
    if action_id == "service.scale":
        if not argument.isascii() or not argument.isdigit():
            raise ValueError(f"{argument!r} is no number of replicas")
        return ScaleService(client, target, int(argument))
    if action_id in _ROLES:
        return SetRole(client, target, _ROLES[action_id])
    made = {
        "service.restart": RestartService,
        "service.remove": RemoveService,
        "node.drain": DrainNode,
        "node.activate": ActivateNode,
    }[action_id]
    found: Operation = made(client, target)
    return found


def swarm_operation(client: SwarmClient, action_id: str) -> Operation:
    """The operation of an action that concerns the node which is asked."""
    made: dict[str, Callable[[SwarmClient], Operation]] = {
        "swarm.leave": LeaveSwarm,
        "swarm.force-new-cluster": ForceNewCluster,
    }
    return made[action_id](client)

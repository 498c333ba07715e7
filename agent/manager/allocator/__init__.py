"""The allocator: what services, tasks and networks are given out of what the cluster has.

Published ports, subnets and network identifiers, virtual addresses, addresses of tasks and of nodes' balancers. One writer,
the leader's; everything it knows is read from the store when it begins.
"""

from agent.manager.allocator.allocator import Allocator
from agent.manager.allocator.ports import (
    FIRST_DYNAMIC,
    LAST_DYNAMIC,
    NO_PORT_LEFT,
    allocate_endpoint,
    ingress_ports,
    is_ingress,
)

__all__ = [
    "FIRST_DYNAMIC",
    "LAST_DYNAMIC",
    "NO_PORT_LEFT",
    "Allocator",
    "allocate_endpoint",
    "ingress_ports",
    "is_ingress",
]

"""Nodes: the hosts of a swarm (moby api/types/swarm/node.go)."""

from __future__ import annotations

from enum import StrEnum

from agent.api_types.common import Platform, Resources, TLSInfo, Version
from agent.api_types.fields import ApiObject, nested, omitempty, present


class NodeRole(StrEnum):
    """What a node does."""

    WORKER = "worker"
    MANAGER = "manager"


class NodeAvailability(StrEnum):
    """What a person allows on a node: tasks come and stay, none come, all leave."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(StrEnum):
    """What is known of a node's life; UNKNOWN after a change of leader, until it is heard of."""

    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class NodeSpec(ApiObject, frozen=True):
    """What a person decides about a node."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    role: NodeRole = present("Role", NodeRole.WORKER)
    availability: NodeAvailability = present("Availability", NodeAvailability.ACTIVE)


class Plugin(ApiObject, frozen=True):
    """A plugin of the engine: type (Volume, Network, Log) and name."""

    type: str = omitempty("Type", "")
    name: str = omitempty("Name", "")


class EngineDescription(ApiObject, frozen=True):
    """The engine of a node."""

    engine_version: str = omitempty("EngineVersion", "")
    labels: dict[str, str] = omitempty("Labels", {})
    plugins: list[Plugin] = omitempty("Plugins", [])


class NodeDescription(ApiObject, frozen=True):
    """What a node says of itself."""

    hostname: str = omitempty("Hostname", "")
    platform: Platform = nested("Platform", Platform)
    resources: Resources = nested("Resources", Resources)
    engine: EngineDescription = nested("Engine", EngineDescription)
    tls_info: TLSInfo = nested("TLSInfo", TLSInfo)


class NodeStatus(ApiObject, frozen=True):
    """Whether a node lives and where it was last seen (an address without a port)."""

    state: NodeState = present("State", NodeState.UNKNOWN)
    message: str = omitempty("Message", "")
    addr: str = omitempty("Addr", "")


class ManagerStatus(ApiObject, frozen=True):
    """A manager's place in the Raft group."""

    leader: bool = omitempty("Leader", False)
    reachability: str = omitempty("Reachability", "")
    addr: str = omitempty("Addr", "")


class Node(ApiObject, frozen=True):
    """A node of the swarm."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: NodeSpec = nested("Spec", NodeSpec)
    description: NodeDescription = nested("Description", NodeDescription)
    status: NodeStatus = nested("Status", NodeStatus)
    manager_status: ManagerStatus | None = omitempty("ManagerStatus", None)

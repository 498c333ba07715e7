"""Networks of scope swarm, and how tasks are attached to them (moby api/types/swarm/network.go)."""

from __future__ import annotations

from agent.api_types.common import Driver, Version
from agent.api_types.fields import ApiObject, nested, omitempty, present


class IPAMConfig(ApiObject, frozen=True):
    """One subnet of a network."""

    subnet: str = omitempty("Subnet", "")
    range: str = omitempty("Range", "")
    gateway: str = omitempty("Gateway", "")


class IPAMOptions(ApiObject, frozen=True):
    """Address management of a network."""

    driver: Driver = nested("Driver", Driver)
    configs: list[IPAMConfig] = omitempty("Configs", [])


class NetworkReference(ApiObject, frozen=True):
    """A network by name: one of each node's own, of whose configuration it makes another."""

    network: str = present("Network", "")


class NetworkSpec(ApiObject, frozen=True):
    """What a network is to be."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    driver_configuration: Driver | None = omitempty("DriverConfiguration", None)
    ipv6_enabled: bool = omitempty("IPv6Enabled", False)
    internal: bool = omitempty("Internal", False)
    attachable: bool = omitempty("Attachable", False)
    ingress: bool = omitempty("Ingress", False)
    ipam_options: IPAMOptions | None = omitempty("IPAMOptions", None)
    scope: str = omitempty("Scope", "")
    config_from: NetworkReference | None = omitempty("ConfigFrom", None)


class Network(ApiObject, frozen=True):
    """A network of scope swarm."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: NetworkSpec = nested("Spec", NetworkSpec)
    driver_state: Driver = nested("DriverState", Driver)
    ipam_options: IPAMOptions | None = omitempty("IPAMOptions", None)


class NetworkAttachmentConfig(ApiObject, frozen=True):
    """A network that a task asks for, by id or name."""

    target: str = omitempty("Target", "")
    aliases: list[str] = omitempty("Aliases", [])
    driver_opts: dict[str, str] = omitempty("DriverOpts", {})


class NetworkAttachment(ApiObject, frozen=True):
    """A network that a task is on, and its addresses there with prefix length."""

    network: Network = nested("Network", Network)
    addresses: list[str] = omitempty("Addresses", [])


class Attachment(ApiObject, frozen=True):
    """An address on a network that no task has: a node's balancer's, or that of a container that a person runs.

    `container` is that container's id, empty for the balancer; `name` and `aliases` are how others on the network call
    it. `addresses` have their prefix length once they are given; one without it is only asked for. `err` says why none
    could be given yet. Our own: the Docker API has no such object.
    """

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    network_id: str = omitempty("NetworkID", "")
    node_id: str = omitempty("NodeID", "")
    container: str = omitempty("Container", "")
    name: str = omitempty("Name", "")
    aliases: list[str] = omitempty("Aliases", [])
    addresses: list[str] = omitempty("Addresses", [])
    err: str = omitempty("Err", "")

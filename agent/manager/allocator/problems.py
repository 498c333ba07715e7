"""What keeps somebody from being given what it asks for: in words, with what to do, and with what it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from agent.api_types.network import Network
from agent.manager.allocator.ports import NO_PORT_LEFT

PORTS = "ports"
NETWORKS = "networks"
"""What waits for any change of the networks there are."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` for a task's Err, `advice` for a person; tried again when what `waits_for` names has changed.

    The advice says SERVICE where the service's name belongs.
    """

    text: str
    advice: str
    waits_for: str


def no_port() -> Problem:
    """Every port that is given by itself is in use."""
    return Problem(
        NO_PORT_LEFT, "Remove a published port of another service, or give this one a number of its own.", PORTS
    )


def gone(named: str) -> Problem:
    """There is no such network (any more)."""
    return Problem(
        f"network {named} not found",
        f"Put the service on a network that exists: docker service update --network-rm {named} --network-add NETWORK "
        "SERVICE",
        NETWORKS,
    )


def unallocated(network: Network, reason: str, advice: str) -> Problem:
    """The network itself could not be given what it asks for."""
    return Problem(f"network {network.spec.name} has no subnet: {reason}", advice, NETWORKS)


def malformed(network: Network, reason: str) -> Problem:
    """The network's spec is wrong in itself."""
    return unallocated(network, reason, f"Remove network {network.spec.name} and make it again with what is right.")


def exhausted(network: Network) -> Problem:
    """Every address is in use."""
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    listed = ", ".join(config.range or config.subnet for config in configs)
    return Problem(
        f"no address is left on network {network.spec.name} ({listed})",
        f"Take services or containers off network {network.spec.name}, or move the service to a larger one: "
        f"docker service update --network-rm {network.spec.name} --network-add LARGER SERVICE",
        network.id,
    )


def taken(network: Network, address: str) -> Problem:
    """The address that somebody names is not free."""
    return Problem(
        f"address {address} of network {network.spec.name} is in use or none that can be given",
        "Ask for another address, or for none.",
        one_of(network.id),
    )


def one_of(network_id: str) -> str:
    """What waits for one address of a network in particular."""
    return f"address of {network_id}"


def of_service(service_id: str) -> str:
    """What waits until a service has what it asks for."""
    return f"service {service_id}"

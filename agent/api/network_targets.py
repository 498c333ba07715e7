"""The networks that a service names (moby daemon/cluster/networks.go): by name, id or the beginning of an id."""

from __future__ import annotations

from msgspec.structs import replace

from agent.api.call import Call
from agent.api.lookup import find_network
from agent.api.network_specs import network_of_every_node
from agent.api.networks import engines_network, is_carrier
from agent.api_types.errors import InvalidArgument, NotFound, PermissionDenied
from agent.api_types.network import Network, NetworkAttachmentConfig
from agent.api_types.service import ServiceSpec
from agent.store.store import Store
from agent.store.transactions import ReadTx


def with_network_ids(tx: ReadTx, spec: ServiceSpec) -> ServiceSpec:
    """`spec` with every network by its id; NotFound for one that there is not."""

    def resolved(configs: list[NetworkAttachmentConfig]) -> list[NetworkAttachmentConfig]:
        return [replace(config, target=_id_of(tx, config.target)) for config in configs]

    if spec.task_template.networks:
        return replace(spec, task_template=replace(spec.task_template, networks=resolved(spec.task_template.networks)))
    return replace(spec, networks=resolved(spec.networks)) if spec.networks else spec


def _id_of(tx: ReadTx, target: str) -> str:
    if network_of_every_node(target) is not None and not tx.find(Network, "name", target):
        return target
    return find_network(tx, target).id


def check_networks(tx: ReadTx, spec: ServiceSpec) -> None:
    """InvalidArgument for networks (by id) that a service cannot have.

    Docker takes a network that is named twice, and tasks then fail at every start.
    """
    configs = spec.task_template.networks or spec.networks
    for number, config in enumerate(configs):
        network = tx.get(Network, config.target)
        name = config.target if network is None else network.spec.name
        if network is not None and network.spec.ingress:
            raise InvalidArgument.grpc(f'Service cannot be explicitly attached to the ingress network "{name}"')
        if any(other.target == config.target for other in configs[:number]):
            raise InvalidArgument.grpc(f'Service is attached to the network "{name}" more than once')


async def refuse_networks_of_the_host(call: Call, store: Store, spec: ServiceSpec) -> None:
    """PermissionDenied for a network that only this host has, in moby's words: the swarm would not find it."""
    for config in spec.task_template.networks or spec.networks:
        try:
            store.view(lambda tx, target=config.target: _id_of(tx, target))  # type: ignore[misc]
        except NotFound:
            theirs = await engines_network(call, config.target)
            if theirs is not None and not is_carrier(theirs):
                raise PermissionDenied(
                    f"The network {theirs['Name']} cannot be used with services. Only networks scoped to the swarm "
                    "can be used, such as those created with the overlay driver."
                ) from None

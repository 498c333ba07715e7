"""Networks for the tests of names, and an independent client's words for queries (dnspython)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from agent.network.dns.answers import Verdict, answer
from agent.network.dns.names import Names, NetworkNames
from agent.rpc.messages import OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet


def task(address: str, name: str, *, service: str = "", ready: bool = True, **more: object) -> OverlayEndpoint:
    """A task of `service`; its id is its name unless given."""
    fields: dict[str, object] = {"id": name, "node_id": "node1", "host": "10.99.0.1", "service_id": service} | more
    return OverlayEndpoint(address=address, name=name, ready=ready, **fields)  # type: ignore[arg-type]


def network(
    name: str,
    subnet: str,
    services: Iterable[OverlayService] = (),
    endpoints: Iterable[OverlayEndpoint] = (),
    *,
    ingress: bool = False,
    internal: bool = False,
) -> NetworkNames:
    """The names of a network whose id is its name."""
    subnets = [OverlaySubnet(one, "") for one in subnet.split()]
    description = OverlayDescription(name=name, vni=4097, subnets=subnets, ingress=ingress, internal=internal)
    return NetworkNames.build(name, description, services, endpoints)


def picture(*networks: NetworkNames) -> Names:
    names = Names()
    for one in networks:
        names = names.with_network(one)
    return names


def ask(
    names: Names, name: str, source: str, kind: str = "A", *, seed: int = 1, stream: bool = False, payload: int = 0
) -> dns.message.Message | Verdict:
    """The answer as an independent implementation reads it."""
    query = dns.message.make_query(name, kind, use_edns=0 if payload else -1, payload=payload or 512)
    said = answer(query.to_wire(), source, names, stream=stream, chance=random.Random(seed))
    if isinstance(said, Verdict):
        return said
    message = dns.message.from_wire(said, raise_on_truncation=False)
    assert query.is_response(message)
    return message


def addresses(said: dns.message.Message | Verdict) -> list[str]:
    """The data of the answer's records, in their order; AssertionError for anything but an answer without error."""
    assert isinstance(said, dns.message.Message), said
    assert said.rcode() == dns.rcode.NOERROR
    return [str(record) for rrset in said.answer for record in rrset]


def code(said: dns.message.Message | Verdict) -> str:
    assert isinstance(said, dns.message.Message), said
    return dns.rcode.to_text(said.rcode())

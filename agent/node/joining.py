"""How a node comes to a part in a swarm: its addresses from what a person asked for, its certificate from a manager."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from agent.api_types.errors import InvalidArgument, Unavailable
from agent.api_types.swarm import JoinRequest
from agent.api_types.times import Clock
from agent.node.addresses import own_source, resolve_advertise, resolve_listen
from agent.node.record import SwarmRecord
from agent.node.settings import Settings
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.tokens import InvalidJoinToken
from agent.rpc.addresses import join_address
from agent.rpc.client import join
from agent.rpc.errors import RpcError, Unreachable
from agent.rpc.messages import JoinAnswer

Interfaces = Mapping[str, list[str]]


def addressed(listen: str, advertise: str, settings: Settings, interfaces: Interfaces) -> SwarmRecord:
    """A record that says where this node listens and what it advertises, and no more yet."""
    host, port = resolve_listen(listen, settings.listen_host, settings.listen_port)
    return SwarmRecord(
        "",
        "",
        join_address(host, port),
        resolve_advertise(advertise, host, port, dict(interfaces)),
        asked_listen=listen,
        asked_advertise=advertise,
    )


def readdressed(record: SwarmRecord, settings: Settings, interfaces: Interfaces) -> SwarmRecord:
    """The record of an earlier life with the addresses that its request leads to now.

    They stay as they were when the request leads nowhere any more (a second interface came up since), and in records
    that did not keep it.
    """
    if record.asked_listen is None or record.asked_advertise is None:
        return record
    try:
        now = addressed(record.asked_listen, record.asked_advertise, settings, interfaces)
    except InvalidArgument:
        return record
    return replace(record, listen=now.listen, advertise=now.advertise)


async def ask_to_join(
    request: JoinRequest, addresses: SwarmRecord, settings: Settings, clock: Clock
) -> tuple[NodeIdentity, SwarmRecord]:
    """What the first manager that answers makes of this node. Unavailable with the reasons of all when none does."""
    key = NodeKey.create()
    answer: JoinAnswer | None = None
    unreachable: list[str] = []
    for address in request.remote_addrs:
        try:
            answer = await join(
                address if ":" in address else f"{address}:{settings.listen_port}",
                request.join_token,
                key,
                listen_address=addresses.advertise,
                hostname=settings.hostname,
                availability=request.availability.lower(),
                source=own_source(addresses.listen),
                clock=clock,
            )
            break
        except InvalidJoinToken:
            raise
        except Unreachable as error:
            unreachable.append(str(error))
        except RpcError as error:
            raise Unavailable(str(error)) from None
    if answer is None:
        raise Unavailable("; ".join(unreachable))
    identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
    record = replace(
        addresses,
        cluster_id=answer.cluster_id,
        node_id=answer.node_id,
        managers=[manager.address for manager in answer.managers],
    )
    return identity, record

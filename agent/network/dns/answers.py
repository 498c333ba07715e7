"""Who answers a query: this host from its networks' names, or the host's resolvers. A pure function."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum

from agent.network.dns.names import ByType, Names, covered
from agent.network.dns.wire import (
    HEADER,
    IN,
    MOST_TCP,
    OPCODE,
    QR,
    Code,
    Malformed,
    Query,
    Record,
    bare_reply,
    labels,
    parse,
    reply,
    udp_limit,
)

_SMALLEST_RECORD = 16
"""Bytes of an A record in an answer."""

_ANY = 255

_chance = random.Random()


class Verdict(Enum):
    """What becomes of a query that is not answered from names."""

    FORWARD = "forward"
    """The host's resolvers are asked."""
    DROP = "drop"
    """No answer: it is no query, and an answer to an answer could go on for ever."""


def answer(
    query: bytes, source: str, names: Names, *, stream: bool = False, chance: random.Random = _chance
) -> bytes | Verdict:
    """The answer to a query from the address `source`, or what else becomes of it. `stream`: it came by TCP.

    Known names are answered here, without an address of the type asked for as "no data". As in Docker, a name that no
    network of the source knows goes to the host's resolvers, one without a dot too: they may know it (moby's resolver
    keeps such a name back only when a container sets ndots, which is not seen from here). The reverse of an address on
    the source's networks never leaves the host, and no question of a source that is on internal networks alone does.
    A source that is on no network is refused: this is no open resolver.
    """
    if len(query) < HEADER.size or HEADER.unpack_from(query)[1] & QR:
        return Verdict.DROP
    if HEADER.unpack_from(query)[1] & OPCODE:
        return bare_reply(query, Code.NOTIMP)
    try:
        asked = parse(query)
    except Malformed:
        return bare_reply(query, Code.FORMERR)
    limit = MOST_TCP if stream else udp_limit(asked)
    if asked.edns > 0:
        return reply(asked, Code.BADVERS, limit=limit)
    networks = names.seen_from(source)
    if not networks or asked.klass != IN:
        return reply(asked, Code.REFUSED, limit=limit)
    known = [records for network in networks if (records := network.find(asked.name)) is not None]
    if known:
        found = [record for records in known for record in _of_type(records, asked.type)]
        return reply(asked, Code.NOERROR, _shuffled(found, limit, chance), limit=limit)
    if covered(asked.name, networks) or all(network.internal for network in networks):
        return reply(asked, Code.NXDOMAIN, limit=limit)
    return Verdict.FORWARD


def failure(query: bytes, *, resolvers: bool) -> bytes:
    """The answer when no resolver gave one. Without any `resolvers` a name without a dot certainly does not exist."""
    asked: Query = parse(query)
    single = len(labels(asked.name)) == 1
    return reply(asked, Code.NXDOMAIN if single and not resolvers else Code.SERVFAIL, limit=udp_limit(asked))


def _of_type(records: ByType, kind: int) -> Sequence[Record]:
    if kind == _ANY:
        return [record for found in records.values() for record in found]
    return records.get(kind, ())


def _shuffled(found: Sequence[Record], limit: int, chance: random.Random) -> Sequence[Record]:
    """The records in random order, each once; of very many just those that can fit and one more, which truncates the answer."""
    if len(found) < 2:
        return found
    # Only names on several networks can lead to the same record twice.
    found = list(dict.fromkeys(found))
    return chance.sample(found, min(len(found), limit // _SMALLEST_RECORD + 1))

"""The few parts of DNS messages that a server of names and addresses needs (RFC 1035, RFC 6891).

Names stay in wire format, in lower case, and are compared as bytes: a label that has a dot or any other byte in it is then
never mistaken for another name, and a query costs no decoding. Length bytes are 63 at most, below the letter A, so that
`bytes.lower` leaves them alone. Pointers are never followed: a question needs none, and records are only skipped.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_OWNED = struct.Struct("!HHHIH")

QR = 0x8000
OPCODE = 0x7800
AA = 0x0400
TC = 0x0200
RD = 0x0100
RA = 0x0080
CD = 0x0010

IN = 1
LONGEST_LABEL = 63
LONGEST_NAME = 255
PLAIN_UDP = 512
"""Bytes of an answer that every UDP client takes; more by EDNS."""
MOST_UDP = 1232
"""Bytes of an answer sent by UDP at most: what passes everywhere without fragments."""
MOST_TCP = 65535

REMEMBERED = 1 << 15
"""Names and addresses whose wire format is kept: a change on a network of 1,000 tasks names most of them again."""

_QUESTION_AT = 0xC00C
"""A pointer to the question's name, which follows the header."""


class Type(IntEnum):
    """Types of records that are more than bytes here."""

    A = 1
    PTR = 12
    AAAA = 28
    OPT = 41


class Code(IntEnum):
    """Response codes. BADVERS needs EDNS."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Malformed(ValueError):
    """The bytes are no query."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query's parts. `name` is in wire format and lower case; `question` has the bytes as they came (RFC 1035, 4.1.2).

    `payload` is what the client takes by UDP, 0 without EDNS; `edns` the EDNS version, -1 without.
    """

    id: int
    flags: int
    question: bytes
    name: bytes
    type: int
    klass: int
    payload: int = 0
    edns: int = -1


class Record(NamedTuple):
    """A record of the name that was asked for: its data in wire format."""

    type: int
    ttl: int
    data: bytes


def parse(message: bytes) -> Query:
    """The query in `message`. Malformed unless it has exactly one question and ends where it says."""
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header")
    ident, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if questions != 1:
        raise Malformed(f"{questions} questions")
    end = _skip_labels(message, HEADER.size)
    if end + 4 > len(message):
        raise Malformed("the question is cut off")
    name = message[HEADER.size : end]
    kind, klass = struct.unpack_from("!HH", message, end)
    position = end + 4
    question = message[HEADER.size : position]
    payload, edns = 0, -1
    for index in range(answers + authorities + additional):
        owner = position
        position = _skip_owner(message, position)
        if position + _RECORD.size > len(message):
            raise Malformed("a record is cut off")
        record_type, record_class, ttl, length = _RECORD.unpack_from(message, position)
        position += _RECORD.size + length
        if position > len(message):
            raise Malformed("a record's data are cut off")
        if record_type == Type.OPT and index >= answers + authorities:
            if edns >= 0 or message[owner] != 0:
                raise Malformed("a second OPT, or one with a name")
            payload, edns = record_class, (ttl >> 16) & 0xFF
    return Query(ident, flags, question, name.lower(), kind, klass, payload, edns)


def reply(query: Query, code: Code, records: Sequence[Record] = (), *, limit: int, flags: int = AA | RA) -> bytes:
    """The answer to `query` in at most `limit` bytes: as many records as fit, and TC when some do not."""
    options = b""
    if query.edns >= 0:
        options = b"\0" + _RECORD.pack(Type.OPT, MOST_UDP, (code >> 4) << 24, 0)
    room = limit - HEADER.size - len(query.question) - len(options)
    body = []
    flags |= QR | (query.flags & (OPCODE | RD | CD)) | (code & 0xF)
    for record in records:
        room -= _OWNED.size + len(record.data)
        if room < 0:
            flags |= TC
            break
        body.append(_OWNED.pack(_QUESTION_AT, record.type, IN, record.ttl, len(record.data)) + record.data)
    head = HEADER.pack(query.id, flags, 1, len(body), 0, 1 if options else 0)
    return b"".join((head, query.question, *body, options))


def bare_reply(message: bytes, code: Code) -> bytes:
    """An answer without a question, for a message that cannot be read further than its header."""
    ident, flags, *_ = HEADER.unpack_from(message)
    return HEADER.pack(ident, QR | RA | (flags & (OPCODE | RD)) | code, 0, 0, 0, 0)


def udp_limit(query: Query) -> int:
    """Bytes of an answer by UDP that the client takes, and that we send."""
    return max(PLAIN_UDP, min(query.payload, MOST_UDP))


@lru_cache(REMEMBERED)
def wire_name(name: str) -> bytes | None:
    """A name (dots between labels, one at the end allowed) in wire format and lower case; None when DNS has no such name."""
    out = []
    for label in name.removesuffix(".").split("."):
        encoded = label.encode()
        if not 0 < len(encoded) <= LONGEST_LABEL:
            return None
        out.append(bytes([len(encoded)]) + encoded)
    wire = b"".join(out) + b"\0"
    return wire.lower() if len(wire) <= LONGEST_NAME else None


def labels(name: bytes) -> list[bytes]:
    """The labels of a name in wire format (as `Query.name` and `wire_name` have it)."""
    found = []
    position = 0
    while length := name[position]:
        found.append(name[position + 1 : position + 1 + length])
        position += 1 + length
    return found


def reversed_address(name: bytes) -> str | None:
    """The address whose PTR `name` stands for; None for any other name."""
    parts = labels(name)
    if parts[-2:] == [b"in-addr", b"arpa"] and len(parts) == 6:
        text = b".".join(parts[3::-1])
    elif parts[-2:] == [b"ip6", b"arpa"] and len(parts) == 34 and all(len(part) == 1 for part in parts[:32]):
        digits = b"".join(parts[31::-1])
        text = b":".join(digits[index : index + 4] for index in range(0, 32, 4))
    else:
        return None
    try:
        return str(ipaddress.ip_address(text.decode("ascii")))
    except ValueError:
        return None


def _skip_labels(message: bytes, position: int) -> int:
    """Where the name at `position` ends. A pointer is refused: there is nothing before a question to point at."""
    start = position
    while True:
        if position >= len(message):
            raise Malformed("a name is cut off")
        length = message[position]
        if length > LONGEST_LABEL:
            raise Malformed("a pointer, or a label of an unknown kind, in the question")
        position += 1 + length
        if position - start > LONGEST_NAME:
            raise Malformed("a name is too long")
        if not length:
            return position


def _skip_owner(message: bytes, position: int) -> int:
    """Where a record's name ends. A pointer ends it and is not followed."""
    while position < len(message):
        length = message[position]
        if length >= 0xC0:
            return position + 2
        if length > LONGEST_LABEL:
            raise Malformed("a label of an unknown kind")
        position += 1 + length
        if not length:
            return position
    raise Malformed("a name is cut off")

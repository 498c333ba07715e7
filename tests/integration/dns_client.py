"""Asks a name server from within a task's namespace.

`dns_client.py ADDRESS NAME...` prints, as JSON, each name's addresses by UDP and by TCP, or what was answered instead.
`dns_client.py ADDRESS NAME --times COUNT` asks COUNT times and prints the round trips in microseconds, sorted.
"""

from __future__ import annotations

import json
import socket
import sys
import time

import dns.exception
import dns.message
import dns.query
import dns.rcode


def ask(address: str, name: str, *, stream: bool) -> str:
    """The addresses, or the response code, or why there was no answer."""
    query = dns.message.make_query(name, "A")
    try:
        said = (dns.query.tcp if stream else dns.query.udp)(query, address, timeout=3)
    except (OSError, dns.exception.DNSException) as error:
        return type(error).__name__
    found = sorted(str(record) for rrset in said.answer for record in rrset)
    return " ".join(found) or dns.rcode.to_text(said.rcode())


def times(address: str, name: str, count: int) -> list[float]:
    """Round trips one after the other on one socket."""
    query = dns.message.make_query(name, "A").to_wire()
    taken = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(3)
        own.connect((address, 53))
        for _ in range(count):
            begun = time.perf_counter()
            own.send(query)
            own.recv(2048)
            taken.append((time.perf_counter() - begun) * 1e6)
    return sorted(taken)


if sys.argv[3:4] == ["--times"]:
    print(json.dumps(times(sys.argv[1], sys.argv[2], int(sys.argv[4]))))
else:
    print(json.dumps({n: [ask(sys.argv[1], n, stream=stream) for stream in (False, True)] for n in sys.argv[2:]}))

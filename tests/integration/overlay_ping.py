"""Echo requests with undivided packets of a given size: `overlay_ping.py ADDRESS SIZE COUNT INTERVAL`; prints "SENT ANSWERED".

A program of its own because it runs within a task's namespace, and because not every machine has `ping`.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

_DO_NOT_DIVIDE = 2
_MTU_DISCOVER, _MTU_DISCOVER6 = 10, 23
WAIT = 1.0
"""Seconds that the last answer may take."""


def _checksum(data: bytes) -> int:
    words = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main(address: str, size: int, count: int, interval: float) -> None:
    six = ":" in address
    if six:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        opened.setsockopt(socket.IPPROTO_IPV6, _MTU_DISCOVER6, _DO_NOT_DIVIDE)
    else:
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        opened.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _DO_NOT_DIVIDE)
    ident = os.getpid() & 0xFFFF
    payload = bytes((size - (40 if six else 20) - 8) & ~1)
    answered: set[int] = set()

    def receive(until: float) -> None:
        while (left := until - time.monotonic()) > 0 and len(answered) < count:
            if not select.select([opened], [], [], left)[0]:
                return
            data = opened.recv(65536)
            kind, _, _, who, number = struct.unpack_from("!BBHHH", data, 0 if six else (data[0] & 15) * 4)
            if kind == (129 if six else 0) and who == ident:
                answered.add(number)

    sent = 0
    for number in range(count):
        start = time.monotonic()
        packet = struct.pack("!BBHHH", 128 if six else 8, 0, 0, ident, number) + payload
        if not six:
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
        sent += 1
        try:
            opened.sendto(packet, (address, 0))
        except OSError as error:
            print(error, file=sys.stderr)
        receive(start + (interval if number < count - 1 else WAIT))
        if number == 0:
            print("started", flush=True)
        time.sleep(max(0.0, start + interval - time.monotonic()) if number < count - 1 else 0)
    print(sent, len(answered), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))

"""Load for a balancer, in a process of its own: `serve PORT`, `calls ADDRESS PORT SECONDS`, `bulk ADDRESS PORT SECONDS`.

`serve` answers each connection with one byte, and takes what a caller sends after it. The others print a figure:
connections a second, each opened, answered and closed; or bytes a second over one connection.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time

CHUNK = 1 << 18


def serve(port: int) -> None:
    with socket.create_server(("", port), backlog=1024) as listener:
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            caller.send(b".")
            if caller.recv(1) == b"b":
                threading.Thread(target=drain, args=(caller,), daemon=True).start()
            else:
                caller.close()


def drain(caller: socket.socket) -> None:
    space = bytearray(CHUNK)
    with caller:
        while caller.recv_into(space):
            pass


def calls(address: str, port: int, seconds: float) -> float:
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        with socket.socket() as made:
            # Closed by a reset: a port that waits out its last packets could not be used again in time.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.connect((address, port))
            made.recv(1)
            made.send(b"e")
        count += 1
    return count / (time.perf_counter() - begun)


def bulk(address: str, port: int, seconds: float) -> float:
    data, sent = bytes(CHUNK), 0
    with socket.create_connection((address, port)) as made:
        made.recv(1)
        made.send(b"b")
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            sent += made.send(data)
        return sent / (time.perf_counter() - begun)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print({"calls": calls, "bulk": bulk}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))

"""A host and machines on its bridge, each a network namespace of the test's own, with servers that say who they are.

Servers and clients are sockets of the test's process that were made in a namespace. Needs root, `ip` and `nsenter`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.network import namespaces
from agent.network.mac import mac_of

POSSIBLE = os.geteuid() == 0 and all(shutil.which(program) for program in ("ip", "nsenter"))
WHY = "needs root, ip and nsenter"
BRIDGE = "ov-test"


def within(place: Path, *command: str, text: str | None = None) -> str:
    """Run a program in a namespace; what it said."""
    done = subprocess.run(
        ["nsenter", f"--net={place}", *command], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def batch(place: Path, *commands: str) -> None:
    """Several commands of `ip` in one go."""
    within(place, "ip", "-batch", "-", text="\n".join(commands) + "\n")


@dataclass
class Stage:
    """`host` has a bridge with 10.0.1.1/24, and perhaps a link to the outside."""

    folder: Path
    places: dict[str, Path] = field(default_factory=dict)
    served: set[asyncio.Task[None]] = field(default_factory=set)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def place(self, name: str) -> Path:
        """One more namespace."""
        path = self.folder / name
        await namespaces.run_in(None, lambda: namespaces.make(path))
        self.places[name] = path
        within(path, "ip", "link", "set", "lo", "up")
        return path

    async def machine(self, name: str, address: str) -> Path:
        """A namespace on the bridge, with an address of its network."""
        path, host = await self.place(name), self.places["host"]
        length, nodad = ("64", "nodad") if ":" in address else ("24", "")
        make = f"link add name {name} type veth peer name eth0 address {mac_of(address)} netns {path}"
        batch(host, make, f"link set dev {name} master {BRIDGE} up")
        route = ["route add default via 10.0.1.1"] if "." in address else []
        batch(path, f"address add {address}/{length} dev eth0 {nodad}", "link set eth0 up", *route)
        return path

    async def listening(self, name: str, port: int, family: int = socket.AF_INET) -> None:
        """A TCP server that says its name and who calls, then repeats what it hears."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.served.add(task)
            try:
                writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                self.served.discard(task)
                writer.close()

        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("", port))
            made.listen(512)
            made.setblocking(False)
            return made

        listener = await namespaces.run_in(self.places[name], make)
        server = await asyncio.start_server(serve, sock=listener)
        self.stack.callback(server.close)

    async def answering(self, name: str, port: int) -> None:
        """A UDP server that answers each datagram with its name."""

        class Answer(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: object) -> None:
                self.transport.sendto(name.encode() + b" " + data, addr)  # type: ignore[attr-defined]

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("", port))
            made.setblocking(False)
            return made

        bound = await namespaces.run_in(self.places[name], make)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Answer, sock=bound)
        self.stack.callback(transport.close)

    async def connect(
        self, name: str, address: str, port: int
    ) -> tuple[str, str, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from a place: who answers, whom it sees, and the streams."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = await namespaces.run_in(self.places[name], lambda: socket.socket(family, socket.SOCK_STREAM))
        made.setblocking(False)
        try:
            async with asyncio.timeout(10):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        reader, writer = await asyncio.open_connection(sock=made)
        self.stack.callback(writer.close)
        async with asyncio.timeout(10):
            who, _, seen = (await reader.readline()).decode().strip().partition(" ")
        return who, seen, reader, writer

    async def ask(self, name: str, address: str, port: int) -> tuple[str, str]:
        """One short connection: who answered, and whom it saw."""
        who, seen, _, writer = await self.connect(name, address, port)
        writer.close()
        await writer.wait_closed()
        return who, seen

    async def count(self, name: str, address: str, port: int, times: int) -> Counter[str]:
        """Who answered so many connections, one after the other."""
        return Counter([(await self.ask(name, address, port))[0] for _ in range(times)])

    async def sender(self, name: str) -> socket.socket:
        """A UDP socket of a place."""
        made = await namespaces.run_in(self.places[name], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        self.stack.callback(made.close)
        return made

    async def say(self, sender: socket.socket, address: str, port: int, text: bytes = b"hello") -> bytes:
        """Send a datagram and wait for the answer; sent again while none comes, as datagrams may be lost."""
        loop = asyncio.get_running_loop()
        for _ in range(20):
            await loop.sock_sendto(sender, text, (address, port))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                async with asyncio.timeout(0.5):
                    return await loop.sock_recv(sender, 2048)
        raise TimeoutError(f"no answer from {address}:{port}")

    async def ping(self, name: str, address: str) -> None:
        """An echo request from a place and its answer."""
        made = await namespaces.run_in(
            self.places[name], lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        with made:
            made.setblocking(False)
            # Type 8, code 0, the checksum of just that.
            made.sendto(b"\x08\0\xf7\xff\0\0\0\0", (address, 0))
            async with asyncio.timeout(10):
                while (await asyncio.get_running_loop().sock_recv(made, 2048))[20] != 0:
                    pass


@contextlib.asynccontextmanager
async def stage(folder: Path, machines: Iterable[tuple[str, str]] = ()) -> AsyncIterator[Stage]:
    """A host with machines on its bridge; all gone afterwards."""
    made = Stage(folder)
    try:
        host = await made.place("host")
        up = f"link set {BRIDGE} up"
        batch(host, f"link add {BRIDGE} type bridge", f"address add 10.0.1.1/24 dev {BRIDGE}", up)
        for name, address in machines:
            await made.machine(name, address)
        yield made
    finally:
        await made.stack.aclose()
        serving = list(made.served)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        # What was closed is taken down by the loop's next turn.
        await asyncio.sleep(0)
        for name in left_in(folder):
            namespaces.remove(folder / name)


def left_in(folder: Path) -> list[str]:
    """Namespaces that still stand."""
    return sorted(path.name for path in folder.iterdir() if namespaces.stands(path))

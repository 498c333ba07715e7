"""A member of a benchmark's group: a process with a listener, mTLS, a folder, and a state machine that is told nothing.

`raft_bench_member.py NAME FOLDER` reads orders from its standard input, one JSON object a line, and answers each with one.
FOLDER holds cert.pem, key.pem and root.pem.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agent.api_types.service import Service, ServiceSpec
from agent.pki.identity import NodeIdentity
from agent.pki.sealing import Sealing
from agent.raft.interface import GroupStatus, NotLeader, OutcomeUnknown
from agent.raft.member import RaftMember
from agent.rpc.listener import Listener
from agent.rpc.raft_transport import RaftTransport
from agent.store.store import Store


class Nothing:
    """Applies to nothing."""

    def apply(self, index: int, data: bytes) -> None:
        return

    async def snapshot(self) -> AsyncIterator[bytes]:
        yield b"nothing"

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        async for _ in chunks:
            pass


async def when(member: RaftMember, name: str, voter: bool) -> None:
    def wanted(status: GroupStatus) -> bool:
        return any(m.id == name and m.match >= status.last_index - 10 and m.voter >= voter for m in status.members)

    status = member.status
    while not wanted(status):
        status = await member.status_changed(status)


async def writes(member: RaftMember, number: int, inflight: int, size: int) -> dict[str, float]:
    """Rate and latencies (ms) of `number` commands, `inflight` of them at any time."""
    data, took, left = b"x" * size, [], number

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            begin = time.perf_counter()
            await member.propose(data)
            took.append(time.perf_counter() - begin)

    return await _measured(inflight, client, took)


async def transactions(store: Store, number: int, inflight: int) -> dict[str, float]:
    """The same for transactions of one object each."""
    took: list[float] = []
    left = number

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            name = f"service{left}"
            begin = time.perf_counter()
            await store.update(lambda tx, name=name: tx.create(Service(spec=ServiceSpec(name=name))))
            took.append(time.perf_counter() - begin)

    return await _measured(inflight, client, took)


async def _measured(inflight: int, client: Any, took: list[float]) -> dict[str, float]:
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for _ in range(inflight):
            clients.create_task(client())
    seconds = time.perf_counter() - begin
    took.sort()
    return {
        "rate": len(took) / seconds,
        "median": took[len(took) // 2] * 1000,
        "p99": took[len(took) * 99 // 100] * 1000,
        "worst": took[-1] * 1000,
    }


async def take_over(member: RaftMember, lost: str) -> dict[str, Any]:
    """Wait until another one leads; if it is this member, until a write is acknowledged."""
    status = member.status
    while True:
        if status.leading:
            try:
                await member.propose(b"x")
                return {"leading": True}
            except (NotLeader, OutcomeUnknown):
                status = member.status
        elif status.leader not in ("", lost, status.member_id):
            return {"leading": False}
        else:
            status = await member.status_changed(status)


async def orders() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def main(name: str, folder: Path) -> None:
    pem = {part: (folder / f"{part}.pem").read_bytes() for part in ("cert", "key", "root")}
    identity = NodeIdentity.from_pem(pem["cert"], pem["key"], pem["root"])
    transport = RaftTransport(lambda: identity)
    store = Store() if (folder / "store").exists() else None
    async with (
        Listener("127.0.0.1:0", lambda: identity, handlers={}, on_raft=transport.adopt) as listener,
        RaftMember(
            folder / "raft",
            store or Nothing(),
            Sealing.load_or_create(folder),
            name,
            transport,
            address=listener.address,
            founding=(folder / "founding").exists(),
        ) as member,
    ):
        if store is not None:
            store.connect(member)
        print(json.dumps({"address": listener.address}), flush=True)
        async for order in orders():
            answer: dict[str, Any] = {}
            match order:
                case {"add": [other, address]}:
                    await member.add_learner(other, address)
                    await when(member, other, False)
                    await member.promote(other)
                    await when(member, other, True)
                case {"cpu": _}:
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    answer = {"cpu": usage.ru_utime + usage.ru_stime}
                case {"move": [other, address]}:
                    await member.move(other, address)
                    await when(member, other, True)
                case {"writes": number, "inflight": inflight, "size": size}:
                    answer = await writes(member, number, inflight, size)
                case {"transactions": number, "inflight": inflight} if store is not None:
                    answer = await transactions(store, number, inflight)
                case {"lost": lost}:
                    answer = await take_over(member, lost)
                case _:
                    raise ValueError(order)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

"""A worker in a process of its own, so that a test can kill it: assignments in on stdin, statuses out on stdout.

Each line in is a JSON `Assignments`; each line out is a JSON `TaskReport`, the first line is `ready`.
Arguments: engine address, state folder, secrets folder.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from agent.rpc.messages import Assignments
from agent.worker.executors.docker import DockerExecutor
from agent.worker.worker import Worker


async def main(address: str, state: str, secrets: str) -> None:
    """Run until stdin ends."""
    executor = DockerExecutor(address, owner="process", secrets_root=Path(secrets), prefer_local_images=True)
    worker = Worker(executor, state_dir=Path(state), drain=0.0)
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        await worker.restored.wait()
        print("ready", flush=True)
        reporting = group.create_task(report(worker))
        while line := await reader.readline():
            worker.apply(msgspec.json.decode(line, type=Assignments))
        running.cancel()
        reporting.cancel()
    await executor.close()


async def report(worker: Worker) -> None:
    """Print every status."""
    worker.resend()
    while True:
        for one in await worker.outbox.take():
            print(msgspec.json.encode(one).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

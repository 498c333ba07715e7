"""A manager's side and an agent, in one process in a network namespace of its own, whose loopback is cut and joined again.

Prints how long the agent took to stop a copy it should no longer run, from the moment the network was back.
Arguments: seconds of the cut, state folder.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from rpc_cluster import TestCluster
from worker_fakes import NODE, Container, FakeExecutor, FakeHost, make_task

from agent.api_types.node import Node, NodeRole
from agent.api_types.task import TaskState
from agent.api_types.times import SECOND
from agent.rpc.client import dial
from agent.rpc.connection import Connection, Handler
from agent.rpc.listener import Listener
from agent.rpc.messages import Assignments, Heartbeat, Message, SessionReady
from agent.rpc.peer import Purpose
from agent.rpc.stream import Stream
from agent.worker.session import SessionKeeper
from agent.worker.worker import Worker


async def main(cut: float, state: Path) -> None:
    """Session, cut, join, and the time until the old copy is stopped."""
    cluster = TestCluster()
    manager, node = cluster.identity("manager1", NodeRole.MANAGER), cluster.identity(NODE)
    wanted = [make_task("old"), make_task("kept")]
    host = FakeHost()

    async def session(stream: Stream, opening: Message, connection: Connection) -> None:
        await stream.send(SessionReady("s", SECOND, [], Node(id=NODE), "c"))
        await stream.send(Assignments(1, True, tasks=wanted))
        while True:
            if isinstance(await stream.receive(), Heartbeat):
                await stream.send(Heartbeat())

    async def reach(address: str, purpose: Purpose, handlers: Mapping[str, Handler]) -> Connection:
        return await dial(address, node, purpose=purpose, handlers=handlers)

    loop = asyncio.get_running_loop()
    async with Listener("127.0.0.1:0", lambda: manager, handlers={"session": session}) as listener:
        worker = Worker(FakeExecutor(host), state_dir=state)
        keeper = SessionKeeper(worker, reach, worker.executor.describe, "127.0.0.1:1", (listener.address,))
        running = [asyncio.create_task(worker.run()), asyncio.create_task(keeper.run())]
        while worker.runner("old") is None:
            await asyncio.sleep(0.01)
        await worker.runner("old").reached(TaskState.RUNNING)
        await firewall("-I")
        await asyncio.sleep(cut)
        # Meanwhile the manager gave the node up and had the task run elsewhere.
        wanted = [make_task("kept")]
        await firewall("-D")
        back = loop.time()
        await worker.gone("old")
        print(f"{loop.time() - back:.3f}")
        assert host.containers == {"kept": Container.RUNNING}
        for task in reversed(running):
            task.cancel()
            await asyncio.wait({task})


async def firewall(action: str) -> None:
    """Drop (-I) or pass (-D) every packet."""
    await asyncio.to_thread(subprocess.run, ["iptables", action, "INPUT", "-j", "DROP"], check=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), Path(sys.argv[2])))

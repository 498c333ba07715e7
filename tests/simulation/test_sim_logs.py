"""Logs of many nodes: one order of time, nobody waits for ever, and what is missing is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec
from simulated_link import End, Link
from virtual_time import EPOCH, VirtualLoop, run_virtual

from agent.api_types.task import Task, TaskState, TaskStatus
from agent.api_types.times import SECOND
from agent.manager.dispatcher.connections import Connections
from agent.manager.log_broker import GIVE_UP, LogBroker
from agent.manager.log_merge import ROOM
from agent.manager.log_streams import LogOptions, LogsMissing
from agent.rpc.errors import RpcError
from agent.rpc.messages import LogRecord, LogsOpen, LogWatermark, Message
from agent.rpc.peer import Purpose
from agent.store.store import Store
from agent.store.transactions import WriteTx


class Host:
    """A node that answers `logs` from a script: lines by task with their seconds, written when their time comes."""

    def __init__(self, node_id: str, loop: VirtualLoop, lines: dict[str, list[float]], skew: float = 0.0) -> None:
        self.id = node_id
        self.lines = lines
        self.openings: list[LogsOpen] = []
        self.silent = False
        self.watermarks = True
        self.hasty = False
        """Sends all it has at once instead of when its time comes."""
        self._loop = loop
        self._skew = skew

    def connect(self, connections: Connections) -> Link:
        link = Link(self.id, "10.0.0.1:1", Purpose.BULK, clock_difference=round(self._skew * SECOND))
        link.answer = self._answer
        connections.add(link)  # type: ignore[arg-type]
        self.link = link
        return link

    def moment(self, second: float) -> int:
        return EPOCH + round((second + self._skew) * SECOND)

    async def _answer(self, end: End, opening: Message) -> None:
        assert isinstance(opening, LogsOpen)
        self.openings.append(opening)
        due = sorted((second, task_id) for task_id in opening.task_ids for second in self.lines.get(task_id, []))
        try:
            for number, (second, task_id) in enumerate(due):
                if self.moment(second) < opening.since:
                    continue
                if not self.hasty:
                    await self._until(second, end)
                elif number % 100 == 0:
                    await end.send(LogWatermark(self.moment(second)))
                await end.send(LogRecord(task_id, self.moment(second), "stdout", f"{task_id}@{second}".encode()))
            if opening.follow:
                await self._until(10_000, end)
            await end.end()
        except RpcError:
            pass

    async def _until(self, second: float, end: End) -> None:
        """Wait, and say ten times a second that nothing older comes."""
        while self._loop.now < second or self.silent:
            await asyncio.sleep(0.1)
            if self.watermarks and not self.silent:
                await end.send(LogWatermark(self.moment(min(self._loop.now, second))))


Script = Callable[["Scene"], Awaitable[None]]


class Scene:
    """A store with tasks and a broker; read lines are `lines`, what is missing is `missing`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.store = Store.in_memory(clock=loop.clock)
        self.connections = Connections()
        self.broker = LogBroker(self.store, self.connections)
        self.hosts: list[Host] = []
        self.lines: list[str] = []
        self.arrived: list[float] = []
        self.missing: list[LogsMissing] = []

    async def task(self, task_id: str, node_id: str = "", service: str = "web") -> None:
        state = TaskState.RUNNING if node_id else TaskState.PENDING
        task = Task(id=task_id, service_id=service, slot=1, node_id=node_id, status=TaskStatus(state=state))
        await self.store.update(lambda tx: tx.create(task) and None)

    async def become(self, task_id: str, state: TaskState, node_id: str) -> None:
        """The task comes to a state on a node."""

        def change(tx: WriteTx) -> None:
            task = tx.get(Task, task_id)
            assert task is not None
            status = msgspec.structs.replace(task.status, state=state)
            tx.update(msgspec.structs.replace(task, node_id=node_id, status=status))

        await self.store.update(change)

    async def host(self, node_id: str, lines: dict[str, list[float]], **options: float) -> Host:
        for task_id in lines:
            await self.task(task_id, node_id)
        host = Host(node_id, self.loop, lines, **options)
        self.hosts.append(host)
        host.connect(self.connections)
        return host

    async def read(self, until: float | None = None, pause: float = 0.0, **options: int) -> float:
        """Read until the end, or for `until` seconds; the second at which reading ended."""
        try:
            async with asyncio.timeout(until):
                async with aclosing(self.broker.read(service_id="web", options=LogOptions(**options))) as lines:
                    async for line in lines:
                        if isinstance(line, LogsMissing):
                            self.missing.append(line)
                        else:
                            self.lines.append(line.data.decode())
                            self.arrived.append(self.loop.now)
                            await asyncio.sleep(pause)
        except TimeoutError:
            pass
        return self.loop.now

    @property
    def reasons(self) -> list[str]:
        return [missing.reason for missing in self.missing]


def play(script: Script) -> None:
    loop = VirtualLoop()

    async def main() -> None:
        scene = Scene(loop)
        await script(scene)
        for host in scene.hosts:
            for answering in host.link.answering:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    run_virtual(main(), loop)


def seconds(lines: list[str]) -> list[float]:
    return [float(line.partition("@")[2]) for line in lines]


def test_lines_of_many_nodes_come_in_one_order() -> None:
    async def script(scene: Scene) -> None:
        rng = random.Random(1)
        for number in range(5):
            tasks = {f"t{number}.{n}": sorted(rng.uniform(0, 3) for _ in range(50)) for n in range(4)}
            host = await scene.host(f"n{number}", tasks)
            host.hasty = number % 2 == 0
        await scene.read()
        assert len(scene.lines) == 1000
        assert seconds(scene.lines) == sorted(seconds(scene.lines))
        assert scene.missing == []

    play(script)


def test_followed_lines_come_soon() -> None:
    async def script(scene: Scene) -> None:
        await scene.host("n1", {"a": [1.0, 2.0, 5.0]})
        await scene.host("n2", {"b": [3.0]})
        await scene.host("n3", {"quiet": []})
        await scene.read(until=6, follow=True)
        assert scene.lines == ["a@1.0", "a@2.0", "b@3.0", "a@5.0"]
        delays = [arrived - second for arrived, second in zip(scene.arrived, seconds(scene.lines), strict=True)]
        assert max(delays) < 0.25

    play(script)


def test_nobody_waits_for_a_node_that_fell_silent() -> None:
    async def script(scene: Scene) -> None:
        await scene.host("n1", {"a": [1.0, 4.0, 8.0]})
        silent = await scene.host("n2", {"b": [2.0, 9.0]})

        async def fall_silent() -> None:
            await asyncio.sleep(3)
            silent.silent = True
            await asyncio.sleep(6.5)
            silent.silent = False

        falling = asyncio.ensure_future(fall_silent())
        await scene.read(until=12, follow=True)
        assert scene.lines == ["a@1.0", "b@2.0", "a@4.0", "a@8.0", "b@9.0"]
        assert scene.arrived[2] < 6, "two seconds of patience"
        assert scene.arrived[3] < 8.6, "and none once it is known to be silent"
        await falling

    play(script)


def test_a_silent_node_is_given_up_when_nobody_follows() -> None:
    async def script(scene: Scene) -> None:
        await scene.host("n1", {"a": [0.5]})
        silent = await scene.host("n2", {"b": [0.5]})
        silent.silent = True
        ended = await scene.read()
        assert scene.lines == ["a@0.5"]
        assert scene.reasons == ["node n2 sent nothing for 10 seconds"]
        assert scene.missing[0].task_id == "b"
        assert ended < GIVE_UP + 2

    play(script)


def test_what_is_missing_is_said_at_the_end() -> None:
    async def script(scene: Scene) -> None:
        await scene.host("n1", {"a": [0.5]})
        await scene.task("lost", "gone")
        await scene.task("pending")
        ended = await scene.read()
        assert scene.lines == ["a@0.5"]
        assert sorted(scene.reasons) == ["node gone is not available", "task pending has not been scheduled"]
        assert ended < 4

    play(script)


def test_a_node_that_is_lost_while_it_is_read() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5, 3.0]})
        scene.loop.call_later(1.0, host.link.break_off, "reset")
        await scene.read()
        assert scene.lines == ["a@0.5"]
        assert scene.reasons == ["node n1 disconnected unexpectedly"]

    play(script)


def test_a_follower_reads_on_when_the_node_is_back_and_gets_no_line_twice() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5, 1.0, 2.0, 5.0, 6.0]})
        scene.loop.call_later(3.0, host.link.break_off, "reset")
        scene.loop.call_later(4.0, host.connect, scene.connections)
        await scene.read(until=8, follow=True)
        assert scene.lines == ["a@0.5", "a@1.0", "a@2.0", "a@5.0", "a@6.0"]
        assert host.openings[1].since == host.moment(2.0)

    play(script)


def test_a_follower_gets_tasks_that_come_later() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5]})
        host.lines["new"] = [2.0, 3.0]
        await scene.task("other", "n1", service="another")

        async def come() -> None:
            await asyncio.sleep(1.5)
            await scene.task("new")
            for state in (TaskState.ASSIGNED, TaskState.ACCEPTED):
                assert len(host.openings) == 1, "a node that has not heard of the task yet could only say so"
                await scene.become("new", state, node_id="n1")
                await asyncio.sleep(0.1)
            assert len(host.openings) == 2

        coming = asyncio.ensure_future(come())
        await scene.read(until=5, follow=True, tail=1)
        assert scene.lines == ["a@0.5", "new@2.0", "new@3.0"]
        assert [opening.tail for opening in host.openings] == [1, -1]
        await coming

    play(script)


def test_until_ends_a_reading() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5, 1.0, 2.0]})
        ended = await _read_until(scene, host.moment(1.5))
        assert scene.lines == ["a@0.5", "a@1.0"]
        assert ended < 2

    play(script)


async def _read_until(scene: Scene, moment: int) -> float:
    async with aclosing(scene.broker.read(service_id="web", options=LogOptions(follow=True, until=moment))) as lines:
        async for line in lines:
            assert isinstance(line, LogRecord)
            scene.lines.append(line.data.decode())
    return scene.loop.now


def test_a_clock_that_is_off_does_not_disturb_the_order() -> None:
    async def script(scene: Scene) -> None:
        await scene.host("n1", {"a": [1.0, 3.0]})
        await scene.host("n2", {"b": [2.0, 4.0]}, skew=-30.0)
        await scene.read(until=6, follow=True)
        assert scene.lines == ["a@1.0", "b@2.0", "a@3.0", "b@4.0"]
        assert max(scene.arrived) < 4.5

    play(script)


def test_a_slow_reader_stops_the_nodes_instead_of_filling_memory() -> None:
    async def script(scene: Scene) -> None:
        lines = [0.001 * n for n in range(3 * ROOM)]
        fast = await scene.host("n1", {"a": lines})
        fast.hasty = True
        slow = await scene.host("n2", {"b": [1.0]})
        slow.silent = True
        reading = asyncio.ensure_future(scene.read(until=1.5))
        await asyncio.sleep(1.0)
        unread = len(fast.link._ends[1]._arrived)
        await reading
        assert unread > ROOM, "what has no room stays with the node"

    play(script)


def test_a_refusal_of_the_node_is_passed_on() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5]})

        async def refuse(end: End, opening: Message) -> None:
            await end.send(LogRecord("a", host.moment(0.5), "stdout", b"a@0.5"))
            await end.fail("task a: its log file is gone")

        host.link.answer = refuse
        await scene.read()
        assert scene.lines == ["a@0.5"]
        assert scene.reasons == ["node n1: task a: its log file is gone"]

    play(script)


def test_closing_a_reader_tells_the_node() -> None:
    async def script(scene: Scene) -> None:
        host = await scene.host("n1", {"a": [0.5, 100.0]})
        await scene.read(until=2, follow=True)
        await asyncio.sleep(0.2)
        assert host.link.answering[0].done()

    play(script)

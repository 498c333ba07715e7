"""Sessions in virtual time: what goes over the stream, finding a manager again, and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from worker_fakes import NODE, Container, FakeExecutor, FakeHost, FakeStream, VirtualLoop, make_task, run_virtual

from agent.api_types.common import Resources
from agent.api_types.node import Node, NodeDescription, NodeRole
from agent.api_types.task import TaskState
from agent.api_types.times import SECOND
from agent.rpc.errors import Removed, RpcError, StreamEnded, StreamFailed, Unreachable
from agent.rpc.messages import (
    Assignments,
    Described,
    Heartbeat,
    IngressTable,
    Leaving,
    ManagerAddress,
    Message,
    NodeUpdate,
    SessionEnd,
    SessionOpen,
    SessionReady,
    StatusReport,
)
from agent.rpc.peer import Purpose
from agent.worker.interface import TemporaryFailure
from agent.worker.session import SessionKeeper, SessionRefused, Surface
from agent.worker.worker import Worker


class FakePeer:
    def __init__(self, address: str) -> None:
        self.address = self.node_id = address

    def __str__(self) -> str:
        return f"manager at {self.address}"


class FakeConnection:
    """A connection to a `FakeManager`."""

    def __init__(self, manager: FakeManager, purpose: Purpose, handlers: Mapping[str, object]) -> None:
        self.manager = manager
        self.peer = FakePeer(manager.address)
        self.purpose = purpose
        self.handlers = handlers
        self.streams: list[FakeStream] = []
        self.ended = asyncio.get_running_loop().create_future()

    async def open(self, method: str, opening: Message) -> FakeStream:
        assert method == "session"
        ours, theirs = FakeStream.pair()
        self.streams.append(ours)
        self.manager.greet(theirs, opening)
        return ours

    def close(self, reason: str) -> None:
        if not self.ended.done():
            self.manager.open_connections.discard(self)
            self.ended.set_result(reason)
            for stream in self.streams:
                stream.break_off(reason)

    def give_up_after(self, seconds: float) -> None:
        self.patience = seconds

    @property
    def closed(self) -> bool:
        return self.ended.done()

    async def wait_closed(self) -> str:
        return await asyncio.shield(self.ended)

    async def __aenter__(self) -> FakeConnection:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close("done")


class FakeManager:
    """The manager's side, played by the test. `mode` is what becomes of an attempt:

    away (refused by its host), cut (nothing arrives; what is sent is sent again, as TCP has it), frozen (its host takes the
    connection, it says nothing), mute (it takes the session and says nothing), accept, or what it answers to a session:
    follower (`answer`), removed. A shut one tells a removed node so in its handshake.
    """

    def __init__(self, address: str, *, period: float = 1.0, mode: str = "accept") -> None:
        self.answer = SessionEnd("this manager does not lead the cluster")
        self.address = address
        self.period = period
        self.mode = mode
        self.dials: list[float] = []
        self.dial_time = 0.0
        self.sessions: asyncio.Queue[FakeSession] = asyncio.Queue()
        self.opened = 0
        self.open_connections: set[FakeConnection] = set()
        self.bulk: asyncio.Queue[FakeConnection] = asyncio.Queue()

    async def dial(self, purpose: Purpose, handlers: Mapping[str, object]) -> FakeConnection:
        loop = asyncio.get_running_loop()
        if purpose is Purpose.CONTROL:
            self.dials.append(loop.time())
        while self.mode == "cut":
            await asyncio.sleep(0.4)
        if self.mode == "frozen":
            await loop.create_future()
        await asyncio.sleep(self.dial_time)
        if self.mode == "shut":
            raise Removed(f"{self.address} refused the connection: the node was removed", by_peer=True)
        if self.mode == "away":
            raise Unreachable(f"{self.address}: connection refused")
        connection = FakeConnection(self, purpose, handlers)
        self.open_connections.add(connection)
        if purpose is Purpose.BULK:
            self.bulk.put_nowait(connection)
        return connection

    def greet(self, stream: FakeStream, opening: Message) -> None:
        assert isinstance(opening, SessionOpen)
        self.opened += 1
        if self.mode == "accept":
            self.sessions.put_nowait(FakeSession(self, stream, opening))
        elif self.mode == "follower":
            stream.put(self.answer)
        elif self.mode == "removed":
            stream.put(SessionEnd("node is not part of this cluster", removed=True))


class FakeSession:
    """A session as the manager sees it; heartbeats are answered unless the manager's mode is frozen."""

    def __init__(self, manager: FakeManager, stream: FakeStream, opening: SessionOpen) -> None:
        self.manager = manager
        self.stream = stream
        self.opening = opening
        self.beats: list[float] = []
        self._said: asyncio.Queue[Message | RpcError] = asyncio.Queue()
        self._hearing = asyncio.create_task(self._hear())

    async def ready(self, *managers: str) -> None:
        addresses = [ManagerAddress(f"m{n}", address) for n, address in enumerate(managers)]
        await self.stream.send(SessionReady("s", int(self.manager.period * SECOND), addresses, Node(id=NODE), "c"))

    async def _hear(self) -> None:
        while True:
            try:
                message = await self.stream.receive()
                if isinstance(message, Heartbeat):
                    self.beats.append(asyncio.get_running_loop().time())
                    if self.manager.mode != "frozen":
                        self.stream.put(Heartbeat())
            except RpcError as error:
                self._said.put_nowait(error)
                return
            self._said.put_nowait(message)

    async def next(self, kind: type[Message] | None = None) -> Message:
        """The next message that is no heartbeat (unless heartbeats are asked for)."""
        while True:
            message = await self._said.get()
            if isinstance(message, RpcError):
                raise message
            if isinstance(message, kind) if kind is not None else not isinstance(message, Heartbeat):
                return message

    async def until_state(self, task_id: str, state: TaskState) -> None:
        while True:
            message = await self.next(StatusReport)
            assert isinstance(message, StatusReport)
            if any(report.task_id == task_id and report.status.state is state for report in message.reports):
                return


class Agent:
    """A worker and its keeper."""

    def __init__(self, worker: Worker, keeper: SessionKeeper, keeping: asyncio.Task[None]) -> None:
        self.worker = worker
        self.keeper = keeper
        self.keeping = keeping


@contextlib.asynccontextmanager
async def agent(
    folder: Path,
    loop: VirtualLoop,
    *managers: FakeManager,
    host: FakeHost | None = None,
    executor: FakeExecutor | None = None,
    describe: Callable[[], object] | None = None,
    surface: Surface | None = None,
    seeds: tuple[str, ...] | None = None,
) -> AsyncIterator[Agent]:
    by_address = {manager.address: manager for manager in managers}

    async def dial(address: str, purpose: Purpose, handlers: Mapping[str, object]) -> FakeConnection:
        if address not in by_address:
            raise Unreachable(f"{address}: no such host")
        return await by_address[address].dial(purpose, handlers)

    worker = Worker(executor or FakeExecutor(host or FakeHost()), state_dir=folder, clock=loop.clock)
    keeper = SessionKeeper(
        worker,
        dial,
        describe or worker.executor.describe,
        "10.0.0.9:2377",
        tuple(by_address) if seeds is None else seeds,
        surface or Surface(),
        random=random.Random(1),
    )
    running = asyncio.create_task(worker.run())
    keeping = asyncio.create_task(keeper.run())
    try:
        yield Agent(worker, keeper, keeping)
    finally:
        for task in (keeping, running):
            task.cancel()
            await asyncio.wait({task})
        for manager in managers:
            assert not manager.open_connections


def test_a_session_reports_and_beats_at_the_managers_pace(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, host = FakeManager("m:1", period=0.5), FakeHost(delay=lambda: 0.1)
        async with agent(tmp_path, loop, manager, host=host):
            session = await manager.sessions.get()
            assert session.opening.address == "10.0.0.9:2377"
            assert session.opening.description.hostname == "host"
            await session.ready("m:1")
            await session.stream.send(Assignments(1, True, tasks=[make_task("a")]))
            await session.until_state("a", TaskState.RUNNING)
            for _ in range(5):
                await session.next(Heartbeat)
            pauses = [b - a for a, b in itertools.pairwise(session.beats)]
            assert pauses == pytest.approx([0.5] * len(pauses))
            bulk = await manager.bulk.get()
            assert set(bulk.handlers) == {"logs", "relay"}

    run_virtual(main)


def test_published_ports_and_readiness_are_passed_on(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        tables: asyncio.Queue[IngressTable] = asyncio.Queue()
        told: list[str] = []

        async def on_ingress(table: IngressTable) -> None:
            tables.put_nowait(table)

        surface = Surface(lambda ready: told.append(ready.session_id), on_ingress, told.append)
        async with agent(tmp_path, loop, manager, surface=surface):
            session = await manager.sessions.get()
            await session.ready()
            await session.stream.send(IngressTable([]))
            assert await tables.get() == IngressTable([])
            session.stream.break_off("cut")
            await manager.sessions.get()
            assert told == ["s", "cut"]

    run_virtual(main)


def test_all_managers_are_tried_at_once_and_the_one_that_leads_is_taken(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        managers = [
            FakeManager("frozen:1", mode="frozen"),
            FakeManager("away:1", mode="away"),
            FakeManager("follows:1", mode="follower"),
            FakeManager("leads:1"),
        ]
        begun = loop.now
        async with agent(tmp_path, loop, *managers) as one:
            session = await managers[3].sessions.get()
            assert loop.now == begun
            await session.ready("leads:1", "later:1")
            await session.next(Heartbeat)
            assert one.keeper.session is not None
            assert one.worker.managers == [ManagerAddress("m0", "leads:1"), ManagerAddress("m1", "later:1")]
            assert set(one.keeper.addresses()) == {"leads:1", "later:1", "frozen:1", "away:1", "follows:1"}

    run_virtual(main)


def test_managers_are_remembered_over_a_restart(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("new:1")
        old = FakeManager("old:1")
        async with agent(tmp_path, loop, old):
            session = await old.sessions.get()
            await session.ready("new:1")
            await session.next(Heartbeat)
        async with agent(tmp_path, loop, manager, seeds=()):
            await (await manager.sessions.get()).ready()

    run_virtual(main)


def test_a_node_that_was_cut_off_stops_old_copies_within_a_second_of_coming_back(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, host = FakeManager("m:1"), FakeHost(delay=lambda: 0.01)
        manager.dial_time = 0.2
        async with agent(tmp_path, loop, manager, host=host):
            session = await manager.sessions.get()
            await session.ready("m:1")
            await session.stream.send(Assignments(1, True, tasks=[make_task("a"), make_task("b")]))
            await session.until_state("b", TaskState.RUNNING)
            for mode, cut in (("cut", 17.3), ("away", 21.9), ("cut", 0.7)):
                manager.mode = mode
                session.stream.break_off("cut")
                await asyncio.sleep(cut)
                manager.mode, back = "accept", loop.now
                session = await manager.sessions.get()
                await session.ready("m:1")
                # The newest statuses come again, unasked.
                await session.until_state("b", TaskState.RUNNING)
                assert loop.now - back < 0.8
            await session.stream.send(Assignments(9, True, tasks=[make_task("b")]))
            while "a" in host.containers:
                await asyncio.sleep(0.01)
            assert loop.now - back < 1.0
            assert host.containers == {"b": Container.RUNNING}
            assert host.started == ["a", "b"]

    run_virtual(main)


def test_slow_handshakes_are_waited_for_one_at_a_time(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        manager.dial_time = 4.0
        async with agent(tmp_path, loop, manager):
            session = await manager.sessions.get()
            assert len(manager.dials) == 1
            await session.ready("m:1")
            await session.next(Heartbeat)
            # The bulk connection does not add to what is slow already.
            assert manager.bulk.empty()
            await manager.bulk.get()
            assert manager.opened == 1

    run_virtual(main)


def test_a_manager_that_takes_ever_longer_is_given_ever_more_time(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        manager.dial_time = 18.0
        async with agent(tmp_path, loop, manager):
            await manager.sessions.get()
            pauses = [b - a for a, b in itertools.pairwise(manager.dials)]
            assert len(pauses) == 2
            assert 5 < pauses[0] < 6
            assert 10 < pauses[1] < 11

    run_virtual(main)


def test_a_manager_that_is_away_is_tried_at_a_steady_pace(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1", mode="away")
        async with agent(tmp_path, loop, manager):
            await asyncio.sleep(60)
            pauses = [b - a for a, b in itertools.pairwise(manager.dials)]
            assert min(pauses) >= 0.25
            assert max(pauses) <= 0.5
            assert len(set(pauses)) > 10

    run_virtual(main)


def test_a_manager_that_falls_silent_is_left_for_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: VirtualLoop) -> None:
        old, new = FakeManager("old:1"), FakeManager("new:1", mode="follower")
        async with agent(tmp_path, loop, old, new):
            await (await old.sessions.get()).ready("old:1", "new:1")
            await asyncio.sleep(10.3)
            old.mode, new.mode = "frozen", "accept"
            frozen = loop.now
            await new.sessions.get()
            assert 2.0 <= loop.now - frozen <= 3.6

    run_virtual(main)
    assert "said nothing for 3 heartbeat periods of 1 s" in caplog.text


def test_a_manager_that_takes_the_session_and_says_nothing_is_left(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        mute, new = FakeManager("mute:1", mode="frozen"), FakeManager("new:1", mode="follower")
        mute.mode = "accept"
        async with agent(tmp_path, loop, mute, new):
            session = await mute.sessions.get()
            # Nothing at all comes: not even the answer to the opening.
            new.mode = "accept"
            other = await new.sessions.get()
            assert loop.now < 1_002
            await other.ready()
            await other.next(Heartbeat)
            with pytest.raises(RpcError):
                await session.next()

    run_virtual(main)


def test_a_node_that_was_frozen_itself_blames_no_manager(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        async with agent(tmp_path, loop, manager):
            session = await manager.sessions.get()
            await session.ready()
            for _ in range(5):
                await session.next(Heartbeat)
                # All timers are long overdue at once, and what arrived meanwhile is read after them.
                loop.now += 10
            await asyncio.sleep(5)
            assert manager.opened == 1

    run_virtual(main)


def test_the_leader_that_a_manager_names_is_asked_at_once(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        follower, leader = FakeManager("follows:1", mode="follower"), FakeManager("leads:1")
        follower.answer = SessionEnd("elsewhere", leader=ManagerAddress("m2", "leads:1"))
        begun = loop.now
        async with agent(tmp_path / "one", loop, follower, leader, seeds=("follows:1",)):
            session = await leader.sessions.get()
            assert loop.now == begun
            await session.ready("leads:1", "follows:1")
            await session.next(Heartbeat)
            await asyncio.sleep(3)
            # So it is when a leader hands over.
            leader.mode, follower.mode, handed_over = "follower", "accept", loop.now
            await session.stream.send(SessionEnd("I lead no more", leader=ManagerAddress("m1", "follows:1")))
            await follower.sessions.get()
            assert loop.now - handed_over < 0.1

    run_virtual(main)


def test_managers_that_name_each_other_are_not_asked_without_pause(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        one, other = FakeManager("one:1", mode="follower"), FakeManager("other:1", mode="follower")
        one.answer = SessionEnd("elsewhere", leader=ManagerAddress("m2", "other:1"))
        other.answer = SessionEnd("elsewhere", leader=ManagerAddress("m1", "one:1"))
        async with agent(tmp_path, loop, one, other):
            await asyncio.sleep(10)
            assert one.opened + other.opened < 300
            assert len(one.dials) == len(other.dials) == 1

    run_virtual(main)


def test_managers_without_a_leader_are_asked_again_on_one_connection(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        managers = [FakeManager(f"m{number}:1", mode="follower") for number in range(3)]
        async with agent(tmp_path, loop, *managers):
            await asyncio.sleep(60)
            for manager in managers:
                assert len(manager.dials) == 1
                assert 60 <= manager.opened <= 130
            managers[1].mode, elected = "accept", loop.now
            session = await managers[1].sessions.get()
            assert loop.now - elected <= 1.0
            assert len(managers[1].dials) == 1
            await session.ready("m1:1")
            await session.next(Heartbeat)
            assert not managers[0].open_connections
            assert not managers[2].open_connections

    run_virtual(main)


def test_a_connection_that_was_kept_and_is_lost_is_made_again(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1", mode="follower")
        async with agent(tmp_path, loop, manager):
            for dials in (2, 3, 4):
                await asyncio.sleep(1)
                next(iter(manager.open_connections)).close("lost")
                await asyncio.sleep(1.5)
                assert len(manager.dials) == dials
            manager.mode = "accept"
            await manager.sessions.get()

    run_virtual(main)


def test_a_leader_that_changes_every_second_is_followed(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        managers = [FakeManager(f"m{number}:1", mode="follower") for number in range(3)]
        took = []
        async with agent(tmp_path, loop, *managers):
            session = None
            for term in range(60):
                leader = managers[term % 3]
                leader.mode = "accept"
                for manager in managers:
                    manager.answer = SessionEnd("elsewhere", leader=ManagerAddress("m", leader.address))
                if session is not None:
                    session.stream.put(leader.answer)
                elected = loop.now
                session = await leader.sessions.get()
                await session.ready("m0:1", "m1:1", "m2:1")
                took.append(loop.now - elected)
                await asyncio.sleep(elected + 1 - loop.now)
                leader.mode = "follower"
            assert max(took[1:]) < 1.0
            assert sum(took) / len(took) < 0.5
            assert sum(len(manager.dials) for manager in managers) < 4 * 60

    run_virtual(main)


def test_a_manager_that_takes_sessions_only_to_end_them_is_left_in_peace(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")

        async def end_all() -> None:
            while True:
                session = await manager.sessions.get()
                await session.ready()
                session.stream.put(SessionEnd("not you"))

        ending = asyncio.create_task(end_all())
        async with agent(tmp_path, loop, manager):
            await asyncio.sleep(60)
            assert 25 < manager.opened < 70
        ending.cancel()
        await asyncio.wait({ending})

    run_virtual(main)


def test_what_a_node_is_to_know_of_its_cluster_is_passed_on(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        told: asyncio.Queue[NodeUpdate] = asyncio.Queue()
        async with agent(tmp_path, loop, manager, surface=Surface(on_update=told.put_nowait)) as one:
            session = await manager.sessions.get()
            await session.ready("m:1")
            update = NodeUpdate(NodeRole.MANAGER, [ManagerAddress("m2", "later:1")], b"roots", "issuer")
            await session.stream.send(update)
            assert await told.get() == update
            assert one.worker.managers == update.managers

    run_virtual(main)


def test_another_certificate_moves_the_session_before_the_old_one_ends(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, host = FakeManager("m:1"), FakeHost()
        lost: list[str] = []
        async with agent(tmp_path, loop, manager, host=host, surface=Surface(on_lost=lost.append)) as one:
            old = await manager.sessions.get()
            await old.ready("m:1")
            await old.stream.send(Assignments(1, True, tasks=[make_task("a")]))
            await old.until_state("a", TaskState.RUNNING)
            one.keeper.dial_anew()
            new = await manager.sessions.get()
            assert not old.stream.failed
            await new.ready("m:1")
            await new.until_state("a", TaskState.RUNNING)
            assert old.stream.failed
            assert lost == []
            assert host.started == ["a"]
            # A manager that is away then is no reason to let go of what stands.
            manager.mode = "away"
            one.keeper.dial_anew()
            await asyncio.sleep(3)
            assert not new.stream.failed
            manager.mode = "accept"
            await (await manager.sessions.get()).ready("m:1")

    run_virtual(main)


def test_a_certificate_that_changes_during_the_search_is_the_one_that_counts(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1", mode="follower")
        manager.dial_time = 1.0
        async with agent(tmp_path, loop, manager) as one:
            await asyncio.sleep(0.5)
            one.keeper.dial_anew()
            await asyncio.sleep(1.6)
            assert len(manager.dials) == 2
            manager.mode = "accept"
            session = await manager.sessions.get()
            await session.ready()
            await asyncio.sleep(5)
            assert manager.opened == 2

    run_virtual(main)


def test_only_managers_that_are_reached_make_a_node_its_own_master(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        one, other = FakeManager("one:1", mode="follower"), FakeManager("other:1", mode="away")
        async with agent(tmp_path, loop, one, other) as node:
            alone = []

            async def look(seconds: float) -> bool:
                await asyncio.sleep(seconds)
                alone.append(node.worker._leaderless)
                return node.worker._leaderless

            assert not await look(2)
            one.answer = SessionEnd("no quorum", leaderless=True)
            assert await look(1.1)
            assert await look(60)
            # Another one knows of a leader: the first is cut off from it.
            other.mode = "follower"
            other.answer = SessionEnd("elsewhere", leader=ManagerAddress("m3", "gone:1"))
            assert not await look(1.1)
            other.answer = SessionEnd("no quorum", leaderless=True)
            assert await look(1.1)
            # Nobody is reached any more: the node may be the one that is cut off.
            for manager in (one, other):
                manager.mode = "away"
                for connection in list(manager.open_connections):
                    connection.close("lost")
            assert not await look(1.1)
            one.mode = "follower"
            assert await look(1.1)
            # One that falls silent counts for a while only.
            one.mode = "hush"
            assert not await look(3.1)
            one.mode = "accept"
            session = await one.sessions.get()
            await session.ready("one:1")
            await session.next(Heartbeat)
            one.mode = "follower"
            session.stream.put(SessionEnd("no quorum any more", leaderless=True))
            assert await look(0.01)

    run_virtual(main)


def test_a_removed_node_ends_and_says_so(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1", mode="removed")
        async with agent(tmp_path, loop, manager) as one:
            await asyncio.wait({one.keeping})
            error = one.keeping.exception()
            assert isinstance(error, SessionRefused)
            assert error.removed
        manager = FakeManager("m:1")
        async with agent(tmp_path, loop, manager) as one:
            session = await manager.sessions.get()
            await session.ready()
            await session.next(Heartbeat)
            await session.stream.send(SessionEnd("the node was removed", removed=True))
            await asyncio.wait({one.keeping})
            assert str(one.keeping.exception()) == "the node was removed"
        manager = FakeManager("m:1")
        async with agent(tmp_path, loop, FakeManager("away:1", mode="away"), manager) as one:
            await (await manager.sessions.get()).ready()
            manager.mode = "shut"
            one.keeper.dial_anew()
            await asyncio.wait({one.keeping})
            error = one.keeping.exception()
            assert isinstance(error, SessionRefused)
            assert error.removed

    run_virtual(main)


def test_a_session_that_the_manager_ends_is_opened_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        async with agent(tmp_path, loop, manager):
            session = await manager.sessions.get()
            await session.ready()
            await session.stream.send(SessionEnd("another manager leads now"))
            await manager.sessions.get()

    run_virtual(main)
    assert "another manager leads now" in caplog.text


def test_leaving_is_the_last_word_and_no_session_follows(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, host = FakeManager("m:1", period=0.2), FakeHost()
        async with agent(tmp_path, loop, manager, host=host) as one:
            session = await manager.sessions.get()
            await session.ready()
            await session.stream.send(Assignments(1, True, tasks=[make_task("a")]))
            await session.until_state("a", TaskState.RUNNING)
            await one.keeper.leave()
            assert await session.next() == Leaving(60 * SECOND)
            with pytest.raises((StreamEnded, StreamFailed)):
                await session.next(Heartbeat)
            session.stream.break_off("the manager saw the end")
            await asyncio.sleep(30)
            assert manager.opened == 1
            assert not one.keeping.done()
        assert host.containers == {"a": Container.RUNNING}

    run_virtual(main)


def test_a_leader_that_is_found_after_the_word_of_leave_hears_it_too(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1", mode="follower")
        async with agent(tmp_path, loop, manager) as one:
            await asyncio.sleep(3)
            await one.keeper.leave()
            manager.mode = "accept"
            session = await manager.sessions.get()
            await session.ready()
            assert await session.next() == Leaving(60 * SECOND)
            await asyncio.sleep(30)
            assert manager.opened < 15
            assert len(manager.dials) == 1

    run_virtual(main)


def test_statuses_that_were_not_taken_are_sent_in_the_next_session(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, host = FakeManager("m:1"), FakeHost()
        async with agent(tmp_path, loop, manager, host=host):
            session = await manager.sessions.get()
            await session.ready()
            await session.stream.send(Assignments(1, True, tasks=[make_task("a"), make_task("b")]))
            await session.until_state("b", TaskState.RUNNING)
            manager.mode = "away"
            session.stream.break_off("cut")
            await asyncio.sleep(1)
            host.end("a", 3)
            await asyncio.sleep(1)
            manager.mode = "accept"
            session = await manager.sessions.get()
            await session.ready()
            message = await session.next(StatusReport)
            assert isinstance(message, StatusReport)
            assert {report.task_id: report.status.state for report in message.reports} == {
                "a": TaskState.FAILED,
                "b": TaskState.RUNNING,
            }

    run_virtual(main)


class ChangingExecutor(FakeExecutor):
    """Describes itself differently each time it is told to."""

    def __init__(self) -> None:
        super().__init__(FakeHost())
        self.news = asyncio.Event()
        self.memory = 1
        self.away = False

    async def describe(self) -> NodeDescription:
        if self.away:
            raise TemporaryFailure("the engine is away")
        return NodeDescription(hostname="host", resources=Resources(memory_bytes=self.memory))

    async def description_changed(self) -> None:
        await self.news.wait()
        self.news.clear()


def test_a_node_that_changes_describes_itself_again(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, executor = FakeManager("m:1"), ChangingExecutor()
        async with agent(tmp_path, loop, manager, executor=executor):
            session = await manager.sessions.get()
            await session.ready()
            executor.news.set()
            await asyncio.sleep(5)
            executor.memory = 2
            executor.news.set()
            message = await session.next(Described)
            assert isinstance(message, Described)
            assert message.description.resources.memory_bytes == 2
            # A session opens with the last known description while the engine is away.
            executor.away = True
            session.stream.break_off("cut")
            session = await manager.sessions.get()
            assert session.opening.description.resources.memory_bytes == 2

    run_virtual(main)


def test_a_node_whose_engine_was_never_there_waits_for_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager, executor = FakeManager("m:1"), ChangingExecutor()
        executor.away = True
        async with agent(tmp_path, loop, manager, executor=executor):
            await asyncio.sleep(5)
            assert manager.opened == 0
            executor.away = False
            await manager.sessions.get()

    run_virtual(main)
    assert "the engine is away" in caplog.text


def test_a_bulk_connection_that_is_lost_alone_comes_back(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        manager = FakeManager("m:1")
        async with agent(tmp_path, loop, manager):
            session = await manager.sessions.get()
            await session.ready()
            for _ in range(3):
                bulk = await manager.bulk.get()
                bulk.close("lost")
            await session.next(Heartbeat)
            assert manager.opened == 1

    run_virtual(main)


def test_an_agent_stopped_at_any_moment_leaves_no_connection(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        for moment in range(40):
            manager = FakeManager("m:1")
            manager.dial_time = 0.3

            async def serve(manager: FakeManager = manager) -> None:
                while True:
                    session = await manager.sessions.get()
                    await asyncio.sleep(0.2)
                    with contextlib.suppress(RpcError):
                        await session.ready()
                        await asyncio.sleep(0.3)
                    session.stream.break_off("cut")

            serving = asyncio.create_task(serve())
            async with agent(tmp_path / str(moment), loop, manager):
                await asyncio.sleep(moment * 0.05)
            serving.cancel()
            await asyncio.wait({serving})

    run_virtual(main)


def test_cancelled_at_any_turn_of_the_loop_it_ends_and_leaves_no_connection(tmp_path: Path) -> None:
    """The story of a node in eight seconds, cut off after ever more turns of the loop."""

    async def story(managers: list[FakeManager], keeper: SessionKeeper) -> None:
        one, other = managers
        session = await one.sessions.get()
        await session.ready("one:1", "other:1")
        keeper.dial_anew()
        session = await one.sessions.get()
        await session.ready("one:1", "other:1")
        await session.next(Heartbeat)
        one.mode = other.mode = "follower"
        one.answer = SessionEnd("no quorum", leaderless=True)
        session.stream.put(SessionEnd("I lead no more", leader=ManagerAddress("m", "other:1")))
        await asyncio.sleep(1)
        other.mode = "accept"
        one.answer = SessionEnd("elsewhere", leader=ManagerAddress("m", "other:1"))
        session = await other.sessions.get()
        await session.ready("one:1", "other:1")
        await session.next(Heartbeat)
        other.mode = "frozen"
        one.mode = "accept"
        session = await one.sessions.get()
        await session.ready("one:1", "other:1")
        await session.next(Heartbeat)
        session.stream.break_off("cut")

    turns = 0
    done = False
    while not done:
        turns += 1

        async def main(loop: VirtualLoop, turns: int = turns) -> None:
            nonlocal done
            managers = [FakeManager("one:1"), FakeManager("other:1", mode="follower")]
            for manager in managers:
                manager.dial_time = 0.05
            async with agent(tmp_path / str(turns), loop, *managers) as one:
                telling = asyncio.create_task(story(managers, one.keeper))
                left, turn = turns, loop._run_once

                def counted() -> None:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        one.keeping.cancel()
                    turn()

                loop._run_once = counted  # type: ignore[method-assign]
                await asyncio.wait({telling, one.keeping}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done() and telling.exception() is not None:
                    # The manager's side saw the end first.
                    await asyncio.wait({one.keeping})
                done = telling.done() and telling.exception() is None
                telling.cancel()
                await asyncio.wait({telling})
                assert done or one.keeping.cancelled()
                assert not one.worker._leaderless or done

        run_virtual(main)
    assert turns > 100

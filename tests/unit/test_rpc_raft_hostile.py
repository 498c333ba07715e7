"""The group's transport against frozen, mute, mad, moved and dying members, and against being cancelled anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rpc_cluster import Heartbeat, TestCluster, record, until
from rpc_raft_member import QUICK, Driver, Manager, manager

from agent.api_types.node import NodeRole
from agent.rpc import raft_link as link_module
from agent.rpc.addresses import split_address
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import RpcError, StreamFailed
from agent.rpc.handover import Handover
from agent.rpc.listener import Listener
from agent.rpc.messages import Message, RaftBatch, RaftChunk, RaftOpen, RaftSnapshotOpen, RaftTaken
from agent.rpc.peer import Purpose
from agent.rpc.raft_link import MAX_QUEUED
from agent.rpc.stream import WINDOW


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


@asynccontextmanager
async def as_member(cluster: TestCluster, to: Manager, node_id: str = "m9") -> AsyncIterator[Connection]:
    """A connection for the group's messages, driven by the test."""
    identity = cluster.identity(node_id, NodeRole.MANAGER)
    async with await dial(to.address, identity, purpose=Purpose.RAFT) as connection:
        yield connection


@asynccontextmanager
async def ticking(one: Manager, to: Manager, address: str = "") -> AsyncIterator[None]:
    """A leader's heartbeats, every 20 ms."""

    async def tick() -> None:
        while True:
            one.transport.send("m2", address or to.address, [b"tick"])
            await asyncio.sleep(0.02)

    task = asyncio.run_coroutine_threadsafe(tick(), one.driver.loop)
    try:
        yield
    finally:
        task.cancel()


# -- hand-over between loops


async def test_what_came_before_the_hand_over_is_not_lost(cluster: TestCluster) -> None:
    """Frames that are read already, half a frame, and bytes still in the kernel."""
    async with manager(cluster, "m1") as one:
        held: asyncio.Queue[Handover] = asyncio.Queue()
        one.listener.on_raft = held.put_nowait
        for size in (10, 70_000, WINDOW // 2):
            async with as_member(cluster, one) as connection:
                stream = await connection.open("raft", RaftOpen())
                handover = await held.get()
                await stream.send(RaftBatch([b"a" * size, b"b"]))
                await stream.send(RaftBatch([b"c"], ask=True))
                one.transport.adopt(handover)
                await one.receiver.expect(b"a" * size, b"b", b"c")
                assert await stream.receive() == RaftTaken()


async def test_no_connection_waits_for_acknowledgements(cluster: TestCluster) -> None:
    """Dialled, accepted and handed over: a small message leaves at once."""
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        ends = [one.transport._links["m2"]._connection, *two.transport._hosted["m1"]]
        for end in ends:
            assert end is not None
            transport = end._channel._transport
            assert transport is not None
            assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_member_that_died_during_the_hand_over(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one:
        held: asyncio.Queue[Handover] = asyncio.Queue()
        one.listener.on_raft = held.put_nowait
        async with as_member(cluster, one) as connection:
            stream = await connection.open("raft", RaftOpen())
            handover = await held.get()
            await stream.send(RaftBatch([b"last words"]))
        one.transport.adopt(handover)
        await one.receiver.expect(b"last words")
        async with as_member(cluster, one) as connection:
            handover = await held.get()
            connection.abort("the power went")
            await connection.wait_closed()
            one.transport.adopt(handover)
        await until(lambda: not one.transport._hosted)


async def test_nobody_takes_a_connection_before_the_start_and_after_the_end(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await two.driver.run(two.transport.close())
        await one.send(two, b"x")
        assert await one.receiver.lost.get() == "m2"


async def test_a_busy_main_loop_delays_nothing(cluster: TestCluster) -> None:
    """Once connected, messages go back and forth while the main loop of both members stands still."""
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        await two.link_up(one)
        done = threading.Event()

        def bounce(here: Manager, there: Manager) -> None:
            def received(member: str, messages: Sequence[bytes]) -> None:
                for message in messages:
                    if message == b"0":
                        done.set()
                    else:
                        here.transport.send(member, there.address, [b"%d" % (int(message) - 1)])

            here.receiver.received = received  # type: ignore[method-assign]

        bounce(one, two)
        bounce(two, one)
        one.driver.loop.call_soon_threadsafe(one.transport.send, "m2", two.address, [b"200"])
        assert done.wait(10)


# -- members that do not answer


async def test_nobody_listens(cluster: TestCluster) -> None:
    """Every attempt is reported; they are made again and again, with pauses."""
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        async with Listener("127.0.0.1:0", lambda: two.identity, handlers={}) as gone:
            address = gone.address
        async with ticking(one, two, address):
            for _ in range(5):
                assert await one.receiver.lost.get() == "m2"
        await one.link_up(two)


async def test_another_node_answers_at_the_address(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m3") as three, manager(cluster, "m2") as two:
        await one.send(two, b"for m2 alone", address=three.address)
        assert await one.receiver.lost.get() == "m2"
        assert three.receiver.messages.empty()
        await one.send(two, b"found")
        await two.receiver.expect(b"found")


async def test_a_member_that_never_reads(cluster: TestCluster) -> None:
    """It is given up within the time for an answer, and what waits for it is bounded."""
    async with manager(cluster, "m1", patience=QUICK) as one, manager(cluster, "m2") as two:
        held: list[Handover] = []
        two.listener.on_raft = held.append
        await one.send(two, b"x")
        await until(lambda: bool(held))
        for _ in range(40):
            await one.send(two, b"y" * 1_000_000)
            link = one.transport._links["m2"]
            assert link._queued <= MAX_QUEUED
        assert await one.receiver.lost.get() == "m2"
        for handover in held:
            handover.close()
        held.clear()
        two.listener.on_raft = two.transport.adopt
        async with ticking(one, two):
            assert (await two.receiver.messages.get())[0] == "m1"
        for handover in held:
            handover.close()


async def test_a_member_whose_driver_stands_still(cluster: TestCluster) -> None:
    async with manager(cluster, "m1", patience=QUICK) as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        while not one.receiver.lost.empty():
            one.receiver.lost.get_nowait()
        go_on = threading.Event()
        two.driver.loop.call_soon_threadsafe(go_on.wait, 5)
        begin = asyncio.get_running_loop().time()
        async with ticking(one, two):
            assert await one.receiver.lost.get() == "m2"
            assert asyncio.get_running_loop().time() - begin < 10 * QUICK.answer
            go_on.set()
            assert (await two.receiver.messages.get())[1] == b"tick"


async def test_a_driver_that_stood_still_itself_blames_nobody(cluster: TestCluster) -> None:
    """The answer came while nobody here could read it."""
    patience = replace(QUICK, answer=0.8)
    async with manager(cluster, "m1", patience=patience) as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        await until(lambda: one.transport._links["m2"]._question is None)
        while not one.receiver.lost.empty():
            one.receiver.lost.get_nowait()

        def freeze() -> None:
            link = one.transport._links["m2"]
            link._ask_next = 0.0
            one.transport.send("m2", two.address, [b"asked"])
            assert link._question is not None
            # The message leaves, then nothing more happens here for longer than an answer may take.
            asyncio.get_running_loop().call_later(0.01, threading.Event().wait, 1.5 * patience.answer)

        await one.driver.call(freeze)
        await two.receiver.expect(b"asked")
        await until(lambda: one.transport._links["m2"]._question is None)
        assert one.receiver.lost.empty()
        assert one.transport._links["m2"]._stream is not None


_FROZEN = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agent.pki.identity import NodeIdentity
from agent.rpc.listener import Listener
from agent.rpc.raft_transport import RaftTransport

class Receiver:
    def received(self, member, messages): pass
    def unreachable(self, member): pass
    async def snapshot_chunk(self, member, chunk): pass

async def main():
    identity = NodeIdentity.load(Path(sys.argv[2]))
    transport = RaftTransport(lambda: identity)
    await transport.start(Receiver())
    async with Listener("127.0.0.1:0", lambda: identity, handlers={}, on_raft=transport.adopt) as listener:
        print(listener.address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await transport.close()

asyncio.run(main())
"""


async def test_a_frozen_process(cluster: TestCluster, tmp_path: Path) -> None:
    """Its kernel goes on acknowledging; only the answers stay away. Thawed, it is part of the group again."""
    cluster.identity("m2", NodeRole.MANAGER).save(tmp_path)
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", _FROZEN, str(root), str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    address = (await process.stdout.readline()).decode().strip()
    async with manager(cluster, "m1", patience=replace(QUICK, answer=0.5)) as one:
        link = None
        async with ticking(one, one, address):
            await until(lambda: "m2" in one.transport._links)
            link = one.transport._links["m2"]
            for _ in range(2):
                await until(lambda: link is not None and link._stream is not None)
                process.send_signal(signal.SIGSTOP)
                begin = asyncio.get_running_loop().time()
                while not one.receiver.lost.empty():
                    one.receiver.lost.get_nowait()
                assert await one.receiver.lost.get() == "m2"
                assert asyncio.get_running_loop().time() - begin < 1.5
                assert link._stream is None
                process.send_signal(signal.SIGCONT)
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_message_that_no_frame_can_carry(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It alone is lost, and said to be."""
    monkeypatch.setattr(link_module, "_LONGEST", 100_000)
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.send(two, b"before", b"x" * 100_001, b"after")
        await two.receiver.expect(b"before", b"after")
        assert await one.receiver.lost.get() == "m2"
        assert any("more than 100000 bytes" in message for message in caplog.messages)


async def test_a_host_without_file_descriptors(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cannot do now it tries again."""
    failures = 3

    async def dial_later(*arguments: Any, **options: Any) -> Connection:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await dial(*arguments, **options)

    monkeypatch.setattr("agent.rpc.raft_transport.dial", dial_later)
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two, ticking(one, two):
        for _ in range(3):
            assert await one.receiver.lost.get() == "m2"
        await two.receiver.expect(b"tick")


async def test_silence_is_no_fault(cluster: TestCluster) -> None:
    """A connection on which nothing is sent has nothing to answer; after a while it is closed."""
    async with manager(cluster, "m1", patience=replace(QUICK, idle=0.3)) as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        await until(lambda: not two.transport._hosted)
        await until(lambda: one.transport._links["m2"]._task is None)
        await one.link_up(two)


async def test_a_connection_is_kept_for_when_it_is_needed(cluster: TestCluster) -> None:
    """Made without a message, and a dead one is found and replaced without one."""
    async with manager(cluster, "m1", patience=QUICK) as one, manager(cluster, "m2") as two:
        held: list[Handover] = []
        two.listener.on_raft = held.append
        await one.send(two)
        await until(lambda: bool(held))
        # Nobody reads on that one.
        two.listener.on_raft = two.transport.adopt
        link = one.transport._links["m2"]
        await until(lambda: link._stream is not None)
        await one.send(two)
        assert await one.receiver.lost.get() == "m2"
        await until(lambda: "m1" in two.transport._speaking)
        await one.send(two)
        await until(lambda: link._question is None)
        assert two.receiver.messages.empty()
        for handover in held:
            handover.close()


# -- changes


async def test_another_address(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        async with Listener("127.0.0.1:0", lambda: two.identity, handlers={}, on_raft=two.transport.adopt) as moved:
            for turn in range(10):
                await one.send(two, b"%d" % turn, address=moved.address if turn % 2 else two.address)
                await two.receiver.expect(b"%d" % turn)
            await until(lambda: len(two.transport._hosted["m1"]) == 1)


async def test_another_certificate(cluster: TestCluster) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        (before,) = two.transport._hosted["m1"]
        one.identity = cluster.identity("m1", NodeRole.MANAGER)
        await one.link_up(two)
        await before.wait_closed()
        assert two.transport._speaking["m1"]


async def test_a_member_started_anew_replaces_its_former_self(cluster: TestCluster) -> None:
    """Of two connections the newer counts, and nothing of the older one comes after it."""
    async with manager(cluster, "m2") as two, as_member(cluster, two, "m1") as old:
        first = await old.open("raft", RaftOpen())
        await first.send(RaftBatch([b"old"], ask=True))
        await first.receive()
        async with as_member(cluster, two, "m1") as new:
            second = await new.open("raft", RaftOpen())
            await second.send(RaftBatch([b"new"], ask=True))
            await second.receive()
            with pytest.raises(StreamFailed, match="m1 made a newer connection"):
                await first.receive()
            with contextlib.suppress(RpcError):
                await first.send(RaftBatch([b"too late"]))
            await second.send(RaftBatch([b"newer"], ask=True))
            await second.receive()
            await two.receiver.expect(b"old", b"new", b"newer")
            assert two.receiver.messages.empty()


async def test_too_many_connections_of_one_member(cluster: TestCluster) -> None:
    async with manager(cluster, "m2") as two, contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(as_member(cluster, two, "m1")) for _ in range(10)]
        await until(lambda: [connection.closed for connection in connections] == [True] * 6 + [False] * 4)
        stream = await connections[-1].open("raft", RaftOpen())
        await stream.send(RaftBatch([b"still heard"]))
        await two.receiver.expect(b"still heard")


# -- madness


async def test_messages_of_any_kind_and_order(cluster: TestCluster) -> None:
    source = random.Random(5)
    kinds: list[Message] = [
        Heartbeat(),
        record(b"x" * 100_000),
        RaftOpen(),
        RaftSnapshotOpen(),
        RaftBatch([]),
        RaftBatch([b""], ask=True),
        RaftBatch([b"x" * 300_000] * 2),
        RaftChunk(b""),
        RaftChunk(b"y" * 100_000),
        RaftTaken(),
    ]
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:
        for _ in range(40):
            async with as_member(cluster, two) as connection:
                with contextlib.suppress(RpcError):
                    method = source.choice(["raft", "raft-snapshot", "session"])
                    stream = await connection.open(method, source.choice(kinds))
                    for _ in range(source.randrange(6)):
                        if source.random() < 0.2:
                            await stream.send_bytes(source.randbytes(50))
                        else:
                            await stream.send(source.choice(kinds))
                    if source.random() < 0.5:
                        await stream.end()
                        while True:
                            await stream.receive()
        while not two.receiver.messages.empty():
            assert two.receiver.messages.get_nowait()[0] == "m9"
        await one.send(two, b"sane")
        await until(lambda: not two.receiver.messages.empty())


class Cutter:
    """Passes bytes on between two ends, and cuts both off after `limit` of them in one direction."""

    def __init__(self, target: str) -> None:
        self.limit: tuple[int, int] = (1 << 60, 1 << 60)
        self.passed = [0, 0]
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_reader, far_writer = await asyncio.open_connection(*split_address(self._target))
        self.passed = passed = [0, 0]

        async def pump(side: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                room = self.limit[side] - passed[side]
                sink.write(data[:room])
                passed[side] += len(data[:room])
                if len(data) >= room:
                    return
                await sink.drain()

        try:
            pumps = [
                asyncio.ensure_future(pump(0, reader, far_writer)),
                asyncio.ensure_future(pump(1, far_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for each_writer in (writer, far_writer):
                each_writer.close()
                with contextlib.suppress(OSError):
                    await each_writer.wait_closed()


async def test_a_connection_cut_at_every_byte(cluster: TestCluster) -> None:
    """Cut anywhere in handshake, hello or messages: the message arrives or is reported lost, and the next one arrives."""
    at_once = replace(QUICK, first_pause=0.001, longest_pause=0.001)
    async with (
        manager(cluster, "m1", patience=at_once) as one,
        manager(cluster, "m2") as two,
        Cutter(two.address) as cutter,
    ):
        await one.send(two, b"measure", address=cutter.address)
        await two.receiver.expect(b"measure")
        await until(lambda: one.transport._links["m2"]._question is None)
        there, back = cutter.passed
        # The last bytes one by one, those of the handshake with gaps.
        places = [
            *((0, place) for place in [*range(1, there - 120, 211), *range(there - 120, there + 1)]),
            *((1, place) for place in [*range(1, back - 40, 211), *range(back - 40, back)]),
        ]
        earlier: set[bytes] = set()

        async def arrival(text: bytes) -> None:
            """It arrives. What was reported as probably lost may still come before it."""
            while (message := await two.receiver.messages.get())[1] != text:
                assert message[0] == "m1"
                assert message[1] in earlier

        for side, place in places:
            await one.driver.call(lambda: one.transport._links["m2"]._break("the test goes on"))
            cutter.limit = (place, 1 << 60) if side == 0 else (1 << 60, place)
            while not one.receiver.lost.empty():
                one.receiver.lost.get_nowait()
            await one.send(two, b"%d" % place, address=cutter.address)
            arriving, losing = (
                asyncio.ensure_future(arrival(b"%d" % place)),
                asyncio.ensure_future(one.receiver.lost.get()),
            )
            await asyncio.wait({arriving, losing}, return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                arriving.result()
            earlier.add(b"%d" % place)
            for waiting in (arriving, losing):
                waiting.cancel()
            cutter.limit = (1 << 60, 1 << 60)
        last = b"whole"
        async with ticking(one, two, cutter.address):
            while last != b"tick":
                _, last = await two.receiver.messages.get()


async def test_a_snapshot_cut_at_many_places(cluster: TestCluster) -> None:
    """It is complete or fails, never anything in between, and what arrived is the beginning of it."""
    pieces = [bytes([number]) * 5000 for number in range(4)]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two, Cutter(two.address) as cutter:

        async def stream() -> bool:
            try:
                await one.driver.run(one.transport.send_snapshot("m2", cutter.address, chunks()))
            except OSError:
                return False
            return True

        def taken() -> list[bytes]:
            arrived = []
            while not two.receiver.chunks.empty():
                arrived.append(two.receiver.chunks.get_nowait()[1])
            return arrived

        assert await stream()
        there, back = cutter.passed
        taken()
        for side, place in [
            *((0, place) for place in range(1, there, 397)),
            *((1, place) for place in range(1, back, 97)),
        ]:
            cutter.limit = (place, 1 << 60) if side == 0 else (1 << 60, place)
            complete = await stream()
            await until(lambda: not two.transport._hosted)
            arrived = taken()
            assert arrived == pieces[: len(arrived)]
            assert len(arrived) == 4 or not complete


# -- cancellation


async def test_a_transport_closed_at_every_turn(cluster: TestCluster) -> None:
    async with manager(cluster, "m2") as two:
        for turns in range(0, 60, 2):
            async with Driver() as driver:
                one = Manager(cluster.identity("m1", NodeRole.MANAGER), driver, QUICK)

                async def life(one: Manager, turns: int) -> None:
                    await one.transport.start(one.receiver)
                    one.transport.send("m2", two.address, [b"x", b"y" * 100_000])
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await one.transport.close()
                    one.transport.send("m2", two.address, [b"after the end"])

                await driver.run(life(one, turns))
        await until(lambda: not two.transport._hosted and not two.listener.strangers)


async def test_a_snapshot_cancelled_at_every_turn(cluster: TestCluster) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"z" * 100_000

    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:

        async def cancelled_after(turns: int) -> bool:
            sending = asyncio.ensure_future(one.transport.send_snapshot("m2", two.address, chunks()))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = sending.done()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            assert not one.transport._sending
            return finished

        turns = 0
        while not await one.driver.run(cancelled_after(turns)):
            turns += 1 + turns // 4
        assert turns > 20
        await until(lambda: not two.transport._hosted)
        await one.driver.run(one.transport.send_snapshot("m2", two.address, chunks()))


async def test_a_snapshot_to_a_member_that_stands_still(cluster: TestCluster) -> None:
    """The link notices, and the snapshot does not wait for its own longer time."""
    patience = replace(QUICK, chunk=50.0)
    async with manager(cluster, "m1", patience=patience) as one, manager(cluster, "m2") as two:
        await one.link_up(two)
        go_on = threading.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"1"
            two.driver.loop.call_soon_threadsafe(go_on.wait, 5)
            yield b"2" * 1_000_000

        async with ticking(one, two):
            with pytest.raises(OSError, match="did not take the snapshot"):
                await one.driver.run(one.transport.send_snapshot("m2", two.address, chunks()))
        go_on.set()


async def test_a_chunk_that_is_never_taken(cluster: TestCluster) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"

    async def never(member: str, chunk: bytes) -> None:
        await asyncio.Event().wait()

    async with manager(cluster, "m1", patience=replace(QUICK, chunk=0.1)) as one, manager(cluster, "m2") as two:
        two.receiver.take = never
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            await one.driver.run(one.transport.send_snapshot("m2", two.address, chunks()))


async def test_a_receiver_that_fails_hurts_one_connection_alone(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with manager(cluster, "m1") as one, manager(cluster, "m2") as two:

        def received(member: str, messages: Sequence[bytes]) -> None:
            raise ValueError("a mistake")

        good = two.receiver.received
        two.receiver.received = received  # type: ignore[method-assign]
        await one.send(two, b"x")
        assert await one.receiver.lost.get() == "m2"
        two.receiver.received = good  # type: ignore[method-assign]
        async with ticking(one, two):
            assert (await two.receiver.messages.get())[1] == b"tick"
        assert any("answering 'raft'" in message for message in caplog.messages)

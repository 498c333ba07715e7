"""Streams over a real connection: order, sizes, credit, cancellation, ends and failures."""

from __future__ import annotations

import asyncio
import errno
import logging
import re

import pytest
from rpc_cluster import Heartbeat, TestCluster, connected, echo, listening, record, until

from agent.api_types.errors import NotFound
from agent.api_types.node import NodeRole
from agent.pki.identity import NodeKey
from agent.rpc import channel as channel_module
from agent.rpc import connection as connection_module
from agent.rpc.client import dial, join
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.errors import ConnectionLost, StreamEnded, StreamFailed, Unreachable
from agent.rpc.frames import MAX_BODY, FrameType, encode_text
from agent.rpc.messages import JoinAnswer, LogRecord, Message
from agent.rpc.peer import Purpose
from agent.rpc.stream import WINDOW, Stream


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


class Gate:
    """A handler that hands its stream to the test and lives until the test lets it go."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.leave = asyncio.Event()

    async def __call__(self, stream: Stream, opening: Message, connection: Connection) -> None:
        self.streams.put_nowait(stream)
        await self.leave.wait()


async def pair(dialled: Connection, gate: Gate) -> tuple[Stream, Stream]:
    return await dialled.open("gate", Heartbeat()), await gate.streams.get()


def data_of(message: Message) -> bytes:
    assert isinstance(message, LogRecord)
    return message.data


@pytest.mark.parametrize("size", [0, 1, MAX_BODY - 100, MAX_BODY, WINDOW - 10, WINDOW, 3 * WINDOW + 17, 5_000_000])
async def test_a_message_of_any_size_comes_back(cluster: TestCluster, size: int) -> None:
    async with connected(cluster) as (dialled, _):
        stream = await dialled.open("echo", record(b"o" * size))
        assert len(data_of(await stream.receive())) == size
        await stream.send(Heartbeat())
        assert await stream.receive() == Heartbeat()


async def test_messages_keep_their_order_over_many_streams(cluster: TestCluster) -> None:
    async with connected(cluster) as (dialled, _):

        async def talk(number: int) -> None:
            stream = await dialled.open("echo", record(b""))
            await stream.receive()
            for turn in range(20):
                body = b"%d-%d" % (number, turn) * (1 + 300 * (turn % 7))
                await stream.send(record(body))
                assert data_of(await stream.receive()) == body
            await stream.end()
            with pytest.raises(StreamEnded):
                await stream.receive()

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(talk(number))
        assert dialled.stream_count == 0


async def test_either_side_opens(cluster: TestCluster) -> None:
    async with connected(cluster, dialled_handlers={"echo": echo}) as (dialled, accepted):
        for side in (dialled, accepted):
            stream = await side.open("echo", record(b"hi"))
            assert data_of(await stream.receive()) == b"hi"
        assert (dialled.peer.node_id, dialled.peer.role) == ("manager1", NodeRole.MANAGER)
        assert (accepted.peer.node_id, accepted.peer.role) == ("worker1", NodeRole.WORKER)
        assert accepted.purpose is Purpose.CONTROL


async def test_bytes_and_half_close(cluster: TestCluster) -> None:
    """A relay: a message first, then bytes both ways, each direction ended by itself."""

    async def relay(stream: Stream, opening: Message, connection: Connection) -> None:
        await stream.send(Heartbeat())
        received = 0
        while data := await stream.receive_bytes():
            received += len(data)
        await stream.send_bytes(b"%d" % received)

    async with connected(cluster, {"relay": relay}) as (dialled, _):
        stream = await dialled.open("relay", Heartbeat())
        assert await stream.receive() == Heartbeat()
        await stream.send_bytes(bytearray(1_000_000))
        await stream.send_bytes(b"")
        await stream.send_bytes(memoryview(b"abc"))
        await stream.end()
        await stream.end()
        answer = b""
        while data := await stream.receive_bytes():
            answer += data
        assert answer == b"1000003"
        assert await stream.receive_bytes() == b""
        with pytest.raises(RuntimeError, match="sending after the end"):
            await stream.send_bytes(b"x")
        assert dialled.stream_count == 0


async def test_a_slow_reader_stops_its_writer_and_nobody_else(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate, "echo": echo}) as (dialled, _):
        slow, reader = await pair(dialled, gate)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await slow.send_bytes(b"x" * 10_000)
                sent += 10_000

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            other = await dialled.open("echo", record(b""))
            for _ in range(50):
                await other.receive()
                await other.send(record(b"y" * 20_000))
            assert WINDOW - 20_000 <= sent < WINDOW
            before, taken = sent, 0
            while taken < WINDOW:
                taken += len(await reader.receive_bytes())
            await until(lambda: sent >= before + WINDOW // 2)
            assert sent <= taken + WINDOW
            flooding.cancel()
        gate.leave.set()


async def test_concurrent_senders_do_not_mix_their_pieces(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, reader = await pair(dialled, gate)
        async with asyncio.TaskGroup() as group:
            for letter in b"abcdefgh":
                group.create_task(stream.send(record(bytes([letter]) * 400_000)))
            seen = set()
            for _ in range(8):
                data = data_of(await reader.receive())
                assert len(data) == 400_000
                assert len(set(data)) == 1
                seen.add(data[:1])
        assert len(seen) == 8
        gate.leave.set()


# -- cancellation


async def test_a_cancelled_send_is_whole_or_not_at_all(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, reader = await pair(dialled, gate)
        sending = asyncio.create_task(stream.send(record(b"x" * 10 * WINDOW)))
        await until(lambda: stream._granted is not None)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        last = asyncio.create_task(stream.send(record(b"after")))
        assert data_of(await reader.receive()) == b"after"
        await last
        gate.leave.set()


async def test_send_cancelled_at_every_turn(cluster: TestCluster) -> None:
    """The reader reads all the while; a cancelled message is never seen cut, and the next one is always seen."""
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, reader = await pair(dialled, gate)
        for turns in range(30):
            sending = asyncio.create_task(stream.send(record(b"x" * 900_000)))
            marker = b"marker %d" % turns

            async def interrupt(sending: asyncio.Task[None], turns: int, marker: bytes) -> None:
                for _ in range(turns):
                    await asyncio.sleep(0)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                await stream.send(record(marker))

            interrupting = asyncio.create_task(interrupt(sending, turns, marker))
            while (data := data_of(await reader.receive())) != marker:
                assert data == b"x" * 900_000
            await interrupting
        gate.leave.set()


async def test_a_cancelled_receive_loses_nothing(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, reader = await pair(dialled, gate)
        received: list[bytes] = []
        bodies = [bytes([65 + turn]) * (300_000 if turn % 3 == 0 else 10) for turn in range(20)]

        async def send_all() -> None:
            for body in bodies:
                await stream.send(record(body))

        sending = asyncio.create_task(send_all())
        turns = 0
        while len(received) < len(bodies):
            receiving = asyncio.create_task(reader.receive())
            turns = (turns + 1) % 5
            for _ in range(turns):
                await asyncio.sleep(0)
            receiving.cancel()
            (result,) = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(result, LogRecord):
                received.append(result.data)
        assert received == bodies
        await sending
        gate.leave.set()


async def test_a_cancelled_open_leaves_nothing(cluster: TestCluster) -> None:
    async with connected(cluster, {"gate": Gate(), "echo": echo}) as (dialled, accepted):
        opening = asyncio.create_task(dialled.open("gate", record(b"x" * 2 * WINDOW)))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert dialled.stream_count == 0
        stream = await dialled.open("echo", Heartbeat())
        assert await stream.receive() == Heartbeat()
        assert accepted.stream_count == 1


async def test_a_dial_cancelled_at_every_turn(cluster: TestCluster) -> None:
    """Wherever the cancellation strikes, the listener ends up with no connection, and serves the next one."""
    identity = cluster.identity("worker1")
    async with listening(cluster) as listener:
        finished = False
        turns = 0
        while not finished:
            dialling = asyncio.create_task(dial(listener.address, identity, purpose=Purpose.CONTROL))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = dialling.done()
            dialling.cancel()
            (result,) = await asyncio.gather(dialling, return_exceptions=True)
            if isinstance(result, Connection):
                await result.shut("enough")
            else:
                assert isinstance(result, asyncio.CancelledError)
            turns += 1
        assert turns > 5
        await until(lambda: not listener.connections and not listener.strangers)
        async with await dial(listener.address, identity, purpose=Purpose.CONTROL) as connection:
            stream = await connection.open("echo", Heartbeat())
            assert await stream.receive() == Heartbeat()


async def test_a_join_cancelled_at_every_turn(cluster: TestCluster) -> None:
    async with listening(cluster, join=cluster) as listener:
        finished = False
        turns = 0
        while not finished:
            joining = asyncio.create_task(join(listener.address, cluster.token, NodeKey.create()))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = joining.done()
            joining.cancel()
            (result,) = await asyncio.gather(joining, return_exceptions=True)
            assert isinstance(result, JoinAnswer | asyncio.CancelledError)
            turns += 1
        assert turns > 10
        await until(lambda: not listener.strangers)
        assert (await join(listener.address, cluster.token, NodeKey.create())).node_id == "joined1"


async def test_a_listener_left_at_every_turn(cluster: TestCluster) -> None:
    """Whatever the handshake has come to, the client is told something and nothing is left open."""
    identity = cluster.identity("worker1")
    for turns in range(40):
        async with listening(cluster) as listener:
            dialling = asyncio.create_task(dial(listener.address, identity, purpose=Purpose.CONTROL))
            for _ in range(turns):
                await asyncio.sleep(0)
        (result,) = await asyncio.gather(dialling, return_exceptions=True)
        if isinstance(result, Connection):
            assert await result.wait_closed()
        else:
            assert isinstance(result, Unreachable), result


# -- ends and failures


async def test_a_handler_that_returns_ends_the_stream(cluster: TestCluster) -> None:
    async def one(stream: Stream, opening: Message, connection: Connection) -> None:
        await stream.send(opening)

    async with connected(cluster, {"one": one}) as (dialled, accepted):
        stream = await dialled.open("one", Heartbeat())
        assert await stream.receive() == Heartbeat()
        with pytest.raises(StreamEnded):
            await stream.receive()
        with pytest.raises(StreamEnded, match="reads nothing more"):
            await stream.send(Heartbeat())
        assert (dialled.stream_count, accepted.stream_count) == (0, 0)


async def test_a_blocked_sender_learns_that_nobody_reads(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, _reader = await pair(dialled, gate)
        sending = asyncio.create_task(stream.send_bytes(b"x" * 3 * WINDOW))
        await until(lambda: stream._granted is not None)
        gate.leave.set()
        with pytest.raises(StreamEnded, match="reads nothing more"):
            await sending


async def test_leaving_a_stream_tells_the_handler(cluster: TestCluster) -> None:
    outcome: asyncio.Queue[str] = asyncio.Queue()

    async def watch(stream: Stream, opening: Message, connection: Connection) -> None:
        try:
            await stream.receive()
        except (StreamEnded, StreamFailed) as error:
            outcome.put_nowait(f"{type(error).__name__}: {error}")

    async with connected(cluster, {"watch": watch}) as (dialled, _):
        async with await dialled.open("watch", Heartbeat()):
            pass
        assert (await outcome.get()).startswith("StreamEnded")
        with pytest.raises(ZeroDivisionError):
            async with await dialled.open("watch", Heartbeat()):
                raise ZeroDivisionError("no more")
        assert await outcome.get() == "StreamFailed: no more"
        stream = await dialled.open("watch", Heartbeat())
        await stream.fail("changed my mind")
        assert await outcome.get() == "StreamFailed: changed my mind"
        with pytest.raises(StreamFailed, match="changed my mind"):
            await stream.receive()


async def test_what_a_handler_raises_fails_its_stream_alone(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def missing(stream: Stream, opening: Message, connection: Connection) -> None:
        raise NotFound("no such task")

    async def grouped(stream: Stream, opening: Message, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(missing(stream, opening, connection))

    async def wrong(stream: Stream, opening: Message, connection: Connection) -> None:
        raise ZeroDivisionError

    handlers: dict[str, Handler] = {"missing": missing, "grouped": grouped, "wrong": wrong, "echo": echo}
    async with connected(cluster, handlers) as (dialled, _):
        bystander = await dialled.open("echo", Heartbeat())
        for method, text in (
            ("missing", "^no such task$"),
            ("grouped", "^no such task$"),
            ("wrong", "^internal error in answering 'wrong': the log of node manager1 says more$"),
            ("nonsense", "^node manager1 does not answer 'nonsense'$"),
        ):
            with pytest.raises(StreamFailed, match=text):
                await (await dialled.open(method, Heartbeat())).receive()
        assert "ZeroDivisionError" in caplog.text
        assert "NotFound" not in caplog.text
        assert await bystander.receive() == Heartbeat()


async def test_what_arrived_before_a_failure_is_still_received(cluster: TestCluster) -> None:
    async def two(stream: Stream, opening: Message, connection: Connection) -> None:
        await stream.send(record(b"1"))
        await stream.send(record(b"2"))
        raise NotFound("that was all")

    async with connected(cluster, {"two": two}) as (dialled, _):
        stream = await dialled.open("two", Heartbeat())
        await until(lambda: stream.failed)
        assert [data_of(await stream.receive()) for _ in range(2)] == [b"1", b"2"]
        with pytest.raises(StreamFailed, match="that was all"):
            await stream.receive()


async def test_only_for_a_role(cluster: TestCluster) -> None:
    async with connected(
        cluster, {"logs": only(NodeRole.MANAGER, echo)}, dialled_handlers={"logs": only(NodeRole.MANAGER, echo)}
    ) as (
        dialled,
        accepted,
    ):
        with pytest.raises(StreamFailed, match=r"'logs' is for a manager alone, and worker worker1 at .* is none"):
            await (await dialled.open("logs", Heartbeat())).receive()
        assert await (await accepted.open("logs", Heartbeat())).receive() == Heartbeat()


async def test_guard_ends_work_that_waits_elsewhere(cluster: TestCluster) -> None:
    outcome: asyncio.Queue[str] = asyncio.Queue()
    entered = asyncio.Event()

    async def follow(stream: Stream, opening: Message, connection: Connection) -> None:
        try:
            async with stream.guard():
                entered.set()
                await asyncio.Event().wait()
        except StreamFailed as error:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)
            outcome.put_nowait(str(error))

    async with connected(cluster, {"follow": follow}) as (dialled, _):
        stream = await dialled.open("follow", Heartbeat())
        await entered.wait()
        await stream.fail("no longer wanted")
        assert await outcome.get() == "no longer wanted"
        entered.clear()
        await dialled.open("follow", Heartbeat())
        await entered.wait()
        dialled.close("good night")
        assert (await outcome.get()).endswith("closed the connection: good night")


async def test_guard_leaves_other_cancellations_and_its_own_body_alone(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, _reader = await pair(dialled, gate)

        async def wait() -> None:
            async with stream.guard():
                await asyncio.Event().wait()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with stream.guard():
            await stream.fail("by the body itself")
        await asyncio.sleep(0)
        with pytest.raises(StreamFailed, match="by the body itself"):
            async with stream.guard():
                pass
        gate.leave.set()


async def test_a_handler_that_outlives_its_stream_is_cancelled(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDLER_GRACE", 0.05)
    ended = asyncio.Event()
    began = asyncio.Event()

    async def deaf(stream: Stream, opening: Message, connection: Connection) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connected(cluster, {"deaf": deaf}) as (dialled, _):
        stream = await dialled.open("deaf", Heartbeat())
        await began.wait()
        await stream.fail("enough")
        await ended.wait()


async def test_closing_reaches_both_ends(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        stream, reader = await pair(dialled, gate)
        blocked = asyncio.create_task(stream.send_bytes(b"x" * 2 * WINDOW))
        await until(lambda: stream._granted is not None)
        accepted.close("upgrade")
        with pytest.raises(ConnectionLost, match=r"manager manager1 at .* closed the connection: upgrade"):
            await blocked
        with pytest.raises(ConnectionLost, match="closed the connection: upgrade"):
            await stream.receive()
        with pytest.raises(ConnectionLost, match=r"^upgrade$"):
            await reader.send(Heartbeat())
        with pytest.raises(ConnectionLost):
            await dialled.open("gate", Heartbeat())
        assert await accepted.wait_closed() == "upgrade"
        assert (await dialled.wait_closed()).endswith("closed the connection: upgrade")
        assert dialled.closed
        assert accepted.closed
        gate.leave.set()


async def test_a_peer_that_vanishes(cluster: TestCluster) -> None:
    """Its process is killed: the kernel closes the socket, and no goodbye is said."""
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        _stream, reader = await pair(dialled, gate)
        transport = dialled._channel._transport
        assert transport is not None
        transport.abort()
        with pytest.raises(ConnectionLost, match=r"without a word|broke off"):
            await reader.receive()
        assert "127.0.0.1" in await accepted.wait_closed()
        gate.leave.set()


async def test_a_peer_that_hangs(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, as by SIGSTOP: its kernel still acknowledges, until its buffers are full."""
    monkeypatch.setattr(channel_module, "STALL", 0.1)
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        transport = accepted._channel._transport
        assert transport is not None
        transport.pause_reading()

        async def fill() -> None:
            stream = await dialled.open("gate", Heartbeat())
            await stream.send_bytes(b"x" * WINDOW)

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(fill())
        assert caught.group_contains(ConnectionLost, match="has taken nothing for 0 s: it hangs, or its host does")
        assert "has taken nothing" in await dialled.wait_closed()
        gate.leave.set()
        transport.resume_reading()


async def test_a_stopping_listener_says_so(cluster: TestCluster) -> None:
    async with listening(cluster) as listener:
        connection = await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.BULK)
        stream = await connection.open("echo", Heartbeat())
        await stream.receive()
    with pytest.raises(StreamFailed, match=r"the node stops listening|stopped answering"):
        await stream.receive()
    assert (await connection.wait_closed()).endswith("closed the connection: the node stops listening")


# -- peers that break the rules


async def test_more_than_the_credit_ends_the_connection(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        stream, _ = await pair(dialled, gate)
        for _ in range(WINDOW // MAX_BODY + 1):
            dialled.put(stream.number, FrameType.BYTES, b"x" * MAX_BODY)
        assert "more on stream 1 than it had credit for" in await dialled.wait_closed()
        assert "more on stream 1 than it had credit for" in await accepted.wait_closed()
        assert "more on stream 1 than it had credit for" in caplog.text
        gate.leave.set()


@pytest.mark.parametrize(
    ("number", "kind", "body", "text"),
    [
        (1, FrameType.CREDIT, b"\x01", "more credit on stream 1 than was used"),
        (1, FrameType.CREDIT, b"\x00", "impossible count 0"),
        (1, FrameType.CREDIT, b"\xa1x", "count cannot be read"),
        (2, FrameType.OPEN, encode_text("gate"), "number 2, which is not for it to give"),
        (0, FrameType.OPEN, encode_text("gate"), "number 0, which is not for it to give"),
        (3, FrameType.OPEN, b"\xff", "text cannot be read"),
        (0, FrameType.HELLO, b"", "type HELLO where none may come"),
        (0, FrameType.MESSAGE, b"", "type MESSAGE where none may come"),
    ],
)
async def test_frames_that_may_not_come(
    cluster: TestCluster, number: int, kind: FrameType, body: bytes, text: str
) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        await pair(dialled, gate)
        dialled.put(number, kind, body)
        for side in (dialled, accepted):
            assert re.search(text, await side.wait_closed())
        gate.leave.set()


async def test_a_message_that_cannot_be_read_fails_its_stream(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        for body in (b"\xc1", b"\x81\xa4type\xa4Nope", b"\x91" * 60_000, b"\x81\xa4type\xc6\xff\xff\xff\xff"):
            stream, reader = await pair(dialled, gate)
            dialled.put(stream.number, FrameType.MESSAGE, body)
            with pytest.raises(StreamFailed, match="the other side sent a message that cannot be read"):
                await reader.receive()
            with pytest.raises(StreamFailed, match="a message that cannot be read"):
                await stream.receive()
        stream, reader = await pair(dialled, gate)
        await stream.send_bytes(b"x")
        with pytest.raises(StreamFailed, match="raw bytes where a message was expected"):
            await reader.receive()
        stream, reader = await pair(dialled, gate)
        await stream.send(Heartbeat())
        with pytest.raises(StreamFailed, match="a message where raw bytes were expected"):
            await reader.receive_bytes()
        assert not accepted.closed
        gate.leave.set()


async def test_streams_are_bounded(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, accepted):
        dialled._max_streams = 3
        streams = [await dialled.open("gate", Heartbeat()) for _ in range(3)]
        with pytest.raises(StreamFailed, match="3 streams are open to manager manager1"):
            await dialled.open("gate", Heartbeat())
        accepted._max_streams = 3
        dialled._max_streams = 4
        await until(lambda: gate.streams.qsize() == 3)
        with pytest.raises(StreamFailed, match="3 streams are open: no more are allowed"):
            await (await dialled.open("gate", Heartbeat())).receive()
        gate.leave.set()
        for stream in streams:
            with pytest.raises(StreamEnded):
                await stream.receive()
        await dialled.open("gate", Heartbeat())


async def test_stream_numbers_come_again(cluster: TestCluster) -> None:
    async with connected(cluster) as (dialled, _):
        first = await dialled.open("echo", Heartbeat())
        dialled._next = connection_module._LAST_NUMBER - 1
        numbers = [(await dialled.open("echo", Heartbeat())).number for _ in range(4)]
        assert first.number == 1
        assert numbers[0] == connection_module._LAST_NUMBER - 1
        assert 1 not in numbers
        assert all(number % 2 for number in numbers)


async def test_a_message_over_the_limit_is_not_sent(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, reader = await pair(dialled, gate)
        stream._max_message = reader._max_message = 400_000
        with pytest.raises(ValueError, match=r"a LogRecord of 5000.. bytes; 400000 are allowed"):
            await stream.send(record(b"x" * 500_000))
        with pytest.raises(ValueError, match="a LogRecord of"):
            await stream.send(record(b"x" * 500_000))
        await stream.send(Heartbeat())
        assert await reader.receive() == Heartbeat()
        receiving = asyncio.create_task(reader.receive())
        with pytest.raises(StreamFailed, match="a message of more than 400000 bytes"):
            while True:
                await stream._put(FrameType.PART, b"x" * 60_000)
        with pytest.raises(StreamFailed, match="the other side sent a message of more than 400000 bytes"):
            await receiving
        gate.leave.set()


async def test_two_receivers_are_a_mistake(cluster: TestCluster) -> None:
    gate = Gate()
    async with connected(cluster, {"gate": gate}) as (dialled, _):
        stream, _ = await pair(dialled, gate)
        first = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks receive"):
            await stream.receive()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.leave.set()


async def test_a_connection_that_is_reset_while_it_is_closed_is_closed(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may know of a reset that the loop has not read: closing the own half fails then."""
    async with connected(cluster) as (_, accepted):
        transport = accepted._channel._transport
        assert transport is not None

        def write_eof() -> None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

        monkeypatch.setattr(transport, "write_eof", write_eof)
        accepted.close("done")
        await accepted.wait_closed()
        assert transport.is_closing()

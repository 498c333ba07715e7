"""Logs and relays over real connections between two nodes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_cluster import TestCluster
from worker_fakes import FakeExecutor, FakeHost, make_task, out

from agent.api_types.task import TaskState, TaskStatus
from agent.api_types.times import SECOND, now_ns
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import StreamEnded, StreamFailed
from agent.rpc.listener import Listener
from agent.rpc.messages import Assignments, LogRecord, LogsOpen, LogWatermark, Message, RelayOpen, RelayReady
from agent.rpc.peer import Purpose
from agent.worker.interface import LogLine, Stream, TemporaryFailure
from agent.worker.log_reader import LATENESS, Progress, watermark
from agent.worker.relay import Datagrams, RelayHandler, frame_datagram
from agent.worker.worker import Worker


@contextlib.asynccontextmanager
async def connected(handlers: dict[str, object]) -> AsyncIterator[Connection]:
    """A connection to a node that answers with `handlers`."""
    cluster = TestCluster()
    one, other = cluster.identity("node1"), cluster.identity("node2")
    async with (
        Listener("127.0.0.1:0", lambda: one, handlers=handlers) as listener,
        await dial(listener.address, other, purpose=Purpose.BULK) as connection,
    ):
        yield connection


@contextlib.asynccontextmanager
async def worker_on(host: FakeHost, folder: Path, *tasks: str) -> AsyncIterator[Worker]:
    """A worker whose tasks run."""
    worker = Worker(FakeExecutor(host), state_dir=folder)
    running = asyncio.create_task(worker.run())
    await worker.restored.wait()
    worker.apply(Assignments(1, True, tasks=[make_task(task_id) for task_id in tasks]))
    for task_id in tasks:
        await worker.runner(task_id).reached(TaskState.RUNNING)
    try:
        yield worker
    finally:
        running.cancel()
        await asyncio.wait({running})


async def read_logs(connection: Connection, opening: LogsOpen) -> tuple[list[LogRecord], str]:
    """All records, and why the stream failed."""
    stream = await connection.open("logs", opening)
    records: list[LogRecord] = []
    try:
        while True:
            message = await stream.receive()
            if isinstance(message, LogRecord):
                records.append(message)
    except StreamEnded:
        return records, ""
    except StreamFailed as failure:
        return records, str(failure)


async def test_the_logs_of_many_tasks_come_over_one_stream(tmp_path: Path) -> None:
    host = FakeHost()
    host.lines = {
        "a": [out(1, "a1"), out(3, "a3", Stream.STDERR), out(5, "a5")],
        "b": [out(2, "b2"), out(4, "b4")],
    }
    async with worker_on(host, tmp_path, "a", "b") as worker, connected(worker.handlers()) as connection:
        records, failure = await read_logs(connection, LogsOpen(["a", "b"]))
        assert failure == ""
        assert sorted((record.timestamp, record.task_id, record.stream, record.data) for record in records) == [
            (1, "a", "stdout", b"a1"),
            (2, "b", "stdout", b"b2"),
            (3, "a", "stderr", b"a3"),
            (4, "b", "stdout", b"b4"),
            (5, "a", "stdout", b"a5"),
        ]

        async def texts(opening: LogsOpen) -> list[bytes]:
            return sorted(record.data for record in (await read_logs(connection, opening))[0])

        assert await texts(LogsOpen(["a"], since=3)) == [b"a3", b"a5"]
        assert await texts(LogsOpen(["a", "b"], tail=1)) == [b"a5", b"b4"]
        assert await texts(LogsOpen(["a"], stdout=False)) == [b"a3"]
        assert await texts(LogsOpen(["a"], stderr=False)) == [b"a1", b"a5"]


async def test_what_cannot_be_read_is_named_after_what_can(tmp_path: Path) -> None:
    host = FakeHost(lines={"a": [out(1, "a1")]})
    async with worker_on(host, tmp_path, "a", "b") as worker, connected(worker.handlers()) as connection:

        async def broken(since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
            yield out(1, "b1")
            raise TemporaryFailure("the engine went away")

        worker.controller("b").logs = broken
        records, failure = await read_logs(connection, LogsOpen(["gone", "b", "a"]))
        assert sorted(record.data for record in records) == [b"a1", b"b1"]
        assert "task gone is not on this node" in failure
        assert "task b: the engine went away" in failure


async def test_following_waits_for_the_start_and_marks_the_time(tmp_path: Path) -> None:
    host = FakeHost(lines={"a": [out(now_ns(), "first")]})
    worker = Worker(FakeExecutor(host), state_dir=tmp_path)
    running = asyncio.create_task(worker.run())
    await worker.restored.wait()
    worker.apply(Assignments(1, True, tasks=[make_task("a", TaskState.READY)]))
    await worker.runner("a").reached(TaskState.READY)
    async with connected(worker.handlers()) as connection:
        stream = await connection.open("logs", LogsOpen(["a"], follow=True))
        # The task has not started, so nothing older than about now will come.
        mark = await stream.receive()
        assert isinstance(mark, LogWatermark)
        worker.apply(Assignments(2, False, tasks=[make_task("a")]))
        seen: list[Message] = []
        while not any(isinstance(message, LogRecord) for message in seen):
            seen.append(await stream.receive())
        before = now_ns()
        while True:
            mark = await stream.receive()
            assert isinstance(mark, LogWatermark)
            if mark.timestamp > before:
                break
        assert mark.timestamp <= now_ns() - LATENESS
        host.end("a")
        with pytest.raises(StreamEnded):
            while True:
                await stream.receive()
    running.cancel()
    await asyncio.wait({running})


async def test_a_follower_that_goes_away_stops_the_reading(tmp_path: Path) -> None:
    host = FakeHost()
    closed = asyncio.Event()
    async with worker_on(host, tmp_path, "a") as worker, connected(worker.handlers()) as connection:

        async def endless(since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
            try:
                number = 0
                while True:
                    number += 1
                    yield out(number, "x" * 1000)
                    await asyncio.sleep(0)
            finally:
                closed.set()

        worker.controller("a").logs = endless
        stream = await connection.open("logs", LogsOpen(["a"], follow=True))
        await stream.receive()
        await stream.fail("seen enough")
        await closed.wait()


@given(
    st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.none() | st.integers(0, 20 * SECOND), st.booleans()), max_size=5
    ),
    st.integers(20 * SECOND, 40 * SECOND),
)
def test_no_watermark_passes_a_task_that_is_still_being_read(
    tasks: list[tuple[int, int | None, bool]], now: int
) -> None:
    progress = [Progress(sent, waiting, done) for sent, waiting, done in tasks]
    mark = watermark(progress, now)
    assert mark <= now
    for one in progress:
        if one.done:
            continue
        if one.waiting_since is None:
            assert mark <= one.sent
        assert mark <= max(one.sent, now - LATENESS)


# -- relays


@contextlib.asynccontextmanager
async def serving(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A task's port, played by a server on the loopback."""

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(whole, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def relay(ports: dict[int, int]) -> dict[str, object]:
    """The handlers of a node on which task `t` has ports: the task's to the loopback's."""
    return {
        "relay": RelayHandler(
            lambda task, port, protocol: ("127.0.0.1", ports[port]) if task == "t" and port in ports else None
        )
    }


async def test_a_relay_passes_bytes_and_half_closes(tmp_path: Path) -> None:
    async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = await reader.read()
        writer.write(whole[::-1])
        writer.write_eof()

    payload = bytes(range(256)) * 4096
    async with serving(reverse) as port, connected(relay({80: port})) as connection:
        stream = await connection.open("relay", RelayOpen("t", 80))
        assert await stream.receive() == RelayReady()
        await stream.send_bytes(payload)
        await stream.end()
        back = bytearray()
        while data := await stream.receive_bytes():
            back += data
        assert bytes(back) == payload[::-1]


async def test_a_task_that_speaks_first_and_closes_first(tmp_path: Path) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        got.set_result(await reader.read())

    async with serving(greet) as port, connected(relay({80: port})) as connection:
        stream = await connection.open("relay", RelayOpen("t", 80))
        assert await stream.receive() == RelayReady()
        assert await stream.receive_bytes() == b"hello"
        assert await stream.receive_bytes() == b""
        await stream.send_bytes(b"late")
        await stream.end()
        assert await got == b"late"


async def test_why_a_relay_is_not_made(tmp_path: Path) -> None:
    with contextlib.closing(await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)) as server:
        closed_port = server.sockets[0].getsockname()[1]
    await server.wait_closed()
    async with connected(relay({80: closed_port})) as connection:
        for opening, text in (
            (RelayOpen("other", 80), "task other port 80/tcp does not run here"),
            (RelayOpen("t", 81), "task t port 81/tcp does not run here"),
            (RelayOpen("t", 80), "Connect call failed"),
            (RelayOpen("t", 80, "sctp"), "sctp is not relayed"),
        ):
            stream = await connection.open("relay", opening)
            answer = await stream.receive()
            assert isinstance(answer, RelayReady)
            assert text in answer.error
            assert await stream.receive_bytes() == b""


async def test_a_connection_that_the_task_resets_is_reset_for_the_client(tmp_path: Path) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(reset) as port, connected(relay({80: port})) as connection:
        stream = await connection.open("relay", RelayOpen("t", 80))
        await stream.receive()
        await stream.send_bytes(b"x" * 1000)
        with pytest.raises(StreamFailed):
            while await stream.receive_bytes():
                pass


async def test_a_client_that_breaks_off_breaks_the_tasks_connection(tmp_path: Path) -> None:
    broken: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broken.set_result(await reader.read())
        except ConnectionResetError:
            broken.set_result(b"reset")

    async with serving(watch) as port, connected(relay({80: port})) as connection:
        stream = await connection.open("relay", RelayOpen("t", 80))
        await stream.receive()
        await stream.fail("the client is gone")
        assert await broken in (b"", b"reset")


async def test_datagrams_keep_their_bounds(tmp_path: Path) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(data.upper(), address)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        async with connected(relay({53: port})) as connection:
            stream = await connection.open("relay", RelayOpen("t", 53, "udp"))
            assert await stream.receive() == RelayReady()
            await stream.send_bytes(frame_datagram(b"one") + frame_datagram(b"e")[:1])
            await stream.send_bytes(frame_datagram(b"e")[1:] + frame_datagram(b"x" * 1400))
            datagrams, received = Datagrams(), []
            while len(received) < 3:
                received += datagrams.feed(await stream.receive_bytes())
            assert received == [b"ONE", b"E", b"X" * 1400]
            await stream.end()
            assert await stream.receive_bytes() == b""
    finally:
        transport.close()


@given(st.lists(st.binary(max_size=70), max_size=10), st.lists(st.integers(1, 40), max_size=40))
def test_datagrams_are_read_however_the_stream_is_cut(datagrams: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(frame_datagram(data) for data in datagrams)
    reader, read, position = Datagrams(), [], 0
    for size in [*cuts, len(raw) + 1]:
        read += reader.feed(raw[position : position + size])
        position += size
    assert read == datagrams


async def test_status_of_a_task_shows_in_its_runner(tmp_path: Path) -> None:
    async with worker_on(FakeHost(), tmp_path, "a") as worker:
        status = worker.runner("a").status
        assert isinstance(status, TaskStatus)
        assert worker.address("a", 80, "tcp") == ("127.0.0.1", 80)
        assert worker.address("b", 80, "tcp") is None

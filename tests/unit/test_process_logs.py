"""What a container wrote: the shim's side that writes, the agent's that reads."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.worker.executors.process.logs import (
    LONGEST_LINE,
    Assembler,
    LogReader,
    iterate,
    log_numbers,
    read_log,
    tail_start,
)
from agent.worker.executors.process.shim.logfile import PIECE, STDERR, STDOUT, LogWriter
from agent.worker.interface import LogLine, Stream

MIB = 1024 * 1024


@contextmanager
def writer_in(
    folder: Path, file_bytes: int = MIB, files: int = 4, write: Callable[[int, memoryview], int] = os.write
) -> Iterator[LogWriter]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    writer = LogWriter(descriptor, file_bytes, files, write)
    try:
        yield writer
    finally:
        os.close(descriptor)
        if writer._file is not None:
            os.close(writer._file)


def data_of(lines: list[LogLine]) -> list[bytes]:
    return [line.data for line in lines]


def test_lines_of_both_streams_come_back_in_order_with_rising_times(tmp_path: Path) -> None:
    with writer_in(tmp_path) as writer:
        writer.feed(STDOUT, b"one\ntw", 1000)
        writer.feed(STDERR, b"err\n", 1001)
        writer.feed(STDOUT, b"o\n\n", 500)
        writer.feed(STDOUT, b"no end", 2000)
        writer.end(3000)
    lines = list(iterate(tmp_path))
    assert [(line.stream, line.data) for line in lines] == [
        (Stream.STDOUT, b"one"),
        (Stream.STDERR, b"err"),
        (Stream.STDOUT, b"two"),
        (Stream.STDOUT, b""),
        (Stream.STDOUT, b"no end"),
    ]
    times = [line.timestamp for line in lines]
    assert times == sorted(set(times))
    assert times[0] == 1000
    assert times[-1] == 3000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=40),
    st.integers(min_value=40, max_value=2000),
)
def test_any_output_comes_back_whole_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[tuple[bool, bytes]], file_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with writer_in(folder, file_bytes, files=10_000) as writer:
        for number, (out, data) in enumerate(chunks):
            writer.feed(STDOUT if out else STDERR, data, number)
        writer.end(len(chunks))
    lines = list(iterate(folder))
    for out, stream in ((True, Stream.STDOUT), (False, Stream.STDERR)):
        written = b"".join(data for flag, data in chunks if flag is out)
        expected = written.split(b"\n")
        if not expected[-1]:
            expected.pop()
        assert [line.data for line in lines if line.stream is stream] == expected
    times = [line.timestamp for line in lines]
    assert times == sorted(set(times))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_a_damaged_file_never_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / "log.1").write_bytes(data + b"\n#5\n5 o fine\n")
    (folder / "log.x").write_bytes(b"")
    assert list(iterate(folder))[-1].data.endswith(b"fine")
    for tail in range(3):
        tail_start(folder, tail)


def test_a_long_line_is_one_line_again_and_a_longer_one_is_cut(tmp_path: Path) -> None:
    with writer_in(tmp_path, 8 * MIB) as writer:
        long, longer = b"x" * (PIECE * 3 + 7), b"y" * (LONGEST_LINE + PIECE + 5)
        for start in range(0, len(long), 10_000):
            writer.feed(STDOUT, long[start : start + 10_000], 1)
        writer.feed(STDOUT, b"\n", 2)
        writer.feed(STDERR, longer + b"\nz\n", 3)
    lines = list(iterate(tmp_path))
    assert data_of(lines)[0] == long
    assert b"".join(data_of(lines)[1:-1]) == longer
    assert len(lines) == 4
    assert len(lines[1].data) == LONGEST_LINE


def test_pieces_of_a_line_are_given_out_when_the_container_is_gone() -> None:
    assembler = Assembler()
    assert assembler.feed(b"5 O half") is None
    assert assembler.feed(b"4 E other") is None
    assert [line.data for line in assembler.rest()] == [b"other", b"half"]
    assert assembler.rest() == []


def test_disk_use_is_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    with writer_in(tmp_path, 64 * 1024, files=3) as writer:
        for number in range(20_000):
            writer.feed(STDOUT, b"line %d of a flood\n" % number, number)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * 64 * 1024
    numbers = log_numbers(tmp_path)
    assert len(numbers) == 3
    lines = data_of(list(iterate(tmp_path)))
    assert lines[-1] == b"line 19999 of a flood"
    assert lines == [b"line %d of a flood" % number for number in range(20_000 - len(lines), 20_000)]


def test_a_reader_that_was_overtaken_says_how_much_it_missed(tmp_path: Path) -> None:
    with writer_in(tmp_path, 2000, files=2) as writer:
        writer.feed(STDOUT, b"first\n", 1)
        reader = LogReader(tmp_path)
        assert data_of(reader.read()[0]) == [b"first"]
        for number in range(1000):
            writer.feed(STDOUT, b"%d\n" % number, 2)
        lines: list[LogLine] = []
        more = True
        while more:
            read, more = reader.read()
            lines += read
        reader.close()
    # What is open is read to its end, although the file is removed by then.
    first_gap = next(index for index, line in enumerate(lines) if line.stream is Stream.STDERR)
    before, notice, after = lines[:first_gap], lines[first_gap], lines[first_gap + 1 :]
    lost = 1000 - len(before) - len(after)
    assert notice.data == b"swarmtui: %d lines were lost: the log was overwritten before they were read" % lost
    assert lost > 0
    assert after[-1].data == b"999"


def test_a_full_disk_loses_lines_says_so_and_goes_on(tmp_path: Path) -> None:
    room = [100]

    def write(descriptor: int, data: memoryview) -> int:
        taken = min(room[0], len(data))
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= taken
        return os.write(descriptor, data[:taken])

    with writer_in(tmp_path, write=write) as writer:
        writer.feed(STDOUT, b"fits\n", 1)
        writer.feed(STDOUT, b"a line that does not fit any more %s\n" % (b"x" * 200), 2)
        writer.feed(STDOUT, b"lost\nlost\n" + b"x" * 300 + b"\n", 3)
        room[0] = 1000
        writer.feed(STDOUT, b"back\n", 4)
    assert data_of(list(iterate(tmp_path))) == [
        b"fits",
        b"swarmtui: 4 lines were lost: No space left on device",
        b"back",
    ]


def test_a_folder_that_is_gone_does_not_stop_the_container(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with writer_in(gone) as writer:
        gone.rmdir()
        writer.feed(STDOUT, b"nobody reads this\n", 1)
        writer.end(2)


def test_no_output_is_kept_when_none_is_wanted(tmp_path: Path) -> None:
    with writer_in(tmp_path, 0, 0) as writer:
        writer.feed(STDOUT, b"x\n", 1)
        writer.end(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file_bytes", [60, 300, MIB])
@pytest.mark.parametrize("tail", [0, 1, 2, 7, 49, 50, 51, 1000])
def test_the_last_lines(tmp_path: Path, tail: int, file_bytes: int) -> None:
    with writer_in(tmp_path, file_bytes, files=1000) as writer:
        for number in range(50):
            writer.feed(STDOUT, b"line %d\n" % number, number)
    reader = LogReader(tmp_path, tail_start(tmp_path, tail))
    lines: list[LogLine] = []
    more = True
    while more:
        read, more = reader.read()
        lines += read
    reader.close()
    assert data_of(lines) == [b"line %d" % number for number in range(max(0, 50 - tail), 50)]


def test_the_last_lines_count_a_line_in_pieces_once(tmp_path: Path) -> None:
    with writer_in(tmp_path) as writer:
        writer.feed(STDOUT, b"a\n" + b"b" * (PIECE * 2 + 1) + b"\nc\n", 1)
    reader = LogReader(tmp_path, tail_start(tmp_path, 2))
    lines, _ = reader.read()
    reader.close()
    assert [len(line.data) for line in lines] == [PIECE * 2 + 1, 1]


class Changes:
    """Stands for inotify: an event that the test sets."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @contextmanager
    def watching(self, _folder: Path) -> Iterator[asyncio.Event]:
        yield self.event


async def test_following_goes_on_until_the_container_ended(tmp_path: Path) -> None:
    changes, over, never = Changes(), [False], asyncio.Event()
    with writer_in(tmp_path, 100, 100) as writer:
        writer.feed(STDOUT, b"old\nlast\n", 10)
        lines = read_log(
            tmp_path,
            since=0,
            tail=1,
            follow=True,
            watching=changes.watching,
            ended=lambda: over[0],
            end=never.wait,
        )
        assert (await anext(lines)).data == b"last"
        following = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        for number in range(20):
            writer.feed(STDOUT, b"new %d\n" % number, 20)
        changes.event.set()
        assert (await following).data == b"new 0"
        assert [(await anext(lines)).data for _ in range(19)] == [b"new %d" % number for number in range(1, 20)]
        writer.feed(STDOUT, b"the end", 30)
        writer.end(31)
        over[0] = True
        changes.event.set()
        assert (await anext(lines)).data == b"the end"
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    with writer_in(tmp_path) as writer:
        for time in (10, 20, 30):
            writer.feed(STDOUT, b"%d\n" % time, time)
    changes = Changes()
    arguments = {"watching": changes.watching, "ended": lambda: True, "end": changes.event.wait}
    lines = [line async for line in read_log(tmp_path, since=20, tail=-1, follow=False, **arguments)]
    assert data_of(lines) == [b"20", b"30"]
    assert [line async for line in read_log(tmp_path, since=0, tail=0, follow=False, **arguments)] == []
    empty = tmp_path / "none"
    assert [line async for line in read_log(empty, since=0, tail=5, follow=True, **arguments)] == []

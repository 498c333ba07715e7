"""The spool: what goes in comes out by index; memory and disk have bounds; nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogStream, NoticeKind
from swarmtui.logs.spool import LogSpool

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
line = st.builds(
    LogLine, st.integers(0, 1 << 62), text, st.sampled_from(LogStream), st.just("t1"), st.just("s1"), st.just("n1")
)
notice = st.builds(LogNotice, st.integers(0, 1 << 62), st.sampled_from(NoticeKind), text, st.just("n1"), st.just("t1"))
events = st.lists(st.one_of(line, notice), max_size=20)


@given(st.lists(events, max_size=8), st.integers(0, 200), st.integers(0, 200))
def test_any_range_is_what_was_appended(batches: list[list[LogEvent]], start: int, count: int) -> None:
    with LogSpool(segment_events=7) as spool:
        every: list[LogEvent] = []
        for batch in batches:
            assert spool.append(batch) == len(every)
            every += batch
        assert spool.end == len(spool) == len(every)
        assert spool.read(start, count) == every[start : start + count]
        assert spool.read(0, len(every)) == every


def test_the_oldest_segments_go_when_the_disk_is_full(tmp_path: Path) -> None:
    with LogSpool(tmp_path, max_bytes=20_000, segment_events=10) as spool:
        for number in range(200):
            spool.append([LogLine(number, "x" * 500)])
            assert spool.bytes <= 20_000 + 600
        assert spool.first > 100
        assert len(spool) == 200 - spool.first
        found = spool.read(0, 200)
        assert [event.timestamp for event in found] == list(range(spool.first, 200))
        assert spool.read(0, spool.first) == []
        assert [event.timestamp for event in spool.read(spool.first - 5, 7)] == [spool.first, spool.first + 1]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    spool = LogSpool(tmp_path, segment_events=3)
    spool.append([LogLine(1, "a")] * 20)
    assert list(tmp_path.iterdir()) == []
    spool.close()
    assert len(os.listdir("/proc/self/fd")) == opened
    assert spool.read(0, 100) == []


def test_a_line_of_a_megabyte_is_kept() -> None:
    with LogSpool() as spool:
        spool.append([LogLine(1, "a"), LogLine(2, "x" * 1_000_000), LogLine(3, "b")])
        assert [len(event.text) for event in spool.read(0, 3)] == [1, 1_000_000, 1]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        spool.append([LogLine(1, "a")])
    assert len(spool) == 0

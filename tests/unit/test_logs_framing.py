"""Log records: time, origin and text out of bytes, long lines joined, nothing invented."""

from __future__ import annotations

import pytest
from client_fake_engine import frame, log_frame
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.errors import MalformedAnswer
from swarmtui.logs.framing import LineAssembler
from swarmtui.logs.records import LogLine, LogNotice, LogStream, NoticeKind

TIME = "2026-11-21T09:25:43.768941641Z"
NS = 1_795_253_143_768_941_641


def test_a_record_has_time_origin_and_text() -> None:
    (line,) = LineAssembler(terminal=False).feed(log_frame(TIME, "t1", b"hello  world \n", stream=2))
    assert line == LogLine(NS, "hello  world ", LogStream.STDERR, "t1", "s1", "n1")


def test_a_text_that_looks_like_a_time_stays_text() -> None:
    (line,) = LineAssembler(terminal=False).feed(log_frame(TIME, "t1", f"{TIME} a=b,c=d x\n".encode()))
    assert isinstance(line, LogLine)
    assert line.text == f"{TIME} a=b,c=d x"


def test_an_empty_line_is_a_line() -> None:
    (line,) = LineAssembler(terminal=False).feed(log_frame(TIME, "t1", b"\n"))
    assert isinstance(line, LogLine)
    assert (line.text, line.task_id) == ("", "t1")


def test_details_are_unescaped() -> None:
    text = f"{TIME} com.docker.swarm.node.id=n%2C1,com.docker.swarm.task.id=t%3D1 x\n"
    (line,) = LineAssembler(terminal=False).feed(frame(1, text.encode()))
    assert isinstance(line, LogLine)
    assert (line.node_id, line.task_id, line.text) == ("n,1", "t=1", "x")


def test_a_line_that_the_engine_cut_is_joined_by_replica_and_stream() -> None:
    assembler = LineAssembler(terminal=False)
    events = [
        *assembler.feed(log_frame(TIME, "t1", b"one ")),
        *assembler.feed(log_frame(TIME, "t2", b"other\n")),
        *assembler.feed(log_frame(TIME, "t1", b"err\n", stream=2)),
        *assembler.feed(log_frame(TIME, "t1", b"two ")),
        *assembler.feed(log_frame("2026-11-21T09:25:44Z", "t1", b"three\n")),
    ]
    assert [event.text for event in events] == ["other", "err", "one two three"]
    assert events[-1].timestamp == NS


def test_a_character_that_was_cut_in_two_is_whole_again() -> None:
    raw = "grüße\n".encode()
    assembler = LineAssembler(terminal=False)
    assert assembler.feed(log_frame(TIME, "t1", raw[:3])) == []
    (line,) = assembler.feed(log_frame(TIME, "t1", raw[3:]))
    assert line.text == "grüße"


def test_a_line_without_an_end_is_shown_when_the_stream_ends() -> None:
    assembler = LineAssembler(terminal=False)
    assembler.feed(log_frame(TIME, "t1", b"no end"))
    (line,) = assembler.finish()
    assert line.text == "no end"


def test_a_line_without_an_end_has_a_bound() -> None:
    assembler = LineAssembler(terminal=False, limit=10)
    events = []
    for _ in range(5):
        events += assembler.feed(log_frame(TIME, "t1", b"12345678"))
    assert [len(event.text) for event in events] == [16, 16]


def test_bytes_that_are_no_text_are_marked_not_lost() -> None:
    (line,) = LineAssembler(terminal=False).feed(log_frame(TIME, "t1", b"a\xffb\x1b[31m\n"))
    assert line.text == "a\ufffdb\x1b[31m"


def test_a_terminals_log_has_no_frames() -> None:
    assembler = LineAssembler(terminal=True)
    prefix = f"{TIME} com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1 "
    assert assembler.feed(prefix.encode() + b"hel") == []
    (line,) = assembler.feed(b"lo\r\n")
    assert line == LogLine(NS, "hello", LogStream.STDOUT, "t1", "s1", "n1")
    assembler.feed(b"rest")
    (line,) = assembler.finish()
    assert line.text == "rest"


def test_the_engines_own_words_are_a_notice() -> None:
    (notice,) = LineAssembler(terminal=False).feed(frame(3, b"Error grabbing logs: node n4 is not reachable\n"))
    assert notice == LogNotice(0, NoticeKind.ENGINE, "Error grabbing logs: node n4 is not reachable")


def test_a_log_that_ends_in_a_frame_was_cut() -> None:
    assembler = LineAssembler(terminal=False)
    assembler.feed(log_frame(TIME, "t1", b"hello\n")[:-2])
    with pytest.raises(MalformedAnswer, match="middle of a frame"):
        assembler.finish()


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_any_payload_is_read(payloads: list[bytes], terminal: bool) -> None:
    assembler = LineAssembler(terminal=terminal)
    for payload in payloads:
        assembler.feed(payload if terminal else frame(1, payload))
    assembler.finish()

"""Lines, frames, times: whatever the pieces, the whole comes out; what cannot be is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.errors import MalformedAnswer
from swarmtui.docker_api.frames import FrameDecoder, FrameStream
from swarmtui.docker_api.lines import LineSplitter
from swarmtui.docker_api.times import format_time, parse_duration, parse_time, time_parameter
from swarmtui.docker_api.watch import decode_watch_line

cuts = st.lists(st.integers(0, 400), max_size=30)


def pieces(whole: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(whole)) for cut in at), len(whole)]
    return [whole[a:b] for a, b in pairwise(bounds)]


@given(st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")), max_size=12), cuts)
def test_lines_survive_any_cutting(lines: list[bytes], at: list[int]) -> None:
    splitter = LineSplitter()
    whole = b"".join(line + b"\n" for line in lines) + b"rest"
    found = [line for piece in pieces(whole, at) for line in splitter.feed(piece)]
    assert found == [line for line in lines if line and not line.isspace()]
    assert splitter.unfinished == b"rest"


def test_a_line_has_a_bound() -> None:
    splitter = LineSplitter(limit=10)
    splitter.feed(b"12345")
    with pytest.raises(MalformedAnswer):
        splitter.feed(b"678901")


@given(st.lists(st.tuples(st.sampled_from(FrameStream), st.binary(max_size=60)), max_size=10), cuts)
def test_frames_survive_any_cutting(frames: list[tuple[FrameStream, bytes]], at: list[int]) -> None:
    whole = b"".join(bytes([s, 0, 0, 0]) + len(p).to_bytes(4, "big") + p for s, p in frames)
    decoder = FrameDecoder()
    found = [frame for piece in pieces(whole, at) for frame in decoder.feed(piece)]
    assert [(frame.stream, frame.payload) for frame in found] == frames
    assert decoder.unfinished == 0


@given(st.binary(min_size=8, max_size=200))
def test_any_bytes_are_frames_or_refused(raw: bytes) -> None:
    decoder = FrameDecoder()
    try:
        found = decoder.feed(raw)
    except MalformedAnswer:
        return
    assert sum(len(frame.payload) + 8 for frame in found) + decoder.unfinished == len(raw)


def test_a_frame_has_a_bound() -> None:
    with pytest.raises(MalformedAnswer):
        FrameDecoder().feed(b"\1\0\0\0\xff\xff\xff\xff")


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_keep_their_nanoseconds(ns: int) -> None:
    assert parse_time(format_time(ns)) == ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T09:25:01.536151102Z", 1_795_253_101_536_151_102),
        ("2026-11-21T09:25:01.5Z", 1_795_253_101_500_000_000),
        ("2026-11-21T10:25:01+01:00", 1_795_253_101_000_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
    ],
)
def test_times_of_the_recording(text: str, expected: int) -> None:
    assert parse_time(text) == expected


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        parse_time(text)
    except ValueError as error:
        assert "RFC 3339" in str(error) or "must be in" in str(error) or "out of range" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10s", 10_000_000_000), ("1m30s", 90_000_000_000), ("250ms", 250_000_000), ("1.5h", 5_400_000_000_000), ("0", 0)],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "10", "s", "10x", "10s x", "-5s", "1m 30s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_since_has_all_its_digits() -> None:
    assert time_parameter(1_795_253_140_000_000_005) == "1795253140.000000005"


@given(st.binary(max_size=100))
def test_any_line_of_a_watch_is_read_left_out_or_refused(raw: bytes) -> None:
    try:
        line = decode_watch_line(raw)
    except MalformedAnswer:
        return
    assert line is None or line.kind == "synced" or line.object is not None

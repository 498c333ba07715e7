"""The merge: order by time over replicas, order of arrival within one, nobody waited for without a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmtui.logs.merger import LogMerger
from swarmtui.logs.records import LogLine


def line(key: str, timestamp: int, text: str = "") -> LogLine:
    return LogLine(timestamp, text, task_id=key)


def stamps(lines: list[LogLine]) -> list[int]:
    return [each.timestamp for each in lines]


def test_lines_wait_until_every_live_stream_is_as_far() -> None:
    merger = LogMerger(max_wait=10)
    merger.open("a")
    merger.open("b")
    merger.push("a", line("a", 5), 0)
    merger.push("a", line("a", 7), 0)
    assert merger.take(0) == []
    merger.push("b", line("b", 6), 0)
    assert stamps(merger.take(0)) == [5, 6]
    merger.heartbeat("b", 8)
    assert stamps(merger.take(0)) == [7]


def test_a_quiet_stream_delays_for_the_bound_and_no_longer() -> None:
    merger = LogMerger(max_wait=0.2)
    merger.open("quiet")
    merger.push("a", line("a", 5), now=1.0)
    assert merger.due() == 1.2
    assert merger.take(1.19) == []
    assert stamps(merger.take(1.2)) == [5]
    assert merger.due() is None


def test_what_sorts_before_an_overdue_line_goes_with_it() -> None:
    merger = LogMerger(max_wait=0.2)
    merger.open("quiet")
    merger.push("a", line("a", 9), now=1.0)
    merger.push("b", line("b", 3), now=1.1)
    merger.push("b", line("b", 11), now=1.1)
    assert stamps(merger.take(1.2)) == [3, 9]
    assert stamps(merger.take(1.3)) == [11]


def test_a_closed_stream_is_not_waited_for() -> None:
    merger = LogMerger(max_wait=10)
    merger.open("dead")
    merger.push("a", line("a", 5), 0)
    merger.close("dead")
    assert stamps(merger.take(0)) == [5]


def test_a_clock_that_goes_back_does_not_change_a_replicas_order() -> None:
    merger = LogMerger(max_wait=10)
    merger.push("a", line("a", 100, "first"), 0)
    merger.push("a", line("a", 50, "second"), 0)
    merger.push("a", line("a", 101, "third"), 0)
    merger.open("b")
    merger.push("b", line("b", 101, "other"), 0)
    texts = [each.text for each in merger.take(0)]
    assert [text for text in texts if text != "other"] == ["first", "second", "third"]


def test_lateness_is_counted() -> None:
    merger = LogMerger(max_wait=0.1)
    merger.push("a", line("a", 5_000), 0)
    merger.take(0.1)
    merger.open("b")
    merger.push("b", line("b", 1_000), 0.2)
    merger.push("b", line("b", 2_000), 0.2)
    assert stamps(merger.take(0.3)) == [1_000, 2_000]
    late = merger.take_late()
    assert (late["b"].lines, late["b"].nanoseconds) == (2, 4_000)
    assert merger.take_late() == {}


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 1000), st.floats(0, 0.15), st.booleans()), max_size=60
)


@given(steps)
def test_every_line_comes_out_once_in_its_replicas_order(script: list[tuple[str, int, float, bool]]) -> None:
    merger = LogMerger(max_wait=0.2)
    now, out, given_in = 0.0, [], []
    held: dict[int, float] = {}
    for number, (key, timestamp, pause, look) in enumerate(script):
        now += pause
        entry = line(key, timestamp, str(number))
        merger.push(key, entry, now)
        held[number] = now
        given_in.append(entry)
        if look:
            out += merger.take(now)
            released = {int(each.text) for each in out}
            assert all(now < arrived + 0.2 for n, arrived in held.items() if n not in released)
    out += merger.drain()
    assert len(merger) == 0
    assert sorted(int(each.text) for each in out) == list(range(len(script)))
    for key in "abc":
        assert [e for e in out if e.task_id == key] == [e for e in given_in if e.task_id == key]


@given(st.lists(st.lists(st.integers(0, 1000), max_size=20), min_size=1, max_size=4))
def test_streams_that_are_in_order_come_out_in_order(streams: list[list[int]]) -> None:
    merger = LogMerger(max_wait=10)
    out = []
    for number in range(len(streams)):
        merger.open(str(number))
    for number, timestamps in enumerate(streams):
        for timestamp in sorted(timestamps):
            merger.push(str(number), line(str(number), timestamp), 0)
            out += merger.take(0)
    out += merger.drain()
    assert stamps(out) == sorted(timestamp for each in streams for timestamp in each)

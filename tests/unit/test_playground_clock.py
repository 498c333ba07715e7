"""The session's countdown under an injected clock."""

from datetime import UTC, datetime, timedelta

import pytest

from swarmtui.playground.clock import SessionClock, countdown

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def reach(self, left: timedelta, clock: SessionClock) -> None:
        self.time = clock.expires_at - left


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_it_warns_once_at_each_mark_and_then_is_over() -> None:
    wall = Wall()
    clock = SessionClock.starting(timedelta(hours=4), wall)
    assert clock.due() is None
    assert clock.until_next() == timedelta(hours=4) - minutes(15)
    given = []
    for left in (16, 15, 14, 5, 4.5, 1, 0.5):
        wall.reach(minutes(left), clock)
        given.append(clock.due())
    assert given == [None, minutes(15), None, minutes(5), None, minutes(1), None]
    assert not clock.over
    wall.reach(minutes(0), clock)
    assert clock.over
    assert clock.due() is None
    assert clock.remaining == timedelta(0)


def test_after_a_sleep_only_the_nearest_warning_is_given() -> None:
    wall = Wall()
    clock = SessionClock.starting(timedelta(hours=4), wall)
    wall.reach(minutes(0.5), clock)
    assert clock.due() == minutes(1)
    assert clock.due() is None


def test_a_short_session_does_not_begin_with_a_warning() -> None:
    wall = Wall()
    clock = SessionClock.starting(minutes(5), wall)
    assert clock.due() is None
    assert clock.until_next() == minutes(4)


def test_extending_moves_the_end_and_the_warnings() -> None:
    wall = Wall()
    clock = SessionClock.starting(timedelta(hours=1), wall)
    wall.reach(minutes(4), clock)
    assert clock.due() == minutes(5)
    clock.extend(timedelta(hours=1))
    assert clock.expires_at == START + timedelta(hours=2)
    assert clock.until_next() == minutes(64 - 15)
    wall.reach(minutes(5), clock)
    assert clock.due() == minutes(5)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(hours=4), "04:00:00"),
        (timedelta(hours=3, minutes=57, seconds=41), "03:57:41"),
        (timedelta(seconds=0.2), "00:00:01"),
        (timedelta(0), "00:00:00"),
        (timedelta(hours=100), "100:00:00"),
    ],
)
def test_the_countdown_is_rounded_up(left: timedelta, text: str) -> None:
    assert countdown(left) == text

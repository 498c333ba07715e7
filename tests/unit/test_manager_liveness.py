"""The failure detector, tick by tick. A period is 8 ticks here, a tick 1 unit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.api_types.times import SECOND
from agent.manager.dispatcher.liveness import FIRST_GRACE, LONGEST_RETURN, RETURN, Liveness, Silence

PERIOD = SECOND
TICK = PERIOD // 8


def connected(*nodes: str) -> Liveness:
    liveness = Liveness(PERIOD)
    for node in nodes:
        liveness.connected(node)
    return liveness


def ticks(liveness: Liveness, count: int, elapsed: int = TICK) -> list[tuple[str, Silence]]:
    return [found for _ in range(count) for found in liveness.tick(elapsed)]


def test_three_periods_and_a_tick() -> None:
    liveness = connected("a")
    assert ticks(liveness, 24) == []
    assert ticks(liveness, 1) == [("a", Silence.HEARTBEAT)]
    assert ticks(liveness, 100) == [], "told once"


def test_any_word_begins_anew() -> None:
    liveness = connected("a")
    ticks(liveness, 24)
    liveness.heard("a")
    assert ticks(liveness, 24) == []
    assert ticks(liveness, 1) == [("a", Silence.HEARTBEAT)]


def test_sleep_of_our_own_is_no_silence_of_others() -> None:
    liveness = connected("a")
    assert ticks(liveness, 20, elapsed=100 * SECOND) == []


def test_what_arrived_while_we_slept_is_read_before_anybody_is_blamed() -> None:
    liveness = connected("a")
    ticks(liveness, 23)
    assert liveness.tick(10 * SECOND) == []
    liveness.heard("a")
    assert liveness.tick(TICK) == []


def test_lateness_gives_patience_only_while_the_connection_stands() -> None:
    late = connected("stands", "broken")
    late.disconnected("broken")
    late.tick(TICK + SECOND)
    down = [node for node, _ in ticks(late, 25)]
    assert down == ["broken"]
    assert ticks(late, 14) == []
    assert [node for node, _ in ticks(late, 3)] == ["stands"]


def test_lateness_is_forgotten() -> None:
    liveness = connected("a")
    liveness.tick(TICK + SECOND)
    assert liveness.lateness == SECOND
    for _ in range(10):
        ticks(liveness, 8)
        liveness.heard("a")
    assert liveness.lateness == 0


def test_a_broken_connection_is_suspected_until_the_node_is_back() -> None:
    liveness = connected("a")
    assert not liveness.suspected("a")
    liveness.disconnected("a")
    assert liveness.suspected("a")
    assert liveness.away("a")
    liveness.connected("a")
    assert not liveness.suspected("a")
    assert not liveness.suspected("nobody")


def test_a_lease_is_kept() -> None:
    liveness = connected("a")
    liveness.leaving("a", 60 * SECOND)
    liveness.disconnected("a")
    assert not liveness.suspected("a")
    assert liveness.away("a"), "its agent relays nothing meanwhile"
    assert ticks(liveness, 8 * 60) == []
    assert ticks(liveness, 1) == [("a", Silence.LEASE_OVER)]


def test_nobody_gets_a_lease_for_ever() -> None:
    liveness = connected("a")
    liveness.leaving("a", 10**18)
    assert ticks(liveness, 8 * 600 + 1) == [("a", Silence.LEASE_OVER)]


def waits(seconds: int) -> int:
    """Ticks in so many seconds."""
    return 8 * seconds // SECOND


def test_a_new_leader_gives_nodes_three_periods_and_the_time_to_come_back() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_back("a")
    assert list(liveness.awaited()) == ["a"]
    assert not liveness.suspected("a")
    assert ticks(liveness, waits(3 * PERIOD + RETURN)) == []
    assert ticks(liveness, 1) == [("a", Silence.NEVER_HEARD)]


def test_a_longer_period_is_waited_for_three_times_too() -> None:
    liveness = Liveness(5 * PERIOD)
    liveness.expect_back("a")
    assert ticks(liveness, 8 * (15 + 2) // 5, 5 * TICK) == []
    assert ticks(liveness, 2, 5 * TICK) == [("a", Silence.NEVER_HEARD)]


def test_a_node_that_has_just_joined_may_take_its_time() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_first("a")
    assert ticks(liveness, waits(FIRST_GRACE)) == []
    assert ticks(liveness, 1) == [("a", Silence.NEVER_HEARD)]


def test_as_long_as_nodes_come_back_the_others_are_waited_for() -> None:
    liveness = Liveness(PERIOD)
    for number in range(10):
        liveness.expect_back(f"n{number}")
    liveness.expect_back("dead")
    for number in range(10):
        assert ticks(liveness, waits(SECOND)) == []
        liveness.connected(f"n{number}")
        for known in range(number):
            liveness.heard(f"n{known}")
    assert ticks(liveness, waits(RETURN)) == []
    assert ticks(liveness, 1) == [("dead", Silence.NEVER_HEARD)]


def test_but_not_for_ever() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_back("dead")
    for number in range(100):
        liveness.expect_back(f"n{number}")
    down: list[tuple[str, Silence]] = []
    for second in range(1, 30):
        down += ticks(liveness, 8)
        if down:
            break
        liveness.connected(f"n{second}")
        for known in range(1, second):
            liveness.heard(f"n{known}")
    assert ("dead", Silence.NEVER_HEARD) in down
    assert (3 * PERIOD + LONGEST_RETURN) // SECOND <= second <= (3 * PERIOD + LONGEST_RETURN) // SECOND + 1


def test_a_leader_that_is_late_itself_waits_longer_for_those_who_come_back() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_back("a")
    assert ticks(liveness, waits(3 * PERIOD + RETURN + SECOND), TICK + SECOND) == []
    liveness.expect_back("b")
    found = ticks(liveness, waits(3 * PERIOD + LONGEST_RETURN) + 2, TICK + 60 * SECOND)
    assert ("b", Silence.NEVER_HEARD) in found, "but not for ever"


def test_one_that_said_when_it_would_be_back_has_that_long() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_back("a", lease=60 * SECOND)
    assert ticks(liveness, waits(60 * SECOND)) == []
    assert ticks(liveness, 1) == [("a", Silence.LEASE_OVER)]


def test_after_the_first_word_the_usual_applies() -> None:
    liveness = Liveness(PERIOD)
    liveness.expect_back("a", lease=60 * SECOND)
    liveness.connected("a")
    assert list(liveness.awaited()) == []
    assert ticks(liveness, 25) == [("a", Silence.HEARTBEAT)]


@given(
    st.lists(st.integers(TICK, 20 * SECOND), min_size=1, max_size=200),
    st.integers(0, 10),
)
def test_a_node_that_is_heard_after_every_tick_is_never_down(elapsed: list[int], skip: int) -> None:
    """However late the ticks come, and even if some of the words are lost."""
    liveness = connected("a")
    for number, each in enumerate(elapsed):
        assert liveness.tick(each) == []
        if number % (skip + 1) == 0:
            liveness.heard("a")


@given(st.lists(st.integers(TICK, SECOND), min_size=400, max_size=400))
def test_a_dead_node_is_found_however_loaded_the_machine_is(elapsed: list[int]) -> None:
    liveness = connected("a")
    liveness.disconnected("a")
    assert [node for each in elapsed for node, _ in liveness.tick(each)] == ["a"]

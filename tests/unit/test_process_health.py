"""Health checks: defaults, and what results come to."""

from __future__ import annotations

import pytest

from agent.api_types.container import HealthConfig
from agent.api_types.times import SECOND
from agent.worker.executors.process.health import Check, Health, HealthState, Result


def state(**settings: int) -> HealthState:
    check = Check.of(HealthConfig(test=["CMD", "true"], **settings))
    assert check is not None
    return HealthState(check, started_at=1000 * SECOND)


def result(at: int, code: int) -> Result:
    return Result(at * SECOND, at * SECOND, code, "")


def test_what_a_configuration_asks_for() -> None:
    assert Check.of(None) is None
    assert Check.of(HealthConfig()) is None
    assert Check.of(HealthConfig(test=["NONE"])) is None
    assert Check.of(HealthConfig(test=["CMD", "a", "b"])) == Check(
        ("a", "b"), 30 * SECOND, 30 * SECOND, 0, 5 * SECOND, 3
    )
    shell = Check.of(HealthConfig(test=["CMD-SHELL", "a | b"], interval=1, timeout=2, start_period=3, retries=4))
    assert shell == Check(("/bin/sh", "-c", "a | b"), 1, 2, 3, 5 * SECOND, 4)


@pytest.mark.parametrize("test", [["CMD"], ["true"], ["CMD-SHELL"], ["cmd", "x"]])
def test_a_configuration_that_is_wrong(test: list[str]) -> None:
    with pytest.raises(ValueError, match="Unknown healthcheck type"):
        Check.of(HealthConfig(test=test))


def test_one_success_is_enough_and_failures_count_in_a_row() -> None:
    health = state(retries=2)
    assert health.status is Health.STARTING
    assert health.add(result(1001, 1)) is Health.STARTING
    assert health.add(result(1002, 0)) is Health.HEALTHY
    assert health.add(result(1003, 1)) is Health.HEALTHY
    assert health.add(result(1004, 0)) is Health.HEALTHY
    assert health.add(result(1005, -1)) is Health.HEALTHY
    assert health.add(result(1006, 2)) is Health.UNHEALTHY
    assert health.failing_streak == 2


def test_failures_in_the_start_period_do_not_count_until_the_first_success() -> None:
    health = state(retries=1, start_period=10 * SECOND)
    assert health.add(result(1001, 1)) is Health.STARTING
    assert health.failing_streak == 0
    assert health.add(result(1002, 0)) is Health.HEALTHY
    assert health.add(result(1003, 1)) is Health.UNHEALTHY
    late = state(retries=1, start_period=10 * SECOND)
    assert late.add(result(1010, 1)) is Health.UNHEALTHY


def test_checks_come_faster_while_it_starts() -> None:
    health = state(start_period=60 * SECOND, interval=30 * SECOND, start_interval=2 * SECOND)
    assert health.pause(1001 * SECOND) == 2 * SECOND
    assert health.pause(1060 * SECOND) == 30 * SECOND
    health.add(result(1002, 0))
    assert health.pause(1003 * SECOND) == 30 * SECOND


def test_the_last_results_are_kept() -> None:
    health = state(retries=100)
    for number in range(9):
        health.add(result(1001, number + 1))
    assert [one.exit_code for one in health.results] == [5, 6, 7, 8, 9]

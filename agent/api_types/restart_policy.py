"""A restart policy with its defaults filled in: what leader and node go by alike."""

from __future__ import annotations

from dataclasses import dataclass

from agent.api_types.task import RestartCondition, RestartPolicy, TaskSpec
from agent.api_types.times import SECOND

DEFAULT_DELAY = 5 * SECOND


@dataclass(frozen=True, slots=True)
class Policy:
    """A restart policy with the defaults filled in: durations in nanoseconds, 0 attempts and window for no bound."""

    condition: RestartCondition = RestartCondition.ANY
    delay: int = DEFAULT_DELAY
    max_attempts: int = 0
    window: int = 0


def policy_of(spec: TaskSpec) -> Policy:
    """The policy of a task; an unknown condition (an older API let it in) counts as any."""
    given = spec.restart_policy
    if given is None:
        return Policy()
    return Policy(
        condition=_condition(given),
        delay=DEFAULT_DELAY if given.delay is None else given.delay,
        max_attempts=given.max_attempts or 0,
        window=given.window or 0,
    )


def _condition(policy: RestartPolicy) -> RestartCondition:
    try:
        return RestartCondition(policy.condition)
    except ValueError:
        return RestartCondition.ANY

"""Random changes and failures: the desired state is always reached, and no invariant breaks on the way.

`SEEDS=n` runs n seeds instead of the usual number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chaos import Chaos, run_chaos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_time import VirtualLoop, run_virtual
from world import World

from agent.api_types.task import Task, TaskState
from agent.manager import status_reports
from agent.manager.dispatcher.liveness import Liveness
from agent.manager.dispatcher.session import Session
from agent.manager.orchestrator import replicated, restarts
from agent.manager.orchestrator.changes import NewTask, SlotChange
from agent.manager.reaper import Reaper
from agent.manager.restart import DelayedStarts
from agent.manager.scheduler.filters import HostPortFilter
from agent.manager.slots import Slot
from agent.store import watching

SEEDS = int(os.environ.get("SEEDS", "100"))
BLOCK = 10
"""Seeds in one test."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Lost nodes are what this is about; their warnings would fill the report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
@pytest.mark.timeout(120)
def test_all_is_well_after_any_chaos(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        run_chaos(seed)


def test_all_is_well_although_readers_of_the_store_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop falls behind again and again and starts over from a snapshot."""
    cut_off = watching.Watch.cut_off
    offer = watching.Watch.offer
    times: list[watching.Watch] = []

    def counted(self: watching.Watch) -> None:
        times.append(self)
        cut_off(self)

    def limited(self: watching.Watch, commit: watching.Commit) -> None:
        # The invariants watch all tables and must see every commit.
        monkeypatch.setattr(watching, "READER_LIMIT", 5 if self._kinds else 10**9)
        offer(self, commit)

    monkeypatch.setattr(watching.Watch, "cut_off", counted)
    monkeypatch.setattr(watching.Watch, "offer", limited)
    for seed in range(5):
        run_chaos(seed)
    assert len(times) > 100


STEPS = [
    "scale",
    "update",
    "roll_back",
    "create_service",
    "remove_service",
    "power_off",
    "power_on",
    "cut_off",
    "reconnect",
    "set_availability",
    "set_labels",
    "change_leader",
    "remove_node",
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(
    seed=st.integers(0, 1000),
    story=st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from([0.0, 0.01, 0.2, 2.0, 6.0])), max_size=12),
)
def test_all_is_well_after_any_story(seed: int, story: list[tuple[str, float]]) -> None:
    """The same, with stories that hypothesis shortens until only what matters is left."""
    import asyncio

    async def main() -> None:
        async with World(seed) as world:
            chaos = Chaos(world, seed)
            await chaos.create_service()
            for step, pause in story:
                await getattr(chaos, step)()
                await asyncio.sleep(pause)
                world.check()
            await chaos.make_peace()
            await world.settled(within=300)

    run_virtual(main(), VirtualLoop())


# -- bugs that were planted, to see whether the simulation finds them


def _leave_the_old_task_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_old(slot: Slot, desired: Any = (), new: NewTask | None = None) -> SlotChange:
        return SlotChange(slot, (), new)

    monkeypatch.setattr(restarts, "SlotChange", without_old)


def _count_only_running_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        replicated, "is_open", lambda slot: any(task.desired_state is TaskState.RUNNING for task in slot.wanted)
    )


def _believe_any_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(task: Task, node_id: str, status: Any, now: int) -> Task:
        import msgspec

        return msgspec.structs.replace(task, status=status)

    monkeypatch.setattr(status_reports, "accept", accept)


def _never_start_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(self: DelayedStarts) -> None:
        return None

    monkeypatch.setattr(DelayedStarts, "act", act)


def _never_find_a_node_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Liveness, "tick", lambda self, elapsed: [])


def _tell_nodes_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "tasks_changed", lambda self, task_ids: None)


def _forget_host_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostPortFilter, "check", lambda self, info: True)


def _keep_all_history(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trim(self: Reaper) -> None:
        return None

    monkeypatch.setattr(Reaper, "_trim", trim)


def _write_without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slot, "unchanged", lambda self, tasks: True)


@pytest.mark.parametrize(
    "plant",
    [
        _leave_the_old_task_wanted,
        _count_only_running_slots,
        _believe_any_state,
        _never_start_what_waits,
        _never_find_a_node_down,
        _tell_nodes_only_once,
        _forget_host_ports,
        _keep_all_history,
        _write_without_looking,
    ],
)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(60):
        try:
            run_chaos(seed)
        except (AssertionError, ExceptionGroup):
            break
    else:
        pytest.fail("no seed found it")
    monkeypatch.undo()
    run_chaos(seed)

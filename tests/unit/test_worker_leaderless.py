"""Tasks that fail while the managers have no leader: run again by the node, by their policy, and truthfully reported."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_worker_tasks import Life, life
from worker_fakes import (
    Container,
    FakeAttacher,
    FakeHost,
    VirtualLoop,
    make_task,
    random_hurdles,
    run_virtual,
)

from agent.api_types.container import ContainerSpec, SecretReference
from agent.api_types.secret import Secret, SecretSpec
from agent.api_types.task import RestartPolicy, Task, TaskSpec, TaskState, TaskStatus
from agent.api_types.times import SECOND, format_time
from agent.rpc.messages import TaskReport
from agent.worker import local_restarts
from agent.worker.interface import RejectedByExecutor

RUNNING, SHUTDOWN, FAILED, COMPLETE, REJECTED = (
    TaskState.RUNNING,
    TaskState.SHUTDOWN,
    TaskState.FAILED,
    TaskState.COMPLETE,
    TaskState.REJECTED,
)


def task(task_id: str = "a", desired: TaskState = RUNNING, **policy: object) -> Task:
    """A task whose restart policy has these fields."""
    spec = TaskSpec(container_spec=ContainerSpec(image="bb:1"), restart_policy=RestartPolicy(**policy))
    return make_task(task_id, desired, spec=spec)


# -- the decision


@pytest.mark.parametrize(
    ("subject", "state", "ends", "due"),
    [
        (task(), FAILED, [100 * SECOND], 105 * SECOND),
        (make_task("a"), FAILED, [100 * SECOND], 105 * SECOND),
        (task(delay=0), COMPLETE, [100 * SECOND], 100 * SECOND),
        (task(condition="none"), FAILED, [100 * SECOND], None),
        (task(condition="on-failure"), COMPLETE, [100 * SECOND], None),
        (task(condition="on-failure"), REJECTED, [100 * SECOND], 105 * SECOND),
        (task(max_attempts=2, delay=0), FAILED, [1, 2], 2),
        (task(max_attempts=2, delay=0), FAILED, [1, 2, 3], None),
        (task(max_attempts=2, delay=0, window=10), FAILED, [1, 2, 20], 20),
        (task(max_attempts=2, delay=0, window=10), FAILED, [1, 12, 20], 20),
        (task(max_attempts=2, delay=0, window=10), FAILED, [11, 12, 20], None),
        (task(desired=SHUTDOWN), FAILED, [1], None),
        (task(desired=TaskState.READY), FAILED, [1], None),
        (task(desired=COMPLETE, delay=0), COMPLETE, [1], None),
        (task(desired=COMPLETE, delay=0), FAILED, [1], 1),
        (task(), SHUTDOWN, [1], None),
        (task(), TaskState.ORPHANED, [1], None),
        (task(), FAILED, [], None),
    ],
)
def test_when_a_task_runs_again(subject: Task, state: TaskState, ends: list[int], due: int | None) -> None:
    assert local_restarts.due(subject, state, ends) == due


def test_earlier_tasks_of_the_slot_count() -> None:
    def ended(task_id: str, at: int, **changes: object) -> tuple[Task, TaskStatus]:
        return make_task(task_id, SHUTDOWN, **changes), TaskStatus(state=FAILED, timestamp=format_time(at * SECOND))

    others = [ended("b", 7), ended("c", 3), ended("d", 1, slot=2), ended("e", 1, service_id="other"), ended("a", 9)]
    assert local_restarts.ends_before(make_task("a"), others) == [3 * SECOND, 7 * SECOND]


# -- the life


async def failing(one: Life, host: FakeHost, task_id: str, code: int = 1) -> None:
    """The container ends, and its worker has seen it."""
    runner = one.worker.runner(task_id)
    assert runner is not None
    host.end(task_id, code)
    while runner.status.state is RUNNING:
        await asyncio.sleep(0.001)


async def running_again(one: Life, task_id: str) -> TaskStatus:
    runner = one.worker.runner(task_id)
    assert runner is not None
    while runner.status.state is not RUNNING:
        await asyncio.sleep(0.01)
    return runner.status


def test_a_task_that_fails_runs_again_after_its_delay_and_says_how_often(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host, attacher = FakeHost(), FakeAttacher()
        async with life(host, tmp_path, loop, attacher=attacher) as one:
            one.complete(task("a", delay=3 * SECOND))
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            for count in ("once", "2 times", "3 times"):
                await failing(one, host, "a")
                failed = loop.now
                status = await running_again(one, "a")
                assert loop.now - failed == pytest.approx(3.0, abs=0.05)
                assert status.message == f"restarted {count} by the node while the managers had no leader"
                assert status.err == ""
                assert status.container_status is not None
                assert status.container_status.exit_code == 0
            assert host.started == ["a"] * 4
            one.worker.set_leaderless(False)
            # From now on it is the leader's affair again, and the message stays.
            await failing(one, host, "a", 7)
            await asyncio.sleep(30)
            assert host.started == ["a"] * 4
            status = one.worker.statuses()["a"]
            assert (status.state, status.err) == (FAILED, "task: non-zero exit (7)")
            assert status.message == "restarted 3 times by the node while the managers had no leader"
            assert attacher.calls.count(("activate", "a")) == 4
        assert host.violations == []

    run_virtual(main)


def test_one_that_failed_before_the_node_knew_runs_again_too(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("a", delay=SECOND), task("b", delay=SECOND, condition="none"))
            await one.until_state("b", RUNNING)
            await failing(one, host, "a")
            await failing(one, host, "b")
            await asyncio.sleep(4)
            one.worker.set_leaderless(True)
            begun = loop.now
            await running_again(one, "a")
            assert loop.now - begun < 0.05
            await asyncio.sleep(10)
            assert host.started == ["a", "b", "a"]

    run_virtual(main)


def test_what_the_managers_never_heard_of_they_do_not_hear_of_later(tmp_path: Path) -> None:
    """The states that the next session reports never fall below what an earlier one said, and are true."""

    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("a", delay=SECOND), task("b", delay=60 * SECOND))
            await one.until_state("b", RUNNING)
            await asyncio.sleep(1)
            one.seen.clear()
            outbox = one.worker.outbox
            # Nobody takes reports while there is no session.
            taken: list[TaskReport] = []
            take = outbox.take

            async def nobody() -> list[TaskReport]:
                return await asyncio.get_running_loop().create_future()

            outbox.take = nobody  # type: ignore[method-assign]
            outbox.put("x", TaskStatus())
            await asyncio.sleep(0.1)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            await failing(one, host, "b")
            await running_again(one, "a")
            await asyncio.sleep(1)
            one.worker.set_leaderless(False)
            one.worker.resend()
            outbox.take = take  # type: ignore[method-assign]
            outbox.drop("x")
            taken += await outbox.take()
            states = {report.task_id: report.status for report in taken}
            assert states["a"].state is RUNNING
            assert states["a"].message.startswith("restarted once")
            # The one that still waited for its delay has failed, and the leader decides.
            assert states["b"].state is FAILED

    run_virtual(main)


@pytest.mark.parametrize("moment", ["delay", "remove", "prepare", "start"])
def test_a_leader_that_comes_back_counts_at_once(tmp_path: Path, moment: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("a", delay=SECOND))
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            host.delay = lambda: 0.5
            if moment == "delay":
                await asyncio.sleep(0.5)
            while moment != "delay" and host.busy.get("a") != moment:
                await asyncio.sleep(0.01)
            one.worker.set_leaderless(False)
            host.delay = lambda: 0.0
            await asyncio.sleep(5)
            runner = one.worker.runner("a")
            assert runner is not None
            assert runner.status.state is FAILED
            assert host.containers.get("a") is not Container.RUNNING
            # The same when its word is that the task is to stop, in the middle of a restart.
            one.change(task("a", SHUTDOWN))
            await asyncio.sleep(5)
            one.change(removed_tasks=["a"])
            await one.worker.gone("a")
            assert host.containers == {}
        assert host.violations == []

    run_virtual(main)


def test_a_leader_that_heard_of_the_end_after_all_is_right(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            subject = task("a", delay=SECOND)
            one.complete(subject)
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            await running_again(one, "a")
            one.worker.set_leaderless(False)
            failed = TaskStatus(state=FAILED, message="started", err="task: non-zero exit (1)")
            one.complete(make_task("a", spec=subject.spec, status=failed))
            while host.containers["a"] is Container.RUNNING:
                await asyncio.sleep(0.01)
            runner = one.worker.runner("a")
            assert runner is not None
            assert runner.status.state is FAILED

    run_virtual(main)


def test_attempts_and_window_are_counted_over_the_tasks_of_the_slot(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("old", max_attempts=2, delay=SECOND))
            await one.until_state("old", RUNNING)
            await failing(one, host, "old")
            one.change(task("old", SHUTDOWN, max_attempts=2, delay=0), task("a", max_attempts=2, delay=SECOND))
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            await running_again(one, "a")
            await failing(one, host, "a")
            await asyncio.sleep(60)
            assert host.started == ["old", "a", "a"]
            runner = one.worker.runner("a")
            assert runner is not None
            assert runner.status.state is FAILED

    run_virtual(main)


def test_a_restart_that_fails_is_tried_again_by_the_policy(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("a", delay=2 * SECOND, max_attempts=3))
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            tries: list[float] = []

            def hurdle(operation: str, task_id: str) -> Exception | None:
                if operation == "prepare":
                    tries.append(loop.now)
                    return RejectedByExecutor("No such image: bb:1")
                return None

            host.hurdle = hurdle
            await failing(one, host, "a")
            await asyncio.sleep(60)
            assert len(tries) == 3
            assert [b - a for a, b in itertools.pairwise(tries)] == pytest.approx([2.0, 2.0], abs=0.1)
            runner = one.worker.runner("a")
            assert runner is not None
            assert (runner.status.state, runner.status.err) == (FAILED, "No such image: bb:1")

    run_virtual(main)


def test_a_task_without_its_secrets_waits_for_a_leader(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        spec = TaskSpec(
            container_spec=ContainerSpec(image="bb:1", secrets=[SecretReference(secret_id="s", secret_name="s")]),
            restart_policy=RestartPolicy(delay=SECOND),
        )
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a", spec=spec), secrets=[Secret(id="s", spec=SecretSpec(data=b"1"))])
            await one.until_state("a", RUNNING)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            await running_again(one, "a")
            one.change(removed_secrets=["s"])
            await failing(one, host, "a")
            await asyncio.sleep(10)
            assert host.started == ["a", "a"]

    run_virtual(main)


def test_an_agent_that_comes_up_without_a_leader_starts_nothing(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task("a", delay=SECOND), task("b", delay=SECOND))
            await one.until_state("b", RUNNING)
            one.worker.set_leaderless(True)
            await failing(one, host, "a")
            await running_again(one, "a")
        host.end("b", 1)
        async with life(host, tmp_path, loop) as one:
            one.worker.set_leaderless(True)
            await asyncio.sleep(20)
            # The node may have been away for long: what it no longer runs may run elsewhere.
            assert host.containers == {"a": Container.RUNNING, "b": Container.EXITED}
            runner = one.worker.runner("a")
            assert runner is not None
            assert runner.status.message.startswith("restarted once")

    run_virtual(main)


def test_an_agent_killed_in_the_middle_of_a_restart_leaves_nothing_running_unseen(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        for number, moment in enumerate(("remove", "prepare", "start", "after")):
            host = FakeHost()
            folder = tmp_path / str(number)
            async with life(host, folder, loop) as one:
                one.complete(task("a", delay=SECOND))
                await one.until_state("a", RUNNING)
                await asyncio.sleep(1)
                one.worker.set_leaderless(True)
                await failing(one, host, "a")
                await asyncio.sleep(0.5)
                host.delay = lambda: 0.5
                # Killed: what changes from now on does not reach the disk.
                one.worker._kept.write_tasks = lambda kept, gone: None  # type: ignore[method-assign]
                if moment == "after":
                    await running_again(one, "a")
                else:
                    while host.busy.get("a") != moment:
                        await asyncio.sleep(0.01)
            host.delay = lambda: 0.0
            async with life(host, folder, loop) as one:
                await asyncio.sleep(5)
                runner = one.worker.runner("a")
                assert runner is not None
                assert runner.status.state is FAILED
                assert host.containers.get("a") is not Container.RUNNING

    run_virtual(main)


operations = st.one_of(
    st.tuples(st.just("leaderless"), st.booleans()),
    st.tuples(st.just("end"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("wait"), st.floats(0, 4)),
    st.tuples(st.just("session"), st.booleans()),
    st.tuples(st.just("stop"), st.sampled_from(["a", "b"])),
)


@given(st.lists(operations, max_size=25), st.integers(0, 2**32), st.floats(0, 0.3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_a_store_sees_states_rise_and_one_controller_works(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, object]], seed: int, share: float
) -> None:
    folder = tmp_path_factory.mktemp("worker")

    async def main(loop: VirtualLoop) -> None:
        source = random.Random(seed)
        host = FakeHost(delay=lambda: source.choice([0, 0, 0.01, 0.3]), hurdle=random_hurdles(source, share))
        tasks = {name: task(name, delay=SECOND, max_attempts=4, window=10 * SECOND) for name in "ab"}
        store: dict[str, TaskStatus] = {}
        async with life(host, folder, loop) as one:
            one.complete(*tasks.values())

            def write() -> None:
                """What a leader writes of the reports that came; it believes no state that falls."""
                for name in "ab":
                    for status in one.seen.pop(name, []):
                        if name not in store or (
                            not store[name].state.terminal and status.state.rank >= store[name].state.rank
                        ):
                            store[name] = status

            for kind, subject in script:
                if kind == "leaderless":
                    one.worker.set_leaderless(bool(subject))
                elif kind == "end":
                    host.end(str(subject), 1)
                elif kind == "wait":
                    await asyncio.sleep(float(str(subject)))
                elif kind == "stop":
                    tasks[str(subject)] = task(str(subject), SHUTDOWN)
                    one.change(tasks[str(subject)])
                elif kind == "session":
                    one.worker.set_leaderless(False)
                    await asyncio.sleep(0)
                    write()
                    one.worker.resend()
                    one.complete(
                        *(
                            make_task(name, each.desired_state, spec=each.spec, status=store.get(name, each.status))
                            for name, each in tasks.items()
                        )
                    )
            host.hurdle = lambda operation, task_id: None
            one.worker.set_leaderless(False)
            await asyncio.sleep(60)
            write()
            one.complete(
                *(
                    make_task(name, each.desired_state, spec=each.spec, status=store.get(name, each.status))
                    for name, each in tasks.items()
                )
            )
            await asyncio.sleep(60)
            for name in "ab":
                # What a store says has ended does not run, and what it calls running does.
                is_running = host.containers.get(name) is Container.RUNNING
                assert is_running == (store[name].state is RUNNING), (name, store[name], host.containers)
            one.complete()
            await one.worker.clear()
        assert host.violations == []
        assert host.containers == {}

    run_virtual(main)

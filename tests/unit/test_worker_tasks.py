"""The worker with an executor in memory: the life of tasks, what is kept on disk, and random interleavings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_fakes import (
    Container,
    FakeAttacher,
    FakeExecutor,
    FakeHost,
    VirtualLoop,
    make_task,
    random_hurdles,
    run_virtual,
)

from agent.api_types.container import ConfigReference, ContainerSpec, PullOptions, SecretReference
from agent.api_types.secret import Config, ConfigSpec, Secret, SecretSpec
from agent.api_types.task import Endpoint, EndpointSpec, PortConfig, Task, TaskSpec, TaskState, TaskStatus
from agent.rpc.messages import Assignments, ManagerAddress
from agent.worker.interface import RejectedByExecutor, TemporaryFailure
from agent.worker.kept_state import Kept, KeptState, KeptTask, NewerState
from agent.worker.worker import Worker

READY, RUNNING, SHUTDOWN, REMOVE = TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE


class Life:
    """One life of an agent: a worker that runs, and every status it reported."""

    def __init__(self, worker: Worker, seen: dict[str, list[TaskStatus]]) -> None:
        self.worker = worker
        self.seen = seen
        self._news = asyncio.Condition()

    async def read_reports(self) -> None:
        while True:
            for report in await self.worker.outbox.take():
                self.seen.setdefault(report.task_id, []).append(report.status)
            async with self._news:
                self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(condition)

    async def until_state(self, task_id: str, state: TaskState) -> TaskStatus:
        await self.until(lambda: any(status.state is state for status in self.seen.get(task_id, [])))
        return next(status for status in reversed(self.seen[task_id]) if status.state is state)

    def states(self, task_id: str) -> list[str]:
        return [status.state.value for status in self.seen.get(task_id, [])]

    def complete(self, *tasks: Task, **rest: object) -> None:
        self.worker.apply(Assignments(index=1, complete=True, tasks=list(tasks), **rest))

    def change(self, *tasks: Task, **rest: object) -> None:
        self.worker.apply(Assignments(index=2, complete=False, tasks=list(tasks), **rest))


@contextlib.asynccontextmanager
async def life(
    host: FakeHost,
    folder: Path,
    loop: VirtualLoop,
    *,
    attacher: FakeAttacher | None = None,
    seen: dict[str, list[TaskStatus]] | None = None,
) -> AsyncIterator[Life]:
    worker = Worker(FakeExecutor(host), attacher, state_dir=folder, clock=loop.clock)
    one = Life(worker, {} if seen is None else seen)
    running = asyncio.create_task(worker.run())
    reading = asyncio.create_task(one.read_reports())
    await worker.restored.wait()
    try:
        yield one
    finally:
        for task in (running, reading):
            task.cancel()
        results = await asyncio.gather(running, reading, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


def test_a_task_goes_through_every_state_and_stops_when_told(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host, attacher = FakeHost(delay=lambda: 0.1), FakeAttacher()
        async with life(host, tmp_path, loop, attacher=attacher) as one:
            one.complete(make_task("a", READY))
            await one.until_state("a", READY)
            assert host.containers == {"a": Container.CREATED}
            one.change(make_task("a", RUNNING))
            running = await one.until_state("a", RUNNING)
            assert (running.message, running.err) == ("started", "")
            assert running.container_status is not None
            assert running.container_status.container_id == "c-a"
            one.change(make_task("a", SHUTDOWN))
            stopped = await one.until_state("a", SHUTDOWN)
            assert (stopped.message, stopped.err) == ("shutdown", "")
            assert host.containers == {"a": Container.EXITED}
            one.change(removed_tasks=["a"])
            await one.worker.clear()
            assert host.containers == {}
        ranks = [status.state.rank for status in one.seen["a"]]
        assert ranks == sorted(ranks)
        assert [name for name, _ in attacher.calls] == ["attach", "activate", "deactivate", "detach"]
        assert [name for name, _ in host.calls] == ["prepare", "start", "wait", "shutdown", "remove"]
        assert host.violations == []

    run_virtual(main)


def test_a_published_task_drains_two_seconds_before_it_stops(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        ports = Endpoint(spec=EndpointSpec(ports=[PortConfig(target_port=80, publish_mode="ingress")]))
        async with life(host, tmp_path, loop, attacher=FakeAttacher()) as one:
            one.complete(make_task("a", endpoint=ports), make_task("b"), make_task("c", endpoint=ports))
            for task_id in "abc":
                await one.until_state(task_id, RUNNING)
            begun = loop.now
            one.change(make_task("a", SHUTDOWN, endpoint=ports), make_task("b", SHUTDOWN))
            await one.until_state("b", SHUTDOWN)
            assert loop.now == begun
            await one.until_state("a", SHUTDOWN)
            assert loop.now == pytest.approx(begun + 2.0)
            # A complete assignment comes after an absence: nobody sends connections to these any more.
            begun = loop.now
            one.complete(make_task("c", SHUTDOWN, endpoint=ports))
            await one.until_state("c", SHUTDOWN)
            assert loop.now == begun

    run_virtual(main)


def test_a_temporary_failure_is_shown_and_tried_again_with_growing_delays(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        times: list[float] = []

        def hurdle(operation: str, task_id: str) -> Exception | None:
            if operation != "prepare" or len(times) == 6:
                return None
            times.append(loop.now)
            return TemporaryFailure("engine is restarting")

        host = FakeHost(hurdle=hurdle)
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a"))
            await one.until(lambda: any(s.err == "engine is restarting" for s in one.seen.get("a", [])))
            waiting = next(status for status in one.seen["a"] if status.err)
            assert waiting.state is TaskState.PREPARING
            running = await one.until_state("a", RUNNING)
            assert running.err == ""
            pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
            assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0]

    run_virtual(main)


def test_a_back_off_ends_at_once_when_the_task_is_no_longer_wanted(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(hurdle=lambda operation, _: TemporaryFailure("away") if operation == "prepare" else None)
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a"))
            await one.until(lambda: any(s.err for s in one.seen.get("a", [])))
            begun = loop.now
            one.change(make_task("a", SHUTDOWN))
            await one.until_state("a", SHUTDOWN)
            assert loop.now == begun

    run_virtual(main)


@pytest.mark.parametrize(
    ("operation", "state"),
    [("controller", "rejected"), ("prepare", "rejected"), ("start", "failed"), ("wait", "failed")],
)
def test_a_refusal_ends_the_task_with_its_text(tmp_path: Path, operation: str, state: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(hurdle=lambda called, _: RejectedByExecutor("never") if called == operation else None)
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a"))
            status = await one.until_state("a", TaskState(state))
            assert status.err == "never"
            # Only a start that failed may have left something that runs.
            await asyncio.sleep(1)
            assert ("shutdown" in {name for name, _ in host.calls}) == (operation in ("start", "wait"))

    run_virtual(main)


def test_an_error_nobody_foresaw_ends_the_task_and_not_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(hurdle=lambda called, task: KeyError("x") if (called, task) == ("prepare", "a") else None)
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a"), make_task("b"))
            assert (await one.until_state("a", TaskState.REJECTED)).err == "KeyError: 'x'"
            await one.until_state("b", RUNNING)

    run_virtual(main)
    assert "task a: prepare failed" in caplog.text


def test_the_end_of_a_process_is_reported(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host, attacher = FakeHost(), FakeAttacher()
        async with life(host, tmp_path, loop, attacher=attacher) as one:
            one.complete(make_task("a"), make_task("b"))
            await one.until_state("a", RUNNING)
            await one.until_state("b", RUNNING)
            host.end("a", 0)
            host.end("b", 7)
            assert (await one.until_state("a", TaskState.COMPLETE)).message == "finished"
            failed = await one.until_state("b", TaskState.FAILED)
            assert failed.err == "task: non-zero exit (7)"
            assert failed.container_status is not None
            assert failed.container_status.exit_code == 7
            assert [name for name, task in attacher.calls if task == "a"] == [
                "attach",
                "activate",
                "deactivate",
                "detach",
            ]

    run_virtual(main)


def test_secrets_reach_the_controller_and_never_the_disk(tmp_path: Path) -> None:
    spec = ContainerSpec(
        image="bb:1",
        secrets=[SecretReference(secret_id="s1", secret_name="password")],
        configs=[ConfigReference(config_id="c1", config_name="settings")],
    )
    task = make_task("a", spec=TaskSpec(container_spec=spec))
    secret = Secret(id="s1", spec=SecretSpec(name="password", data=b"correct horse battery"))
    config = Config(id="c1", spec=ConfigSpec(name="settings", data=b"answer = 42"))

    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(task)
            await one.until(lambda: any(s.err for s in one.seen.get("a", [])))
            assert one.seen["a"][-1].err == "waiting for secret password, config settings"
            assert one.seen["a"][-1].state is TaskState.ACCEPTED
            one.change(secrets=[secret], configs=[config])
            await one.until_state("a", RUNNING)
            assert host.secrets["a"].secrets == {"s1": b"correct horse battery"}
            assert host.secrets["a"].configs == {"c1": b"answer = 42"}

    run_virtual(main)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b'"password"' in written
    for data in (b"correct horse battery", b"Y29ycmVjdCBob3", b"answer = 42", b"YW5zd2Vy"):
        assert data not in written


def test_a_restarted_agent_finds_its_tasks_before_it_has_a_manager(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        seen: dict[str, list[TaskStatus]] = {}
        async with life(host, tmp_path, loop, seen=seen) as one:
            one.complete(make_task("a"), make_task("b"), make_task("waits", READY))
            one.worker.remember_managers([ManagerAddress("m", "10.0.0.1:2377")])
            for task_id in "ab":
                await one.until_state(task_id, RUNNING)
            await one.until_state("waits", READY)
        assert set(host.containers.values()) == {Container.RUNNING, Container.CREATED}
        host.end("b", 9)
        async with life(host, tmp_path, loop, seen=seen) as two:
            failed = await two.until_state("b", TaskState.FAILED)
            assert failed.err == "task: non-zero exit (9)"
            assert two.worker.managers == [ManagerAddress("m", "10.0.0.1:2377")]
            assert host.containers["a"] is Container.RUNNING
            assert host.started == ["a", "b"]
            # What did not run yet waits for a manager: it may long run elsewhere.
            await asyncio.sleep(30)
            assert host.containers["waits"] is Container.CREATED
            two.complete(make_task("a"), make_task("waits", RUNNING))
            await two.until_state("waits", RUNNING)
        assert host.violations == []

    run_virtual(main)


def test_a_damaged_file_is_put_aside_and_the_manager_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(*(make_task(name) for name in ("a", "b", "c", "d")))
            for name in "abcd":
                await one.until_state(name, RUNNING)
        for name, damage in (
            ("a", lambda content: content[:-20]),
            ("b", lambda content: content.replace(b"running", b"runninG")),
            ("c", lambda content: b""),
        ):
            path = tmp_path / "tasks" / f"{name}.json"
            path.write_bytes(damage(path.read_bytes()))
        (tmp_path / "tasks" / "d.json.new").write_bytes(b"half a wri")
        async with life(host, tmp_path, loop) as two:
            assert two.worker.runner("d") is not None
            assert [two.worker.runner(name) for name in "abc"] == [None, None, None]
            # Nothing is lost: containers go on until a manager says what they are.
            await asyncio.sleep(30)
            assert set(host.containers.values()) == {Container.RUNNING}
            running = TaskStatus(state=RUNNING, message="started")
            two.complete(make_task("a", status=running), make_task("b", status=running), make_task("d"))
            await asyncio.sleep(30)
            assert host.containers == dict.fromkeys("abd", Container.RUNNING)
            assert host.started == ["a", "b", "c", "d"]
            assert two.worker.runner("c") is None
        assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["a.json", "b.json", "c.json"]
        assert not list((tmp_path / "tasks").glob("*.new"))

    run_virtual(main)
    assert "put aside as" in caplog.text


def test_state_of_a_newer_agent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    checksum = zlib.crc32(b"{}", zlib.crc32(b"2"))
    (tmp_path / "tasks" / "a.json").write_bytes(f"swarmtui-task 2 {checksum:08x}\n{{}}".encode())

    async def main(loop: VirtualLoop) -> None:
        worker = Worker(FakeExecutor(FakeHost()), state_dir=tmp_path, clock=loop.clock)
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run())
        (error,) = caught.value.exceptions
        assert isinstance(error, NewerState | ExceptionGroup)
        assert "upgrade the agent" in str(error) or "upgrade the agent" in str(error.exceptions)

    run_virtual(main)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_file_with_any_flipped_or_missing_bytes_is_put_aside(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kept = KeptState(tmp_path_factory.mktemp("kept"))
    kept.load()
    whole = KeptTask(make_task("a"), TaskStatus(state=RUNNING))
    kept.write_tasks([whole], [])
    kept.write_managers([ManagerAddress("m", "10.0.0.1:1")])
    for path in (kept.folder / "tasks" / "a.json", kept.folder / "managers.json"):
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        path.write_bytes(content)
    assert kept.load() == Kept([], [])
    assert len(list((kept.folder / "damaged").iterdir())) == 2
    kept.write_tasks([whole], ["never-was"])
    assert kept.load().tasks == [whole]


def test_an_id_that_is_none_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with life(FakeHost(), tmp_path / "state", loop) as one:
            one.complete(make_task("../../escaped"), make_task(""), make_task("a"))
            await one.until_state("a", RUNNING)

    run_virtual(main)
    assert "'../../escaped', which is none" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_no_manager_knows_is_removed(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(containers={"stray": Container.RUNNING, "dead": Container.EXITED})
        async with life(host, tmp_path, loop) as one:
            await asyncio.sleep(30)
            assert set(host.containers) == {"stray", "dead"}
            one.complete(make_task("a"))
            await one.until_state("a", RUNNING)
            await asyncio.sleep(1)
            assert set(host.containers) == {"a"}
            assert set(one.seen) == {"a"}
        assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["a.json"]

    run_virtual(main)


def test_a_task_given_up_by_the_manager_is_stopped_and_never_started(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(containers={"old": Container.RUNNING})
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("old", SHUTDOWN, status=TaskStatus(state=TaskState.ORPHANED)))
            await asyncio.sleep(1)
            assert host.containers == {"old": Container.EXITED}
            assert host.started == []

    run_virtual(main)


def test_a_full_disk_delays_neither_tasks_nor_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import agent.worker.kept_state as kept_state

    full = True
    replace = kept_state._replace

    def maybe_full(path: Path, content: bytes) -> None:
        if full:
            raise OSError(28, "No space left on device")
        replace(path, content)

    monkeypatch.setattr(kept_state, "_replace", maybe_full)

    async def main(loop: VirtualLoop) -> None:
        nonlocal full
        host = FakeHost()
        async with life(host, tmp_path, loop) as one:
            one.complete(make_task("a"))
            await one.until_state("a", RUNNING)
            full = False
            await asyncio.sleep(10)
            assert (tmp_path / "tasks" / "a.json").exists()

    run_virtual(main)
    assert "No space left on device" in caplog.text


def test_statuses_are_coalesced_while_nobody_takes_them(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        host = FakeHost(delay=lambda: 0.5)
        worker = Worker(FakeExecutor(host), state_dir=tmp_path, clock=loop.clock)
        running = asyncio.create_task(worker.run())
        await worker.restored.wait()
        worker.apply(Assignments(index=1, complete=True, tasks=[make_task(f"t{n}") for n in range(450)]))
        await asyncio.sleep(10)
        sizes, states = [], set()
        while worker.outbox._waiting:
            batch = await worker.outbox.take()
            sizes.append(len(batch))
            states |= {report.status.state for report in batch}
        assert sizes == [200, 200, 50]
        assert states == {RUNNING}
        worker.resend()
        again = await worker.outbox.take()
        assert len(again) == 200
        worker.outbox.give_back(again)
        assert len(worker.outbox._waiting) == 450
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(main)


# -- random interleavings

NAMES = [f"task{number}" for number in range(4)]

operations = st.one_of(
    st.tuples(st.just("assign"), st.sampled_from(NAMES), st.sampled_from([READY, RUNNING, SHUTDOWN, REMOVE])),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("complete"), st.lists(st.sampled_from(NAMES), unique=True), st.none()),
    st.tuples(st.just("end"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.tuples(st.just("vanish"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("wait"), st.floats(0, 3), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


class Manager:
    """What a manager believes: desired states only rise, ids are never used twice, statuses only rise."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.generation = dict.fromkeys(NAMES, 0)
        self.heard: dict[str, list[TaskStatus]] = {}

    def current(self, name: str) -> str:
        return f"{name}x{self.generation[name]}"

    def want(self, name: str, desired: TaskState) -> Task:
        task_id = self.current(name)
        old = self.tasks.get(task_id)
        if old is not None and old.desired_state.rank > desired.rank:
            desired = old.desired_state
        status = self.heard[task_id][-1] if self.heard.get(task_id) else TaskStatus(state=TaskState.ASSIGNED)
        self.tasks[task_id] = make_task(task_id, desired, status=status)
        return self.tasks[task_id]

    def give_up(self, name: str) -> str | None:
        task_id = self.current(name)
        if self.tasks.pop(task_id, None) is None:
            return None
        self.generation[name] += 1
        return task_id


@given(st.lists(operations, max_size=30), st.integers(0, 2**32), st.floats(0, 0.5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_states_rise_controllers_are_single_and_all_is_removed(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, object, object]], seed: int, share: float
) -> None:
    folder = tmp_path_factory.mktemp("worker")

    async def main(loop: VirtualLoop) -> None:
        source = random.Random(seed)
        host = FakeHost(delay=lambda: source.choice([0, 0, 0.01, 0.3]), hurdle=random_hurdles(source, share))
        manager = Manager()
        position = 0
        while True:
            async with life(host, folder, loop, seen=manager.heard) as one:
                one.complete(*manager.tasks.values())
                while position < len(script):
                    kind, subject, detail = script[position]
                    position += 1
                    if kind == "assign":
                        one.change(manager.want(subject, detail))
                    elif kind == "remove" and (gone := manager.give_up(subject)) is not None:
                        one.change(removed_tasks=[gone])
                    elif kind == "complete":
                        for name in NAMES:
                            if name not in subject:
                                manager.give_up(name)
                        one.complete(*manager.tasks.values())
                    elif kind == "end":
                        host.end(manager.current(subject), detail)
                    elif kind == "vanish":
                        host.end(manager.current(subject), 137)
                        host.containers.pop(manager.current(subject), None)
                    elif kind == "wait":
                        await asyncio.sleep(subject)
                    elif kind == "restart":
                        break
                else:
                    host.hurdle = lambda operation, task_id: None
                    one.complete()
                    await one.worker.clear()
                    assert host.containers == {}
                    assert one.worker.statuses() == {}
                    break
        assert host.violations == []
        assert len(host.started) == len(set(host.started))
        assert list((folder / "tasks").iterdir()) == []
        for task_id, statuses in manager.heard.items():
            ranks = [status.state.rank for status in statuses]
            assert ranks == sorted(ranks), task_id

    run_virtual(main)


def test_credentials_for_a_registry_never_reach_the_disk(tmp_path: Path) -> None:
    container = ContainerSpec(image="private/app", pull_options=PullOptions(registry_auth="c2VjcmV0"))
    task = Task(id="t1", service_id="s", spec=TaskSpec(container_spec=container))
    kept = KeptState(tmp_path)
    kept.load()
    kept.write_tasks([KeptTask(task, task.status)], [])
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"c2VjcmV0" in path.read_bytes()] == []
    (found,) = KeptState(tmp_path).load().tasks
    assert found.task.spec.container_spec == ContainerSpec(image="private/app")

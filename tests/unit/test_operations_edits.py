"""Operations that edit a specification: previews, conflicts, retries, cancellation, undo."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, make_service, make_task, problem, running
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.client import EngineClient
from swarmtui.operations.base import Change, Conflicting, Danger, OperationFailed, Phase, Progress
from swarmtui.operations.history import OperationHistory, Outcome
from swarmtui.operations.nodes import ActivateNode, DrainNode, LabelNode, NodeUpdate, RemoveNode
from swarmtui.operations.roles import SetRole
from swarmtui.operations.service_life import CreateService, RemoveService
from swarmtui.operations.services import RestartService, RollbackService, ScaleService, ServiceEdit, UpdateImage
from swarmtui.operations.spec_changes import differences, put_at, value_at
from swarmtui.operations.waiting import Timing

FAST = Timing(poll=0.0, verify=0.0, abandoned=0.05, empty=0.02, outage=0.2)


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[tuple[FakeEngine, EngineClient]]:
    """`web` with two replicas."""
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:
        engine.converge(engine.put("services", make_service("s1", "web", 2)))
        yield engine, client


def spec_of(engine: FakeEngine, service: str = "s1") -> dict[str, Any]:
    return engine.tables["services"][service]["Spec"]


def running_tasks(engine: FakeEngine) -> int:
    return sum(1 for task in engine.tables["tasks"].values() if task["Status"]["State"] == "running")


class Reports:
    def __init__(self) -> None:
        self.all: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.all.append(progress)

    @property
    def phases(self) -> list[Phase]:
        return list(dict.fromkeys(progress.phase for progress in self.all))


async def test_scaling_shows_what_it_will_do_does_it_and_undoes_it() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 4, timing=FAST)
        preview = await operation.preview()
        assert preview.title == operation.title == "scale web 2 → 4"
        assert preview.changes == (Change("replicas", "2", "4"),)
        assert preview.undo == "scale web 4 → 2"
        assert operation.targets == ("s1",)
        assert operation.inverse() is None
        reports = Reports()
        await operation.run(reports)
        assert reports.phases == [Phase.SENDING, Phase.DONE]
        assert (reports.all[-1].done, reports.all[-1].total, reports.all[-1].fraction) == (4, 4, 1.0)
        assert running_tasks(engine) == 4
        inverse = operation.inverse()
        assert inverse is not None
        assert inverse.title == "scale web 4 → 2"
        await inverse.run(reports)
        assert running_tasks(engine) == 2


async def test_an_edit_sends_back_everything_that_it_does_not_know() -> None:
    async with cluster() as (engine, client):
        spec_of(engine)["FromTheFuture"] = {"A": [1, None, {"b": "c"}]}
        spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Odd"] = 1.5
        before = copy.deepcopy(spec_of(engine))
        await ScaleService(client, "web", 3, timing=FAST).run(Reports())
        before["Mode"]["Replicated"]["Replicas"] = 3
        assert spec_of(engine) == before


async def test_nothing_to_do_writes_nothing() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 2, timing=FAST)
        assert (await operation.preview()).nothing_to_do
        reports = Reports()
        await operation.run(reports)
        assert reports.all[-1].phase is Phase.DONE
        assert not operation.sent
        assert operation.inverse() is None
        assert not any(method == "POST" for method, _, _ in engine.requests)


async def test_an_edit_without_effect_on_tasks_leaves_their_specification_untouched() -> None:
    async with cluster() as (engine, client):
        before = copy.deepcopy(spec_of(engine)["TaskTemplate"])

        def edit(spec: dict[str, Any]) -> None:
            spec.setdefault("Labels", {})["a"] = "b"
            spec["TaskTemplate"].setdefault("Placement", {})
            spec["TaskTemplate"]["ContainerSpec"].setdefault("Labels", {})

        await ServiceEdit(client, "web", edit, timing=FAST).run(Reports())
        assert spec_of(engine)["Labels"] == {"a": "b"}
        assert spec_of(engine)["TaskTemplate"] == before


@pytest.mark.parametrize("replicas", [-1, -100])
async def test_a_number_that_cannot_be_is_refused(replicas: int) -> None:
    async with cluster() as (_, client):
        with pytest.raises(OperationFailed, match="cannot have"):
            await ScaleService(client, "web", replicas).preview()


async def test_a_global_service_cannot_be_scaled() -> None:
    async with cluster() as (engine, client):
        engine.put("services", make_service("s2", "everywhere", mode={"Global": {}}))
        with pytest.raises(OperationFailed, match="everywhere: scale can only be used with replicated"):
            await ScaleService(client, "everywhere", 2).run(Reports())


async def test_a_stale_version_is_read_again_when_nothing_conflicts() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 4, timing=FAST)
        await operation.preview()
        changed = copy.deepcopy(engine.tables["services"]["s1"])
        changed["Spec"]["Labels"] = {"other": "change"}
        engine.put("services", changed)
        await operation.run(Reports())
        assert spec_of(engine)["Labels"] == {"other": "change"}
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 4


async def test_the_same_change_by_somebody_else_is_no_conflict() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 4, timing=FAST)
        await operation.preview()
        changed = copy.deepcopy(engine.tables["services"]["s1"])
        changed["Spec"]["Mode"]["Replicated"]["Replicas"] = 4
        engine.converge(engine.put("services", changed))
        await operation.run(Reports())
        assert not operation.sent


async def test_another_change_of_the_same_by_somebody_else_is_a_conflict() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 4, timing=FAST)
        await operation.preview()
        changed = copy.deepcopy(engine.tables["services"]["s1"])
        changed["Spec"]["Mode"]["Replicated"]["Replicas"] = 7
        engine.put("services", changed)
        with pytest.raises(Conflicting, match="replicas of web meanwhile, from 2 to 7"):
            await operation.run(Reports())
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 7
        assert not operation.sent


async def test_undo_refuses_when_somebody_else_has_changed_the_same_since() -> None:
    async with cluster() as (engine, client):
        operation = ScaleService(client, "web", 4, timing=FAST)
        await operation.run(Reports())
        changed = copy.deepcopy(engine.tables["services"]["s1"])
        changed["Spec"]["Mode"]["Replicated"]["Replicas"] = 9
        engine.put("services", changed)
        inverse = operation.inverse()
        assert inverse is not None
        with pytest.raises(Conflicting):
            await inverse.run(Reports())
        # A person who has seen the true difference may still want it.
        again = operation.inverse()
        assert again is not None
        assert (await again.preview()).changes == (Change("replicas", "9", "2"),)
        await again.run(Reports())
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 2


async def test_an_object_that_changes_all_the_time_is_given_up() -> None:
    async with cluster() as (engine, client):

        async def stale(request: web.Request) -> web.Response:
            return problem(500, "rpc error: code = Unknown desc = update out of sequence")

        engine.overrides[("POST", "/services/s1/update")] = stale
        with pytest.raises(Conflicting, match="changes all the time"):
            await ScaleService(client, "web", 4).run(Reports())


async def test_a_refusal_is_told_in_the_engines_words() -> None:
    async with cluster() as (engine, client):

        async def refuse(request: web.Request) -> web.Response:
            return problem(400, "rpc error: code = InvalidArgument desc = invalid cpu value")

        engine.overrides[("POST", "/services/s1/update")] = refuse
        reports = Reports()
        with pytest.raises(OperationFailed, match="invalid cpu value"):
            await ScaleService(client, "web", 4).run(reports)
        assert reports.all[-1].phase is Phase.FAILED
        with pytest.raises(OperationFailed, match="service nosuch not found"):
            await ScaleService(client, "nosuch", 4).run(reports)


async def test_cancelling_before_the_change_changes_nothing() -> None:
    async with cluster() as (engine, client):
        asked = asyncio.Event()

        async def hang(request: web.Request) -> web.Response:
            asked.set()
            await asyncio.Event().wait()
            return web.Response()

        engine.overrides[("GET", "/services/web")] = hang
        operation = ScaleService(client, "web", 4)
        task = asyncio.create_task(operation.run(Reports()))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not operation.sent
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 2


async def test_cancelling_while_the_change_is_on_its_way_knows_the_answer() -> None:
    async with cluster() as (engine, client):
        asked, go = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            asked.set()
            await go.wait()
            del engine.overrides[("POST", "/services/s1/update")]
            return await engine._serve(request)

        engine.overrides[("POST", "/services/s1/update")] = slow
        operation = ScaleService(client, "web", 4, timing=FAST)
        task = asyncio.create_task(operation.run(Reports()))
        await asked.wait()
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert operation.sent
        inverse = operation.inverse()
        assert inverse is not None
        await inverse.run(Reports())
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 2


async def test_cancelling_the_wait_leaves_the_change() -> None:
    async with cluster() as (engine, client):
        engine.orchestrate = lambda service: None
        waiting = asyncio.Event()

        def report(progress: Progress) -> None:
            if progress.phase is Phase.CONVERGING:
                waiting.set()

        operation = ScaleService(client, "web", 4, timing=FAST)
        task = asyncio.create_task(operation.run(report))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert operation.sent
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 4


async def test_restart_replaces_every_task_and_has_no_undo() -> None:
    async with cluster() as (engine, client):
        before = set(engine.tables["tasks"])
        operation = RestartService(client, "web", timing=FAST)
        preview = await operation.preview()
        assert preview.lines == ("2 task(s) are replaced, 1 at a time, the old one stops first",)
        assert (preview.undo, operation.danger) == ("", Danger.CAREFUL)
        await operation.run(Reports())
        assert not before & set(engine.tables["tasks"])
        assert operation.inverse() is None


async def test_two_restarts_at_once_do_not_conflict() -> None:
    async with cluster() as (engine, client):
        operation = RestartService(client, "web", timing=FAST)
        await operation.preview()
        changed = copy.deepcopy(engine.tables["services"]["s1"])
        changed["Spec"]["TaskTemplate"]["ForceUpdate"] = 1
        engine.converge(engine.put("services", changed))
        await operation.run(Reports())
        assert spec_of(engine)["TaskTemplate"]["ForceUpdate"] == 2


async def test_a_new_image_and_back() -> None:
    async with cluster() as (engine, client):
        operation = UpdateImage(client, "web", "web:2", timing=FAST)
        assert (await operation.preview()).title == "image of web web:1 → web:2"
        await operation.run(Reports())
        assert spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Image"] == "web:2"
        inverse = operation.inverse()
        assert inverse is not None
        assert inverse.title == "image of web web:2 → web:1"
        await inverse.run(Reports())
        assert spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Image"] == "web:1"


async def test_roll_back_and_forth() -> None:
    async with cluster() as (engine, client):
        with pytest.raises(OperationFailed, match="no previous specification"):
            await RollbackService(client, "web").preview()
        await UpdateImage(client, "web", "web:2", timing=FAST).run(Reports())
        operation = RollbackService(client, "web", timing=FAST)
        assert (await operation.preview()).changes == (Change("image", "web:2", "web:1"),)
        await operation.run(Reports())
        assert "rollback=previous" in next(path for m, path, _ in reversed(engine.requests) if m == "POST")
        assert spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Image"] == "web:1"
        inverse = operation.inverse()
        assert inverse is not None
        await inverse.run(Reports())
        assert spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Image"] == "web:2"


async def test_create_and_remove_are_each_others_inverse() -> None:
    async with cluster() as (engine, client):
        spec = {
            "Name": "api",
            "TaskTemplate": {"ContainerSpec": {"Image": "api:1"}},
            "Mode": {"Replicated": {"Replicas": 3}},
        }
        create = CreateService(client, spec, timing=FAST)
        assert Change("image", "", "api:1") in (await create.preview()).changes
        await create.run(Reports())
        assert running_tasks(engine) == 5
        remove = create.inverse()
        assert isinstance(remove, RemoveService)
        assert (remove.title, remove.danger, remove.confirmation) == ("remove api", Danger.DESTRUCTIVE, "api")
        preview = await remove.preview()
        assert preview.lines[0].startswith("3 task(s) stop")
        await remove.run(Reports())
        assert running_tasks(engine) == 2
        again = remove.inverse()
        assert again is not None
        await again.run(Reports())
        assert running_tasks(engine) == 5


async def test_a_name_that_is_taken() -> None:
    async with cluster() as (_, client):
        operation = CreateService(client, {"Name": "web", "Mode": {"Replicated": {}}})
        with pytest.raises(OperationFailed, match="already exists"):
            await operation.run(Reports())
        assert operation.inverse() is None


async def test_draining_waits_until_the_last_task_has_gone() -> None:
    async with cluster() as (engine, client):
        engine.put("tasks", make_task("stay", "s1", 9, "n2"))
        here = [task["ID"] for task in engine.tables["tasks"].values() if task["NodeID"] == "n2"]
        operation = DrainNode(client, "node2", timing=FAST)
        preview = await operation.preview()
        assert preview.title == "drain node2"
        assert preview.lines[0].startswith(f"{len(here)} task(s) stop here")
        reports = Reports()

        def report(progress: Progress) -> None:
            reports(progress)
            if progress.phase is Phase.CONVERGING and here:
                task = engine.tables["tasks"][here.pop()]
                task["Status"]["State"] = "shutdown"

        await operation.run(report)
        assert reports.phases == [Phase.SENDING, Phase.CONVERGING, Phase.DONE]
        assert engine.tables["nodes"]["n2"]["Spec"]["Availability"] == "drain"
        inverse = operation.inverse()
        assert inverse is not None
        assert inverse.title == "activate node2"
        await inverse.run(Reports())
        assert engine.tables["nodes"]["n2"]["Spec"]["Availability"] == "active"


async def test_draining_bears_a_leader_that_changes_and_not_one_that_stays_away() -> None:
    async with cluster() as (engine, client):
        answers = 0

        async def refuse(request: web.Request) -> web.StreamResponse:
            nonlocal answers
            answers += 1
            if answers > 2 and answers < 100:
                del engine.overrides[("GET", "/tasks")]
                engine.tables["tasks"].clear()
                return await engine._serve(request)
            return problem(503, "rpc error: code = Unavailable desc = no leader")

        engine.overrides[("GET", "/tasks")] = refuse
        reports = Reports()
        await DrainNode(client, "node2", timing=FAST).run(reports)
        assert any("no leader" in progress.message for progress in reports.all)
        assert reports.all[-1].phase is Phase.DONE
        answers = 100
        engine.overrides[("GET", "/tasks")] = refuse
        with pytest.raises(OperationFailed, match=r"accepted.*no leader"):
            await DrainNode(client, "node1", timing=Timing(poll=0.0, outage=0.01)).run(Reports())


async def test_activating_an_active_node_is_nothing() -> None:
    async with cluster() as (_, client):
        assert (await ActivateNode(client, "n2").preview()).nothing_to_do


async def test_labels_come_and_go() -> None:
    async with cluster() as (engine, client):
        engine.tables["nodes"]["n2"]["Spec"]["Labels"] = {"old": "1", "zone": "a"}
        operation = LabelNode(client, "node2", add={"zone": "b", "disk": ""}, remove=["old", "never"])
        await operation.run(Reports())
        labels = engine.tables["nodes"]["n2"]["Spec"]["Labels"]
        assert labels == {"zone": "b", "disk": ""}
        inverse = operation.inverse()
        assert inverse is not None
        await inverse.run(Reports())
        assert engine.tables["nodes"]["n2"]["Spec"]["Labels"] == {"old": "1", "zone": "a"}


async def test_promotion_and_a_mixed_update() -> None:
    async with cluster() as (engine, client):
        role = SetRole(client, "node2", "manager")
        await role.run(Reports())
        assert engine.tables["nodes"]["n2"]["Spec"]["Role"] == "manager"
        update = NodeUpdate(client, "n2", availability="pause", add={"a": "b"})
        await update.run(Reports())
        inverse = update.inverse()
        assert inverse is not None
        await inverse.run(Reports())
        spec = engine.tables["nodes"]["n2"]["Spec"]
        assert (spec["Availability"], spec["Role"], spec["Labels"]) == ("active", "manager", {})
        with pytest.raises(OperationFailed, match="key nope doesn't exist"):
            await NodeUpdate(client, "n2", remove=["nope"]).submit()


async def test_removing_a_node_is_final() -> None:
    async with cluster() as (engine, client):
        operation = RemoveNode(client, "node2", force=True)
        preview = await operation.preview()
        assert (preview.title, operation.confirmation) == ("remove node2 by force", "node2")
        await operation.run(Reports())
        assert "n2" not in engine.tables["nodes"]
        assert operation.inverse() is None


async def test_the_history_undoes_newest_first_and_never_an_undo() -> None:
    async with cluster() as (engine, client):
        history = OperationHistory()
        assert history.undo() is None
        await history.run(ScaleService(client, "web", 3, timing=FAST), Reports())
        await history.run(RestartService(client, "web", timing=FAST), Reports())
        await history.run(UpdateImage(client, "web", "web:2", timing=FAST), Reports())
        with pytest.raises(OperationFailed):
            await history.run(ScaleService(client, "nosuch", 3), Reports())
        assert history.undoable is not None
        assert history.undoable.title == "image of web web:1 → web:2"
        for _ in range(2):
            inverse = history.undo()
            assert inverse is not None
            await history.run(inverse, Reports())
        assert history.undo() is None
        assert spec_of(engine)["TaskTemplate"]["ContainerSpec"]["Image"] == "web:1"
        assert spec_of(engine)["Mode"]["Replicated"]["Replicas"] == 2
        assert [entry.outcome for entry in history.entries].count(Outcome.FAILED) == 1


async def test_an_undo_that_was_only_looked_at_undoes_nothing() -> None:
    async with cluster() as (_, client):
        history = OperationHistory()
        await history.run(ScaleService(client, "web", 3, timing=FAST), Reports())
        first = history.undo()
        assert first is not None
        await first.preview()
        second = history.undo()
        assert second is not None
        await history.run(second, Reports())
        assert history.undoable is None


leaves = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2), st.booleans())
specs = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), leaves, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), st.one_of(leaves, inner), max_size=4),
    max_leaves=12,
)


def shapes_agree(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """No path is an object in one and a value in the other: the API's types never change so."""
    common = old.keys() & new.keys()
    return all(
        isinstance(old[key], dict) == isinstance(new[key], dict)
        and (not isinstance(old[key], dict) or shapes_agree(old[key], new[key]))
        for key in common
    )


@given(specs, specs)
def test_differences_lead_from_the_old_to_the_new_and_back(old: dict[str, Any], new: dict[str, Any]) -> None:
    if not shapes_agree(old, new):
        return
    found = differences(old, new)
    there, back = copy.deepcopy(old), copy.deepcopy(new)
    for path, before, after in found:
        assert value_at(old, path) == before
        put_at(there, path, after)
        put_at(back, path, before)
    assert differences(there, new) == []
    assert differences(back, old) == []

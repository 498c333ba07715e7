"""A leader that is lost before its answer arrives: the change is made once, or the client is told that nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_broken_links import broken, names, store_of
from api_managers import Link, ManagerBackend, Managers, managers
from api_scripted import service_body

from agent.api_types.errors import Unavailable
from agent.api_types.service import Service


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize("keep", [0, 40, 200])
async def test_a_create_that_lost_its_answer_is_made_once(group: Managers, deliver: bool, keep: int) -> None:
    group.backends["h2"].way = broken(2, deliver=deliver, keep=keep)
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert status == 201
    found = store_of(group, "h1").view(lambda tx: tx.all(Service))
    assert [service.id for service in found] == [answer["ID"]]


@pytest.mark.parametrize("kind", ["secrets", "configs"])
async def test_a_secret_that_lost_its_answer_is_made_once(group: Managers, kind: str) -> None:
    group.backends["h2"].way = broken(1, deliver=True)
    status, answer = await group.clients["h2"].call("POST", f"/{kind}/create", {"Name": "one", "Data": "QQ=="})
    assert status == 201
    _, listed = await group.clients["h1"].call("GET", f"/{kind}")
    assert [item["ID"] for item in listed] == [answer["ID"]]


@pytest.mark.parametrize("deliver", [False, True])
async def test_an_update_that_lost_its_answer_is_made_once(group: Managers, deliver: bool) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    _, service = await client.call("GET", "/services/web")
    version = service["Version"]["Index"]
    group.backends["h2"].way = broken(1, deliver=deliver)
    body = service_body(Labels={"a": "b"})
    status, _ = await client.call("POST", f"/services/web/update?version={version}", body)
    assert status == 200
    _, after = await client.call("GET", "/services/web")
    assert after["Spec"]["Labels"] == {"a": "b"}
    assert after["PreviousSpec"]["Labels"] == {}
    assert (await client.call("POST", f"/services/web/update?version={version}", body))[0] == 500


async def test_a_rollback_that_lost_its_answer_is_made_once(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    for label in ("1", "2"):
        _, service = await client.call("GET", "/services/web")
        target = f"/services/web/update?version={service['Version']['Index']}"
        assert (await client.call("POST", target, service_body(Labels={"n": label})))[0] == 200
    _, service = await client.call("GET", "/services/web")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/services/web/update?version={service['Version']['Index']}&rollback=previous"
    assert (await client.call("POST", target, service["Spec"]))[0] == 200
    _, service = await client.call("GET", "/services/web")
    assert service["Spec"]["Labels"] == {"n": "1"}


async def test_nobody_claims_a_change_that_a_third_write_may_have_covered(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    _, service = await client.call("GET", "/services/web")
    version = service["Version"]["Index"]
    deliver = broken(1, deliver=True)

    async def covered(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) > 2:
            _, seen = await group.clients["h1"].call("GET", "/services/web")
            newer = f"/services/web/update?version={seen['Version']['Index']}"
            assert (await group.clients["h1"].call("POST", newer, service_body(Labels={"by": "another"})))[0] == 200
        return await deliver(backend, caller)

    group.backends["h2"].way = covered
    status, answer = await client.call(
        "POST", f"/services/web/update?version={version}", service_body(Labels={"a": "b"})
    )
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize("what", ["services", "secrets", "configs"])
async def test_a_removal_that_lost_its_answer_is_made_once(group: Managers, deliver: bool, what: str) -> None:
    client = group.clients["h2"]
    body = service_body("one") if what == "services" else {"Name": "one", "Data": "QQ=="}
    await client.call("POST", f"/{what}/create", body)
    group.backends["h2"].way = broken(1, deliver=deliver)
    assert (await client.call("DELETE", f"/{what}/one"))[0] in (200, 204)
    assert (await client.call("GET", f"/{what}"))[1] == []
    assert (await client.call("DELETE", f"/{what}/one"))[0] == 404


async def test_a_repeated_removal_never_takes_a_later_object_of_that_name(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    deliver = broken(1, deliver=True)

    async def made_anew(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) > 2:
            assert (await group.clients["h1"].call("POST", "/services/create", service_body()))[0] == 201
        return await deliver(backend, caller)

    group.backends["h2"].way = made_anew
    status, _ = await client.call("DELETE", "/services/web")
    assert status == 503
    assert names(group, "h1") == ["web"]


async def test_settings_and_nodes_that_lost_their_answers(group: Managers) -> None:
    client = group.clients["h2"]
    _, swarm = await client.call("GET", "/swarm")
    spec = swarm["Spec"] | {"Orchestration": {"TaskHistoryRetentionLimit": 7}}
    group.backends["h2"].way = broken(1, deliver=True)
    assert (await client.call("POST", f"/swarm/update?version={swarm['Version']['Index']}", spec))[0] == 200
    _, node = await client.call("GET", f"/nodes/{group.ids['h3']}")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
    assert (await client.call("POST", target, node["Spec"] | {"Labels": {"a": "b"}}))[0] == 200
    assert (await client.call("GET", f"/nodes/{node['ID']}"))[1]["Spec"]["Labels"] == {"a": "b"}


async def test_a_rotated_token_is_never_taken_for_granted(group: Managers) -> None:
    """Who lost the answer cannot know whether the new token is this request's: it is told so."""
    client = group.clients["h2"]
    _, swarm = await client.call("GET", "/swarm")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/swarm/update?version={swarm['Version']['Index']}&rotateWorkerToken=true"
    status, answer = await client.call("POST", target, swarm["Spec"])
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


async def test_a_leader_that_refuses_for_now_does_not_hide_an_unknown_outcome(group: Managers) -> None:
    """The first attempt may have been taken; that the second found nobody says nothing of it."""
    first = broken(1, deliver=True)

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) == 1:
            return await first(backend, caller)
        raise Unavailable("nobody leads")

    group.backends["h2"].way = way
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert (status, "may have been made or not" in answer["message"]) == (503, True)

"""The group of managers as clients see it: who leads, who is missing, who may go."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_managers import Link, ManagerBackend, Managers, managers
from docker_cli import DOCKER, docker
from msgspec.structs import replace

from agent.api.managers import managers_view
from agent.api.quorum import missing_managers, quorum_lost
from agent.api_types.node import Node, NodeRole, NodeState
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus
from agent.rpc.errors import Unreachable
from agent.store.store import Store

GRPC = "rpc error: code = FailedPrecondition desc = "


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


def status(**changes: Any) -> GroupStatus:
    """Five managers of which `a` leads and is asked; `e` only learns."""
    members = tuple(
        MemberStatus(name, f"{name}:2377", name != "e", {"a": 10, "b": 10, "c": 7, "d": 0, "e": 4}[name], name != "d")
        for name in "abcde"
    )
    known = GroupStatus(
        member_id="a",
        role=MemberRole.LEADER,
        term=3,
        leader="a",
        leading=True,
        committed=10,
        applied=9,
        last_index=10,
        members=members,
    )
    return dataclasses.replace(known, **changes)


def silence_all_but(group: Managers, asked: str, heard: str) -> None:
    """`asked` hears of its group nobody but `heard`."""
    known = group.backends[asked].group
    assert known is not None
    members = tuple(
        dataclasses.replace(member, active=member.id in (group.ids[asked], group.ids[heard]))
        for member in known.members
    )
    group.backends[asked].show_group(dataclasses.replace(known, members=members))


# -- decisions


def test_the_leader_knows_how_far_everybody_is() -> None:
    view = managers_view(status(), Store.in_memory())
    assert (view.term, view.leader, view.quorum, view.stale, view.missing) == (3, "a", True, False, ["d"])
    assert [(member.role.value, member.lag, member.reachable) for member in view.members] == [
        ("leader", 0, True),
        ("follower", 0, True),
        ("follower", 3, True),
        ("follower", 10, False),
        ("learner", 6, True),
    ]


def test_a_leader_that_hears_half_of_the_voters_has_no_quorum() -> None:
    members = tuple(dataclasses.replace(member, active=member.id in "ab") for member in status().members)
    assert not managers_view(status(members=members), Store.in_memory()).quorum


def test_a_follower_misses_nobody_but_its_leader() -> None:
    members = tuple(dataclasses.replace(member, active=False, match=-1) for member in status().members)
    follower = status(member_id="b", role=MemberRole.FOLLOWER, leading=False, members=members)
    assert [member.id for member in missing_managers(follower)] == ["a"]
    leaderless = dataclasses.replace(follower, leader="")
    assert [member.id for member in missing_managers(leaderless)] == ["a", "c", "d"]
    assert "Not heard from: a (a:2377), c (c:2377), d (d:2377)." in quorum_lost(leaderless, None)
    assert {member.lag for member in managers_view(follower, Store.in_memory()).members} == {-1}


# -- /swarmtui/v1/managers


@pytest.mark.parametrize("asked", ["h1", "h2", "h3"])
async def test_every_manager_knows_what_the_leader_knows(group: Managers, asked: str) -> None:
    code, told = await group.clients[asked].call("GET", "/swarmtui/v1/managers")
    assert code == 200
    assert (told["leader"], told["term"], told["quorum"], told["stale"]) == (group.ids["h1"], 1, True, False)
    rows = [(member["hostname"], member["role"], member["lag"]) for member in told["members"]]
    assert rows == [("h1", "leader", 0), ("h2", "follower", 0), ("h3", "follower", 0)]


async def test_a_follower_without_its_leader_tells_what_it_knows(group: Managers) -> None:
    async def nobody(backend: ManagerBackend, caller: str) -> Link:
        raise Unreachable("no route")

    group.backends["h2"].way = nobody
    _, told = await group.clients["h2"].call("GET", "/swarmtui/v1/managers")
    assert (told["leader"], told["quorum"], told["stale"]) == (group.ids["h1"], True, True)
    group.lose_quorum(since=5)
    _, told = await group.clients["h2"].call("GET", "/swarmtui/v1/managers")
    assert (told["leader"], told["quorum"], told["stale"]) == ("", False, True)
    assert told["missing"] == [group.ids["h1"], group.ids["h3"]]


async def test_a_frozen_leader_delays_the_answer_by_a_moment_only(group: Managers) -> None:
    async def silent(backend: ManagerBackend, caller: str) -> Link:
        await asyncio.Event().wait()
        raise AssertionError

    group.backends["h2"].way = silent
    began = time.monotonic()
    _, told = await group.clients["h2"].call("GET", "/swarmtui/v1/managers")
    assert told["stale"]
    assert time.monotonic() - began < 0.4


async def test_workers_have_no_group(group: Managers) -> None:
    backend = group.backends["h2"]
    backend.show_group(None)
    backend.store, backend.is_manager = None, False
    assert (await group.clients["h2"].call("GET", "/swarmtui/v1/managers"))[0] == 503


# -- docker info, docker node ls


async def test_info_says_when_a_quorum_is_missing_and_that_the_state_is_old(group: Managers) -> None:
    _, told = await group.clients["h2"].call("GET", "/info")
    assert (told["Swarm"]["Error"], told["Swarm"].get("Warnings"), told["Warnings"]) == ("", None, None)
    group.lose_quorum(since=5)
    _, told = await group.clients["h2"].call("GET", "/info")
    assert "h1 (10.0.0.1:2377), h3 (10.0.0.3:2377)" in told["Swarm"]["Error"]
    assert "may be stale" in told["Warnings"][0]
    assert (told["Swarm"]["ControlAvailable"], told["Swarm"]["Managers"]) == (True, 3)


async def test_nodes_show_what_the_group_knows_when_the_store_cannot(group: Managers) -> None:
    group.lose_quorum(since=5)
    silence_all_but(group, "h2", "h3")
    _, nodes = await group.clients["h2"].call("GET", "/nodes")
    shown = {node["Description"]["Hostname"]: node["ManagerStatus"] for node in nodes}
    assert {name: (s.get("Leader", False), s["Reachability"]) for name, s in shown.items()} == {
        "h1": (False, "unreachable"),
        "h2": (False, "reachable"),
        "h3": (False, "reachable"),
    }
    _, node = await group.clients["h2"].call("GET", f"/nodes/{group.ids['h1']}")
    assert node["ManagerStatus"]["Reachability"] == "unreachable"


@pytest.mark.skipif(DOCKER is None, reason="the docker CLI is not installed")
async def test_the_docker_cli_without_a_quorum(group: Managers, tmp_path: Path) -> None:
    group.lose_quorum(since=5)
    silence_all_but(group, "h2", "h3")
    socket = group.sockets[group.ids["h2"]]
    listed = await docker(socket, "node", "ls", "--format", "{{.Hostname}}={{.ManagerStatus}}", home=tmp_path)
    assert sorted(listed.out.split()) == ["h1=Unreachable", "h2=Reachable", "h3=Reachable"]
    info = await docker(socket, "info", home=tmp_path)
    assert "The swarm does not have a leader" in info.out
    assert "may be stale" in info.err
    refused = await docker(socket, "service", "create", "-d", "busybox", home=tmp_path)
    assert refused.code == 1
    assert "docker swarm init --force-new-cluster" in refused.err


# -- promote, demote, remove


async def set_role(group: Managers, name: str, role: str, through: str = "h2") -> tuple[int, Any]:
    client = group.clients[through]
    _, node = await client.call("GET", f"/nodes/{group.ids[name]}")
    target = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
    return await client.call("POST", target, node["Spec"] | {"Role": role})


async def test_a_manager_may_go_while_those_who_stay_have_a_majority(
    group: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.manager.group.HEARING", 0.05)
    silence_all_but(group, "h1", "h2")
    code, told = await set_role(group, "h2", "worker")
    assert (code, told) == (
        400,
        {"message": GRPC + "can't remove member from the raft: this would result in a loss of quorum"},
    )
    assert (await set_role(group, "h3", "worker"))[0] == 200


async def test_a_new_leader_hears_its_members_before_it_refuses_a_demotion(group: Managers) -> None:
    silence_all_but(group, "h1", "h2")
    demoting = asyncio.ensure_future(set_role(group, "h2", "worker", through="h1"))
    assert not (await asyncio.wait({demoting}, timeout=0.1))[0]
    silence_all_but(group, "h1", "h3")
    assert (await demoting)[0] == 200


async def test_the_last_manager_stays(group: Managers) -> None:
    assert (await set_role(group, "h2", "worker"))[0] == 200
    assert (await set_role(group, "h3", "worker"))[0] == 200
    code, told = await set_role(group, "h1", "worker")
    assert (code, told) == (400, {"message": GRPC + "attempting to demote the last manager of the swarm"})
    assert (await set_role(group, "h2", "manager"))[0] == 200


async def test_a_manager_is_not_removed_before_it_has_left_the_group(group: Managers) -> None:
    store = group.backends["h1"].store
    assert store is not None
    node = store.view(lambda tx: tx.get(Node, group.ids["h3"]))
    assert node is not None
    text = (
        f"node {node.id} is a cluster manager and is a member of the raft cluster. "
        "It must be demoted to worker before removal"
    )
    target = f"/nodes/{node.id}?force=1"
    assert await group.clients["h2"].call("DELETE", target) == (400, {"message": GRPC + text})
    demoted = replace(node, spec=replace(node.spec, role=NodeRole.WORKER), manager_status=None)
    await group.backends["h1"].put(replace(demoted, status=replace(node.status, state=NodeState.DOWN)))
    assert await group.clients["h2"].call("DELETE", target) == (400, {"message": GRPC + text})
    known = group.backends["h1"].group
    assert known is not None
    group.backends["h1"].show_group(dataclasses.replace(known, members=known.members[:2]))
    assert (await group.clients["h2"].call("DELETE", target))[0] == 200


# -- metrics


async def test_metrics_of_the_group(group: Managers) -> None:
    async def metrics(name: str) -> dict[str, float]:
        _, raw = await group.clients[name].call("GET", "/swarmtui/v1/metrics")
        lines = [line.rsplit(" ", 1) for line in raw.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    await group.clients["h2"].call("POST", "/secrets/create", {"Name": "one", "Data": "QQ=="})
    leader, follower = await metrics("h1"), await metrics("h2")
    assert (leader["swarmtui_raft_term"], leader["swarmtui_raft_leading"], leader["swarmtui_raft_voters"]) == (1, 1, 3)
    assert leader["swarmtui_raft_proposals_total"] == leader["swarmtui_raft_commit_seconds_count"] == 3
    assert (follower["swarmtui_raft_leading"], follower["swarmtui_api_forwarded_total"]) == (0, 1)
    assert leader[f'swarmtui_raft_member_active{{member="{group.ids["h1"]}"}}'] == 1
    before = follower["swarmtui_raft_leader_changes_total"]
    group.elect("h3")
    async with asyncio.timeout(5):
        while (await metrics("h2"))["swarmtui_raft_leader_changes_total"] == before:
            await asyncio.sleep(0)

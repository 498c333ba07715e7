"""`docker network` of the real docker CLI, at a manager that follows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from api_managers import Managers, managers
from docker_cli import DOCKER, Said, docker

from agent.api_types.network import Network
from agent.api_types.service import Service

pytestmark = pytest.mark.skipif(DOCKER is None, reason="the docker CLI is not installed")

Run = Callable[..., Awaitable[Said]]


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` follows."""
    async with managers(tmp_path) as group:
        yield group


@pytest.fixture
def cli(group: Managers, tmp_path: Path) -> Run:
    """`docker` at the follower; each argument may be several words."""

    async def run(*words: str, stdin: bytes = b"") -> Said:
        split = [part for word in words for part in word.split()]
        return await docker(group.sockets[group.ids["h2"]], *split, home=tmp_path, stdin=stdin)

    return run


async def inspected(cli: Run, name: str) -> dict[str, Any]:
    said = await cli("network", "inspect", name)
    assert said.code == 0, said
    (shown,) = json.loads(said.out)
    return dict(shown)


def stored(group: Managers, name: str) -> Network:
    (network,) = group.backends["h1"].store.view(lambda tx: tx.find(Network, "name", name))  # type: ignore[union-attr]
    return network


async def test_every_option_of_network_create(group: Managers, cli: Run) -> None:
    options = (
        "--subnet 10.50.0.0/16 --gateway 10.50.0.9 --ip-range 10.50.7.0/24 --subnet 10.51.0.0/24 "
        "--ipv6 --subnet fd00:50::/64 --gateway fd00:50::1 --attachable --internal --opt encrypted "
        "--opt com.docker.network.driver.mtu=1400 --label tier=front"
    )
    said = await cli("network create -d overlay", options, "all")
    assert (said.code, said.err) == (0, "")
    network = stored(group, "all")
    assert said.out == network.id
    assert network.spec.ipam_options is not None
    asked = sorted((each.subnet, each.range, each.gateway) for each in network.spec.ipam_options.configs)
    assert asked == [
        ("10.50.0.0/16", "10.50.7.0/24", "10.50.0.9"),
        ("10.51.0.0/24", "", ""),
        ("fd00:50::/64", "", "fd00:50::1"),
    ]
    shown = await inspected(cli, "all")
    assert (shown["Scope"], shown["Driver"], shown["Attachable"], shown["Internal"], shown["EnableIPv6"]) == (
        "swarm",
        "overlay",
        True,
        True,
        True,
    )
    assert shown["Options"] == {"encrypted": "", "com.docker.network.driver.mtu": "1400"}
    assert shown["Labels"] == {"tier": "front"}


async def test_networks_of_every_node_and_the_ingress_network(group: Managers, cli: Run) -> None:
    made = await cli("network create -d macvlan --scope swarm --config-from lan --attachable outside")
    assert made.code == 0, made
    assert (await inspected(cli, "outside"))["ConfigFrom"] == {"Network": "lan"}
    assert (await cli("network create -d overlay --ingress --subnet 10.60.0.0/16 front")).code == 0
    assert (await inspected(cli, "front"))["Ingress"] is True
    second = await cli("network create -d overlay --ingress other")
    assert (second.code, "is already present" in second.err) == (1, True)
    alone = await cli("network create --config-only --scope swarm --subnet 10.61.0.0/16 only")
    assert (alone.code, "has no Docker Engine" in alone.err) == (1, True)
    removed = await cli("network", "rm", "front", stdin=b"y\n")
    assert (removed.code, removed.out.endswith("front")) == (0, True), removed


async def test_lists_and_their_filters(cli: Run) -> None:
    for name, label in (("one", "a=1"), ("two", "a=2"), ("three", "b=1")):
        assert (await cli("network", "create", "-d", "overlay", "--label", label, name)).code == 0

    async def names(*filters: str) -> list[str]:
        words = [word for each in filters for word in ("--filter", each)]
        said = await cli("network ls --format {{.Name}}|{{.Driver}}|{{.Scope}}", *words)
        assert said.code == 0, said
        assert all(line.endswith("|overlay|swarm") for line in said.out.splitlines())
        return sorted(line.split("|")[0] for line in said.out.splitlines())

    assert await names() == ["one", "three", "two"]
    assert await names("driver=overlay", "scope=swarm") == ["one", "three", "two"]
    assert await names("label=a") == ["one", "two"]
    assert await names("label=a=2") == ["two"]
    assert await names("name=t") == ["three", "two"]
    assert await names("scope=local") == []
    assert (await cli("network", "ls", "--quiet", "--no-trunc", "--filter", "name=one")).out == (
        await inspected(cli, "one")
    )["Id"]


async def test_one_in_use_stays_and_prune_takes_the_rest(group: Managers, cli: Run) -> None:
    for name in ("used", "free"):
        assert (await cli("network", "create", "-d", "overlay", name)).code == 0
    made = await cli("service create -d --no-resolve-image --name web --network name=used,alias=shop busybox")
    assert made.code == 0, made
    (service,) = group.backends["h1"].store.view(lambda tx: tx.find(Service, "name", "web"))  # type: ignore[union-attr]
    network = stored(group, "used")
    assert [(each.target, each.aliases) for each in service.spec.task_template.networks] == [(network.id, ["shop"])]
    refused = await cli("network", "rm", "used")
    assert refused.code == 1
    assert f"network {network.id} is in use by service {service.id}" in refused.err
    pruned = await cli("network", "prune", "-f")
    assert (pruned.code, pruned.out) == (0, "Deleted Networks:\nfree")
    added = await cli("service", "update", "-d", "--network-add", "nosuch", "web")
    assert (added.code, "network nosuch not found" in added.err) == (1, True)
    assert (await cli("network", "create", "-d", "overlay", "more")).code == 0
    added = await cli("service", "update", "-d", "--network-add", "more", "--network-rm", "used", "web")
    assert added.code == 0, added
    assert (await cli("network", "rm", "used")).out == "used"
    missing = await cli("network", "rm", "used")
    assert (missing.code, "network used not found" in missing.err) == (1, True)


async def test_stacks_make_their_networks(tmp_path: Path, group: Managers, cli: Run) -> None:
    stack = tmp_path / "stack.yml"
    stack.write_text(
        "version: '3.8'\nservices:\n  web:\n    image: busybox\n    networks: [front, default]\n"
        "networks:\n  front:\n    attachable: true\n    driver_opts:\n      encrypted: ''\n"
        "    ipam:\n      config:\n        - subnet: 10.70.0.0/24\n"
    )
    said = await cli("stack", "deploy", "--resolve-image", "never", "-c", str(stack), "app")
    assert said.code == 0, said
    front = stored(group, "app_front")
    assert (front.spec.attachable, front.spec.labels["com.docker.stack.namespace"]) == (True, "app")
    assert stored(group, "app_default").id
    assert (await cli("stack", "rm", "app")).code == 0
    assert (await cli("network", "ls", "-q")).out == ""

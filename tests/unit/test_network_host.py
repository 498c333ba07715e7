"""The networks of a host follow the manager, and the order of a task's events."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from agent.api_types.common import Driver
from agent.api_types.network import Network, NetworkAttachment, NetworkSpec
from agent.api_types.task import Task
from agent.network.attacher import Attacher, NotHereYet
from agent.network.desired import virtual_services, wanted, without
from agent.network.dns.redirect import Redirects
from agent.network.host import HostNetworks
from agent.network.host_parts import StillUsed
from agent.network.interface import Backend, VirtualService
from agent.network.overlay.interface import OverlayWanted
from agent.network.served_names import ServedNames
from agent.network.tables import NetworkTables
from agent.rpc.messages import NetworkUpdate, OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet

NET = OverlayDescription("net", 4097, [OverlaySubnet("10.0.1.0/24", "127.9.0.1")], balancer="10.0.1.4")
WEB = OverlayService("s1", "web", vip="10.0.1.2")
HERE = OverlayEndpoint("t1", "10.0.1.3", "me", "192.0.2.1", "s1", "web.1.t1", ready=True)
THERE = OverlayEndpoint("t2", "10.0.1.5", "other", "192.0.2.2", "s1", "web.2.t2", ready=True)
WHOLE = NetworkUpdate("net1", complete=True, description=NET, services=[WEB], endpoints=[HERE, THERE])
OVERLAY = Network(id="net1", spec=NetworkSpec(name="net"), driver_state=Driver(name="overlay"))
TASK = Task(id="t1", networks_attachments=[NetworkAttachment(network=OVERLAY, addresses=["10.0.1.3/24"])])


class Links:
    """What the host's links were last to be; `trouble` is what cannot be had."""

    def __init__(self, events: list[str]) -> None:
        self.applied: list[Mapping[str, OverlayWanted]] = []
        self.trouble: dict[str, str] = {}
        self._events = events

    async def apply(self, wanted: Mapping[str, OverlayWanted]) -> Mapping[str, str]:
        self.applied.append(wanted)
        self._events.append(f"links {sorted(wanted)}")
        return dict(self.trouble)

    async def close(self, *, remove: bool = False) -> None:
        self._events.append(f"links closed {remove}")


class Balancer:
    def __init__(self, events: list[str]) -> None:
        self.services: frozenset[VirtualService] = frozenset()
        self._events = events

    async def apply(self, address: str, vips: Collection[str], services: frozenset[VirtualService]) -> None:
        self.services = services
        self._events.append(f"balancer {address} {sorted(vips)}")

    async def forget(self, backends: Collection[str]) -> int:
        self._events.append(f"forget {sorted(backends)}")
        return 0

    async def close(self, *, remove: bool) -> None:
        self._events.append(f"balancer closed {remove}")

    @property
    def backends(self) -> set[str]:
        return {backend.address for service in self.services for backend in service.backends}


class NoRules(Redirects):
    async def apply(self, ports: Mapping[str, int], *, again: bool = False) -> None:
        return None


class Stage:
    """A host with fakes. Gateways are on the loopback, so that real name servers listen there."""

    def __init__(self, folder: Path) -> None:
        self.events: list[str] = []
        self.links = Links(self.events)
        self.balancer = Balancer(self.events)
        self.used = False
        self.names = ServedNames(NoRules(), self._no_resolvers)
        self.networks = HostNetworks(
            "me",
            folder,
            self.links,
            lambda network_id, bridge, mtu: self.balancer,
            self.names,
            release=self._release,
            retry=0.01,
            save_pause=0,
        )

    @staticmethod
    def _no_resolvers() -> Sequence[object]:
        return ()

    async def _release(self, network_id: str) -> None:
        if self.used:
            raise StillUsed("a container is on it")
        self.events.append(f"release {network_id}")

    async def turn(self) -> None:
        """Wait until everything asked for so far is done."""
        await self.networks.withdraw("nobody")
        async with asyncio.timeout(5):
            while self.networks._done < self.networks._asked:
                await asyncio.sleep(0)


async def test_a_network_comes_whole_and_goes_in_the_other_order(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.begin()
        networks.take(WHOLE)
        networks.settled()
        await networks.until_brought("net1")
        assert stage.events == ["links ['net1']", "balancer 10.0.1.4/24 ['10.0.1.2']"]
        assert stage.balancer.backends == {"10.0.1.3", "10.0.1.5"}
        assert set(stage.names.ports) == {"127.9.0.1"}
        stage.events.clear()
        networks.take(NetworkUpdate("net1", gone=True))
        await stage.turn()
        assert stage.events == ["release net1", "balancer closed True", "links []"]
        assert not stage.names.ports


async def test_nothing_is_taken_away_before_all_is_known(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.begin()
        networks.take(WHOLE)
        await asyncio.sleep(0.05)
        assert stage.events == []
        networks.settled()
        await networks.until_brought("net1")


async def test_a_host_without_networks_touches_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.begin()
        networks.settled()
        await asyncio.sleep(0.05)
        assert stage.events == []
    assert not (tmp_path / "n").exists()


async def test_a_restarted_agent_knows_its_networks_before_any_manager(tmp_path: Path) -> None:
    async with Stage(tmp_path / "n").networks as networks:
        networks.take(WHOLE)
        networks.settled()
        await networks.until_brought("net1")
    again = Stage(tmp_path / "n")
    async with again.networks as networks:
        picture = await networks.until_brought("net1")
        assert picture.as_update() == WHOLE
        # A manager that names it no more has the last word.
        networks.begin()
        networks.settled()
        await again.turn()
        assert "links []" in again.events
        assert networks.tables.get("net1") is None


async def test_a_network_stays_for_a_task_that_has_not_ended(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.take(WHOLE)
        networks.settled()
        attacher = Attacher(networks)
        await attacher.attach(TASK)
        networks.take(NetworkUpdate("net1", gone=True))
        await stage.turn()
        assert list(stage.links.applied[-1]) == ["net1"]
        await attacher.detach(TASK)
        await stage.turn()
        assert list(stage.links.applied[-1]) == []


async def test_what_cannot_go_yet_is_tried_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.take(WHOLE)
        networks.settled()
        await networks.until_brought("net1")
        stage.used = True
        networks.take(NetworkUpdate("net1", gone=True))
        await stage.turn()
        assert list(stage.links.applied[-1]) == ["net1"]
        assert "a container is on it" in networks.problems["net1"]
        stage.used = False
        async with asyncio.timeout(5):
            while list(stage.links.applied[-1]):
                await asyncio.sleep(0.01)


async def test_a_task_that_stops_leaves_names_and_balancers_first(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.take(WHOLE)
        networks.settled()
        attacher = Attacher(networks)
        await attacher.attach(TASK)
        await attacher.activate(TASK)
        assert stage.balancer.backends == {"10.0.1.3", "10.0.1.5"}
        await attacher.deactivate(TASK)
        assert stage.balancer.backends == {"10.0.1.5"}
        # The manager, which has not heard of it yet, does not bring it back.
        networks.take(NetworkUpdate("net1", endpoints=[msgspec.structs.replace(THERE, ready=False)]))
        await stage.turn()
        assert stage.balancer.backends == set()
        stage.events.clear()
        await attacher.detach(TASK)
        assert stage.events == ["forget ['10.0.1.3']"]
        # The same task runs again.
        await attacher.attach(TASK)
        await attacher.activate(TASK)
        await stage.turn()
        assert stage.balancer.backends == {"10.0.1.3"}


async def test_connections_to_a_task_that_ended_elsewhere_are_reset(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.take(WHOLE)
        networks.settled()
        await networks.until_brought("net1")
        stage.events.clear()
        networks.take(NetworkUpdate("net1", removed_endpoints=["t2"]))
        await stage.turn()
        assert stage.events[-2:] == ["balancer 10.0.1.4/24 ['10.0.1.2']", "forget ['10.0.1.5']"]


async def test_a_task_waits_for_its_network_and_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "n")
    async with stage.networks as networks:
        networks.settled()
        attacher = Attacher(networks, patience=0.05)
        with pytest.raises(NotHereYet, match="waiting for network net: no manager has told this node of it yet"):
            await attacher.attach(TASK)
        stage.links.trouble = {"net1": "the VNI is somebody else's"}
        networks.take(WHOLE)
        with pytest.raises(NotHereYet, match="somebody else's"):
            await attacher.attach(TASK)
        stage.links.trouble = {}
        await Attacher(networks).attach(TASK)


def test_only_other_hosts_are_reached_through_vxlan() -> None:
    picture = NetworkTables().apply(WHOLE).picture
    assert picture is not None
    links = wanted(picture, "me")
    assert dict(links.endpoints) == {"10.0.1.5": "192.0.2.2"}
    assert links.vni == 4097


def test_a_virtual_address_leads_to_ready_tasks_on_every_port() -> None:
    tables = NetworkTables()
    tables.apply(WHOLE)
    late = msgspec.structs.replace(THERE, ready=False)
    picture = tables.apply(NetworkUpdate("net1", endpoints=[late])).picture
    assert picture is not None
    assert virtual_services(picture) == {
        VirtualService(address="10.0.1.2", port=0, protocol="", backends=frozenset({Backend("10.0.1.3", 0)}))
    }


def test_a_second_address_of_a_task_is_withdrawn_with_the_first() -> None:
    second = msgspec.structs.replace(HERE, id="t1.1", address="fd00::3")
    picture = NetworkTables().apply(msgspec.structs.replace(WHOLE, endpoints=[HERE, second, THERE])).picture
    assert picture is not None
    assert [one.id for one in without(picture, {"t1"}).endpoints.values() if one.ready] == ["t2"]

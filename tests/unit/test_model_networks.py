"""Networks in the model: their rows in both spellings, and who is on them as services and tasks come and go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from client_fake_engine import make_node, make_service, make_task

from swarmtui.docker_api.types import Network, Node, Service, Task
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.query import Difference, Table, all_networks
from swarmtui.model.row_making import network_row
from swarmtui.model.rows import NetworkRow
from swarmtui.model.tables import Delete, Upsert

KINDS: dict[Table, type[Node | Service | Task | Network]] = {
    Table.NODES: Node, Table.SERVICES: Service, Table.TASKS: Task, Table.NETWORKS: Network,
}  # fmt: skip


class Stage:
    """A model, and its networks' rows as a view has them."""

    def __init__(self) -> None:
        self.model = ClusterModel()
        self.rows: dict[str, NetworkRow] = {}
        self.deliveries = 0
        self.version = 0
        self.model.subscribe(all_networks(), self.take)
        self.put(Table.NODES, make_node("n1", "node1"))

    def take(self, difference: Difference[NetworkRow]) -> None:
        self.deliveries += 1
        self.rows.update((row.id, row) for row in (*difference.added, *difference.changed))
        for key in difference.removed:
            del self.rows[key]

    def put(self, table: Table, raw: dict[str, Any]) -> None:
        self.version += 1
        raw = {**raw, "Version": {"Index": self.version}}
        self.model.apply([Upsert(table, msgspec.convert(raw, KINDS[table]))])
        self.model.flush()

    def drop(self, table: Table, key: str) -> None:
        self.model.apply([Delete(table, key)])
        self.model.flush()

    def network(self, key: str) -> None:
        self.put(Table.NETWORKS, {"ID": key, "Spec": {"Name": f"name-{key}"}})

    def service(self, key: str, *networks: str, ingress: str = "", replicas: int = 2) -> None:
        raw = make_service(key, key, replicas)
        raw["Spec"]["TaskTemplate"]["Networks"] = [{"Target": network} for network in networks]
        if ingress:
            raw["Endpoint"] = {"VirtualIPs": [{"NetworkID": ingress, "Addr": "10.0.0.4/24"}]}
        self.put(Table.SERVICES, raw)

    def figures(self, key: str) -> tuple[tuple[str, ...], int, int]:
        row = self.rows[key]
        return row.services, row.tasks_running, row.tasks_wanted


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_services_and_their_tasks_are_counted_as_they_come_and_go(stage: Stage) -> None:
    stage.network("front")
    assert stage.figures("front") == ((), 0, 0)
    stage.service("web", "front")
    assert stage.figures("front") == (("web",), 0, 2)
    stage.put(Table.TASKS, make_task("t1", "web", 1, "n1"))
    stage.put(Table.TASKS, make_task("t2", "web", 2, "n1"))
    stage.service("api", "front", replicas=1)
    assert stage.figures("front") == (("api", "web"), 2, 3)
    stage.drop(Table.TASKS, "t1")
    assert stage.figures("front") == (("api", "web"), 1, 3)
    stage.drop(Table.SERVICES, "web")
    assert stage.figures("front") == (("api",), 0, 1)


def test_a_service_that_moves_to_another_network_is_counted_there(stage: Stage) -> None:
    stage.network("front")
    stage.network("back")
    stage.service("web", "front")
    stage.service("web", "back")
    assert (stage.figures("front"), stage.figures("back")) == (((), 0, 0), (("web",), 0, 2))
    stage.service("web", "front", "back")
    assert (stage.figures("front"), stage.figures("back")) == ((("web",), 0, 2), (("web",), 0, 2))


def test_published_ports_put_a_service_on_ingress(stage: Stage) -> None:
    stage.service("web", ingress="in")
    stage.network("in")
    assert stage.figures("in") == (("web",), 0, 2)
    stage.service("web")
    assert stage.figures("in") == ((), 0, 0)


def test_older_clients_wrote_networks_beside_the_task_template(stage: Stage) -> None:
    stage.network("front")
    raw = make_service("web", "web", 2)
    raw["Spec"]["Networks"] = [{"Target": "front"}]
    stage.put(Table.SERVICES, raw)
    assert stage.figures("front") == (("web",), 0, 2)


def test_what_happens_elsewhere_is_not_delivered(stage: Stage) -> None:
    stage.network("front")
    stage.service("web", "front")
    before = stage.deliveries
    stage.service("api")
    stage.put(Table.TASKS, make_task("t1", "api", 1, "n1"))
    stage.put(Table.NODES, make_node("n2", "node2"))
    assert stage.deliveries == before


def test_a_network_that_is_gone_leaves_its_services_where_they_are(stage: Stage) -> None:
    stage.network("front")
    stage.service("web", "front")
    stage.drop(Table.NETWORKS, "front")
    assert stage.rows == {}
    stage.put(Table.TASKS, make_task("t1", "web", 1, "n1"))
    stage.network("front")
    assert stage.figures("front") == (("web",), 1, 2)


def row(**raw: Any) -> NetworkRow:
    return network_row(msgspec.convert(raw, Network))


def test_flags_are_read_in_both_spellings() -> None:
    listed = row(
        Id="x", Name="ov", Driver="overlay", Scope="swarm", Attachable=True, Internal=True, EnableIPv6=True,
        Labels={"a": "b"}, Options={"com.docker.network.driver.overlay.vxlanid_list": "4097", "encrypted": ""},
        IPAM={"Config": [{"Subnet": "10.0.1.0/24"}, {"Subnet": "fd00::/64"}]},
    )  # fmt: skip
    watched = row(
        ID="x",
        Spec={
            "Name": "ov", "Attachable": True, "Internal": True, "IPv6Enabled": True, "Labels": {"a": "b"},
            "DriverConfiguration": {"Name": "overlay", "Options": {"encrypted": ""}},
        },
        DriverState={"Name": "overlay", "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}},
        IPAMOptions={"Configs": [{"Subnet": "10.0.1.0/24"}, {"Subnet": "fd00::/64"}]},
    )  # fmt: skip
    assert listed == watched
    assert listed.flags == ("attachable", "internal", "encrypted", "ipv6")
    assert (listed.subnet, listed.scope, listed.driver) == ("10.0.1.0/24, fd00::/64", "swarm", "overlay")


@pytest.mark.parametrize(("value", "encrypted"), [("", True), ("true", True), ("false", False), ("0", False)])
def test_a_network_is_encrypted_by_its_option(value: str, encrypted: bool) -> None:
    assert row(Id="x", Name="ov", Options={"encrypted": value}).encrypted is encrypted


def test_the_ingress_network_says_so() -> None:
    assert row(Id="x", Name="ingress", Ingress=True, Driver="overlay").flags == ("ingress",)
    assert row(Id="x", Name="plain").flags == ()

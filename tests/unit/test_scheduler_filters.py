from __future__ import annotations

import msgspec
import pytest
from manager_objects import a_node, a_spec, a_task

from agent.api_types.common import Driver, Platform
from agent.api_types.container import ContainerSpec, Mount, VolumeOptions
from agent.api_types.node import Node, NodeAvailability, NodeState, Plugin
from agent.api_types.task import Endpoint, EndpointSpec, PortConfig, Task, TaskState
from agent.manager.scheduler.filters import Pipeline
from agent.manager.scheduler.node_info import NodeInfo


def pending(**fields: object) -> Task:
    return a_task("new", 1, state=TaskState.PENDING, node="", **fields)  # type: ignore[arg-type]


def host_port(number: int, task: Task, protocol: str = "tcp") -> Task:
    port = PortConfig(protocol=protocol, target_port=80, published_port=number, publish_mode="host")
    return msgspec.structs.replace(task, endpoint=Endpoint(spec=EndpointSpec(ports=[port])))


def explain(task: Task, *infos: NodeInfo) -> str:
    """What the task's Err would be; empty when some node will do."""
    pipeline = Pipeline()
    pipeline.set_task(task)
    passed = [info for info in infos if pipeline.passes(info)]
    return "" if passed else pipeline.explain()


def info(node: Node, *tasks: Task) -> NodeInfo:
    found = NodeInfo(node)
    for task in tasks:
        found.add(task)
    return found


@pytest.mark.parametrize(
    ("node", "fits"),
    [
        (a_node("n"), True),
        (a_node("n", availability=NodeAvailability.PAUSE), False),
        (a_node("n", availability=NodeAvailability.DRAIN), False),
        (a_node("n", state=NodeState.DOWN), False),
        (a_node("n", state=NodeState.UNKNOWN), False),
        (a_node("n", state=NodeState.DISCONNECTED), False),
    ],
)
def test_ready(node: Node, fits: bool) -> None:
    text = explain(pending(), info(node))
    assert text == ("" if fits else "no suitable node (1 node not available for new tasks)")


def test_without_nodes_there_is_nothing_to_explain() -> None:
    assert explain(pending()) == "no suitable node"


def test_the_recorded_explanations() -> None:
    tight = info(a_node("n", cpus=1))
    assert (
        explain(pending(spec=a_spec(cpus=2)), tight, info(a_node("m", cpus=1)))
        == "no suitable node (insufficient resources on 2 nodes)"
    )
    picky = a_spec(constraints=["node.labels.zone==a"])
    taken = info(a_node("a", labels={"zone": "a"}), host_port(80, a_task("t")))
    assert (
        explain(host_port(80, pending(spec=picky)), info(a_node("b")), taken)
        == "no suitable node (scheduling constraints not satisfied on 1 node; host-mode port already in use on 1 node)"
    )


def test_what_keeps_most_nodes_comes_first() -> None:
    picky = a_spec(constraints=["node.labels.zone==a"])
    text = explain(pending(spec=picky), info(a_node("p", state=NodeState.DOWN)), info(a_node("b")), info(a_node("c")))
    assert text == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"
    )


def test_resources_are_held_until_a_task_has_ended() -> None:
    half = a_spec(cpus=4, memory=1 << 29, gpus=1)
    node = a_node("n", cpus=8, memory=1 << 30, gpus=2)
    one = a_task("a", spec=half, desired=TaskState.SHUTDOWN)
    two = a_task("b", spec=half)
    assert explain(pending(spec=half), info(node, one)) == ""
    full = info(node, one, two)
    assert explain(pending(spec=half), full) == "no suitable node (insufficient resources on 1 node)"
    full.add(msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, state=TaskState.SHUTDOWN)))
    assert explain(pending(spec=half), full) == ""


@pytest.mark.parametrize(("cpus", "memory", "gpus"), [(9, 0, 0), (0, 2 << 30, 0), (0, 0, 3)])
def test_each_resource_counts(cpus: float, memory: int, gpus: int) -> None:
    node = a_node("n", cpus=8, memory=1 << 30, gpus=2)
    assert "insufficient resources" in explain(pending(spec=a_spec(cpus=cpus, memory=memory, gpus=gpus)), info(node))


def test_a_node_that_shrank_still_takes_what_asks_for_nothing() -> None:
    shrunk = info(a_node("n", cpus=8), a_task("t", spec=a_spec(cpus=6)))
    shrunk.set_node(a_node("n", cpus=2))
    assert shrunk.nano_cpus < 0
    assert explain(pending(spec=a_spec(memory=1)), shrunk) == ""
    assert explain(pending(spec=a_spec(cpus=0.1)), shrunk) != ""


def test_a_changed_node_keeps_its_host_ports_once() -> None:
    taken = info(a_node("n"), host_port(80, a_task("t")))
    taken.set_node(a_node("n", cpus=16))
    assert explain(host_port(80, pending()), taken) != ""
    taken.remove("t")
    assert explain(host_port(80, pending()), taken) == ""


def test_host_ports_of_two_protocols_are_two() -> None:
    taken = info(a_node("n"), host_port(53, a_task("t"), "udp"))
    assert explain(host_port(53, pending(), "tcp"), taken) == ""
    assert explain(host_port(53, pending(), "udp"), taken) == (
        "no suitable node (host-mode port already in use on 1 node)"
    )


@pytest.mark.parametrize(
    ("platform", "fits"),
    [
        (Platform(os="linux", architecture="amd64"), True),
        (Platform(os="linux", architecture="x86_64"), True),
        (Platform(os="linux"), True),
        (Platform(architecture="amd64"), True),
        (Platform(os="linux", architecture="arm64"), False),
        (Platform(os="windows", architecture="amd64"), False),
    ],
)
def test_platform(platform: Platform, fits: bool) -> None:
    text = explain(pending(spec=a_spec(platforms=[platform])), info(a_node("n")))
    assert text == ("" if fits else "no suitable node (unsupported platform on 1 node)")


def test_max_replicas() -> None:
    spec = a_spec(max_replicas=2)
    one = info(a_node("n"), a_task("a", spec=spec), a_task("b", 2, spec=spec, desired=TaskState.SHUTDOWN))
    assert explain(pending(spec=spec), one) == ""
    two = info(a_node("n"), a_task("a", spec=spec), a_task("b", 2, spec=spec))
    assert explain(pending(spec=spec), two) == "no suitable node (max replicas per node limit exceed)"


def test_plugins_are_asked_of_nodes_that_list_any() -> None:
    mount = Mount(type="volume", volume_options=VolumeOptions(driver_config=Driver(name="nfs")))
    spec = msgspec.structs.replace(
        a_spec(), container_spec=ContainerSpec(image="x", mounts=[mount]), log_driver=Driver(name="json-file")
    )
    node = a_node("n")

    def with_plugins(*plugins: Plugin) -> NodeInfo:
        engine = msgspec.structs.replace(node.description.engine, plugins=list(plugins))
        return info(msgspec.structs.replace(node, description=msgspec.structs.replace(node.description, engine=engine)))

    log = Plugin(type="Log", name="json-file")
    assert explain(pending(spec=spec), with_plugins()) == ""
    assert explain(pending(spec=spec), with_plugins(log)) == "no suitable node (missing plugin on 1 node)"
    assert explain(pending(spec=spec), with_plugins(log, Plugin(type="Volume", name="nfs:latest"))) == ""


def test_a_constraint_that_cannot_be_read_fits_no_node() -> None:
    text = explain(pending(spec=a_spec(constraints=["nonsense"])), info(a_node("n")))
    assert text == "no suitable node (scheduling constraints not satisfied on 1 node)"

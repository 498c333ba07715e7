"""Virtual addresses in a balancer's namespace: turns, hairpin, datagrams, removal, restarts, and nothing left behind."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from balancer_stage import BRIDGE, POSSIBLE, WHY, Stage, stage, within

from agent.network import namespaces
from agent.network.balancers.choice import ipvs_loaded
from agent.network.interface import Backend, VirtualService
from agent.network.lb_namespace import LbNamespace, remove_leftovers

pytestmark = [pytest.mark.root, pytest.mark.skipif(not POSSIBLE, reason=WHY)]
only_nftables = pytest.mark.skipif(POSSIBLE and ipvs_loaded(), reason="looks at nftables, and IPVS balances here")

NETWORK = "abcdefghijklmnopqrstuvwxy"
OWN, VIP = "10.0.1.9/24", "10.0.1.2"
TASKS = {"a": "10.0.1.5", "b": "10.0.1.6", "c": "10.0.1.7"}


def service(*names: str, vip: str = VIP, port: int = 0, protocol: str = "") -> VirtualService:
    return VirtualService(vip, port, protocol, frozenset(Backend(TASKS[name], port) for name in names))


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Stage]:
    """A host with the tasks a, b, c."""
    async with stage(tmp_path, TASKS.items()) as made:
        yield made


@pytest.fixture
async def lb(three: Stage) -> AsyncIterator[LbNamespace]:
    balancer = namespace(three)
    yield balancer
    await balancer.close(remove=True)


def namespace(three: Stage) -> LbNamespace:
    return LbNamespace(NETWORK, BRIDGE, folder=three.folder, host=three.places["host"])


async def test_connections_take_the_tasks_exactly_in_turn(three: Stage, lb: LbNamespace) -> None:
    for name in TASKS:
        await three.listening(name, 80)
    await three.machine("client", "10.0.1.20")
    await lb.apply(OWN, [VIP], frozenset({service("a", "b", "c")}))
    answers = [await three.ask("client", VIP, 80) for _ in range(30)]
    assert Counter(name for name, _ in answers) == {"a": 10, "b": 10, "c": 10}
    assert {seen for _, seen in answers} == {"10.0.1.9"}
    assert [answers[i][0] for i in range(3)] == [answers[i][0] for i in range(3, 6)]
    await three.ping("client", VIP)


async def test_a_task_may_call_its_own_virtual_address(three: Stage, lb: LbNamespace) -> None:
    await three.listening("a", 80)
    await lb.apply(OWN, [VIP], frozenset({service("a")}))
    assert await three.ask("a", VIP, 80) == ("a", "10.0.1.9")


async def test_weights_count_and_a_weight_of_zero_takes_none(three: Stage, lb: LbNamespace) -> None:
    for name in TASKS:
        await three.listening(name, 80)
    weighted = zip(TASKS.values(), (2, 1, 0), strict=True)
    backends = frozenset(Backend(address, 80, weight) for address, weight in weighted)
    await lb.apply(OWN, [VIP], frozenset({VirtualService(VIP, 80, "tcp", backends)}))
    assert await three.count("c", VIP, 80, 9) == {"a": 6, "b": 3}


async def test_datagrams_are_balanced_by_sender(three: Stage, lb: LbNamespace) -> None:
    for name in TASKS:
        await three.answering(name, 53)
    await lb.apply(OWN, [VIP], frozenset({service("a", "b", "c")}))
    heard: Counter[bytes] = Counter()
    for _ in range(6):
        sender = await three.sender("a")
        answers = {await three.say(sender, VIP, 53) for _ in range(3)}
        assert len(answers) == 1
        heard += Counter(answers)
    assert heard == {b"a hello": 2, b"b hello": 2, b"c hello": 2}


async def test_a_sender_who_was_early_reaches_the_first_backend(three: Stage, lb: LbNamespace) -> None:
    await three.answering("b", 53)
    await lb.apply(OWN, [VIP], frozenset({service()}))
    sender = await three.sender("a")
    with pytest.raises(ConnectionRefusedError):
        sender.connect((VIP, 53))
        sender.send(b"early")
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_recv(sender, 100)
    await lb.apply(OWN, [VIP], frozenset({service("b")}))
    assert await three.say(sender, VIP, 53) == b"b hello"


async def test_without_a_backend_the_caller_is_refused_at_once(three: Stage, lb: LbNamespace) -> None:
    await lb.apply(OWN, [VIP], frozenset({service()}))
    with pytest.raises(ConnectionRefusedError):
        await three.ask("a", VIP, 80)


async def test_a_removed_task_gets_nothing_new_and_keeps_what_it_has(three: Stage, lb: LbNamespace) -> None:
    for name in TASKS:
        await three.listening(name, 80)
    await lb.apply(OWN, [VIP], frozenset({service("a", "b", "c")}))
    standing = [await three.connect("c", VIP, 80) for _ in range(3)]
    await lb.apply(OWN, [VIP], frozenset({service("b", "c")}))
    assert await three.count("c", VIP, 80, 10) == {"b": 5, "c": 5}
    for _, _, reader, writer in standing:
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
    assert await lb.forget([TASKS["a"]]) >= 1
    for who, _, reader, writer in standing:
        writer.write(b"and now\n")
        if who == "a":
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        else:
            assert await reader.readline() == b"and now\n"


async def test_an_agent_that_comes_back_finds_all_and_breaks_nothing(three: Stage) -> None:
    for name in TASKS:
        await three.listening(name, 80)
    services = frozenset({service("a", "b", "c")})
    first = namespace(three)
    await first.apply(OWN, [VIP], services)
    _, _, reader, writer = await three.connect("a", VIP, 80)
    links = within(first.path, "ip", "-o", "-4", "address")
    before = first.path.stat().st_ino
    await first.close(remove=False)
    assert await three.count("b", VIP, 80, 3) == {"a": 1, "b": 1, "c": 1}

    stop = asyncio.Event()

    async def load() -> int:
        calls = 0
        while not stop.is_set():
            await three.ask("b", VIP, 80)
            calls += 1
        return calls

    async with asyncio.TaskGroup() as group:
        calls = group.create_task(load())
        second = namespace(three)
        for _ in range(5):
            await second.apply(OWN, [VIP], services)
            await second.close(remove=False)
            second = namespace(three)
        stop.set()
    assert calls.result() > 0
    await second.apply(OWN, [VIP], services)
    writer.write(b"on and on\n")
    assert await reader.readline() == b"on and on\n"
    assert (second.path.stat().st_ino, within(second.path, "ip", "-o", "-4", "address")) == (before, links)
    await second.close(remove=True)


@only_nftables
async def test_it_mends_what_others_took_away(three: Stage, lb: LbNamespace) -> None:
    await three.listening("a", 80)
    wanted = (OWN, [VIP, "10.0.1.3"], frozenset({service("a")}))
    await lb.apply(*wanted)
    host = three.places["host"]
    within(host, "ip", "link", "set", lb.name, "nomaster")
    within(host, "ip", "link", "set", lb.name, "down")
    await lb.apply(*wanted)
    assert await three.ask("b", VIP, 80) == ("a", "10.0.1.9")
    within(host, "ip", "link", "del", lb.name)
    await lb.apply(*wanted)
    assert await three.ask("b", VIP, 80) == ("a", "10.0.1.9")
    within(lb.path, "ip", "address", "del", f"{VIP}/32", "dev", "eth0")
    within(lb.path, "nft", "flush ruleset")
    await lb.apply(*wanted)
    assert await three.ask("b", VIP, 80) == ("a", "10.0.1.9")


@only_nftables
async def test_rules_that_were_flushed_come_back_by_themselves(three: Stage, lb: LbNamespace) -> None:
    await three.listening("a", 80)
    await lb.apply(OWN, [VIP], frozenset({service("a")}))
    rules = within(lb.path, "nft", "list", "ruleset")
    within(lb.path, "nft", "flush ruleset")
    async with asyncio.timeout(10):
        while within(lb.path, "nft", "list", "ruleset") != rules:
            await asyncio.sleep(0)
    assert await three.ask("b", VIP, 80) == ("a", "10.0.1.9")


@only_nftables
async def test_a_thousand_services(three: Stage, lb: LbNamespace) -> None:
    await three.listening("a", 80)
    await three.listening("b", 81)
    vips = [f"10.0.{i // 200 + 2}.{i % 200 + 1}" for i in range(1000)]
    many = frozenset(VirtualService(vip, 80, "tcp", frozenset({Backend(TASKS["a"], 80)})) for vip in vips)
    await lb.apply(OWN, vips, many)
    within(three.places["c"], "ip", "route", "replace", "default", "dev", "eth0")
    for vip in (vips[0], vips[500], vips[999]):
        assert await three.ask("c", vip, 80) == ("a", "10.0.1.9")
    other = VirtualService(vips[500], 80, "tcp", frozenset({Backend(TASKS["b"], 81)}))
    await lb.apply(OWN, vips, frozenset(s for s in many if s.address != vips[500]) | {other})
    assert await three.ask("c", vips[500], 80) == ("b", "10.0.1.9")
    assert await three.ask("c", vips[501], 80) == ("a", "10.0.1.9")
    await lb.apply(OWN, vips[:1], frozenset(s for s in many if s.address == vips[0]))
    assert within(lb.path, "ip", "-o", "-4", "address", "show", "dev", "eth0").count("\n") == 2
    assert within(lb.path, "nft", "list", "ruleset").count("dnat to") == 1


async def test_addresses_of_version_6(three: Stage, lb: LbNamespace) -> None:
    await three.machine("six", "fd00::5")
    await three.machine("other", "fd00::6")
    await three.listening("six", 80, socket.AF_INET6)
    services = frozenset({VirtualService("fd00::2", 0, "", frozenset({Backend("fd00::5", 0)}))})
    await lb.apply("fd00::9/64", ["fd00::2"], services)
    assert await three.ask("other", "fd00::2", 80) == ("six", "fd00::9")
    assert await three.ask("six", "fd00::2", 80) == ("six", "fd00::9")


@only_nftables
async def test_nothing_is_left_and_nothing_foreign_is_touched(three: Stage) -> None:
    host = three.places["host"]
    within(host, "nft", "add table ip foreign; add chain ip foreign c { type nat hook prerouting priority 0 ; }")
    before = [within(host, "nft", "list", "ruleset"), within(host, "ip", "-o", "link")]
    balancer = namespace(three)
    await balancer.apply(OWN, [VIP], frozenset({service("a")}))
    assert within(host, "nft", "list", "ruleset") == before[0]
    await balancer.close(remove=True)
    await balancer.close(remove=True)
    assert [within(host, "nft", "list", "ruleset"), within(host, "ip", "-o", "link")] == before
    assert not balancer.path.exists()


async def test_leftovers_of_networks_that_nobody_wants_go(three: Stage) -> None:
    kept, gone = namespace(three), LbNamespace("zzzzzzzzzzzzz", BRIDGE, folder=three.folder, host=three.places["host"])
    await kept.apply(OWN, [VIP], frozenset())
    await gone.apply("10.0.1.10/24", [], frozenset())
    await kept.close(remove=False)
    await gone.close(remove=False)
    assert await remove_leftovers([NETWORK], three.folder, three.places["host"]) == ["zzzzzzzzzzzzz"]
    assert (namespaces.stands(kept.path), gone.path.exists()) == (True, False)
    assert await remove_leftovers([], three.folder, three.places["host"]) == [NETWORK]


async def test_a_namespace_file_that_lost_its_namespace_is_made_again(three: Stage, lb: LbNamespace) -> None:
    lb.path.touch()
    await three.listening("a", 80)
    await lb.apply(OWN, [VIP], frozenset({service("a")}))
    assert await three.ask("b", VIP, 80) == ("a", "10.0.1.9")


async def test_a_missing_bridge_is_said(three: Stage) -> None:
    balancer = LbNamespace(NETWORK, "ov-none", folder=three.folder, host=three.places["host"])
    try:
        with pytest.raises(OSError, match="there is no bridge ov-none"):
            await balancer.apply(OWN, [VIP], frozenset())
    finally:
        await balancer.close(remove=True)


async def test_another_hosts_namespace_is_left_alone(three: Stage, lb: LbNamespace, tmp_path: Path) -> None:
    await lb.apply(OWN, [VIP], frozenset({service("a")}))
    second = await three.place("second")
    within(second, "ip", "link", "add", BRIDGE, "type", "bridge")
    with pytest.raises(OSError, match="in use by another host"):
        await LbNamespace(NETWORK, BRIDGE, folder=three.folder, host=second).apply(OWN, [VIP], frozenset())

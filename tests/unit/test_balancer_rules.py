"""Virtual services as text for nftables: what is asked for, the smallest change, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.balancers.nft_rules import Setting, chains, change, rewrite
from agent.network.balancers.nft_watch import takers
from agent.network.interface import Backend, VirtualService

SETTING = Setting("ours", "eth0")


def service(address: str = "10.0.1.2", port: int = 80, protocol: str = "tcp", *backends: Backend) -> VirtualService:
    return VirtualService(address, port, protocol, frozenset(backends or (Backend("10.0.1.5", port),)))


def test_one_backend_more_is_one_chain_written_anew() -> None:
    before = chains([service(), service("10.0.1.3")])
    after = chains(
        [service("10.0.1.2", 80, "tcp", Backend("10.0.1.5", 80), Backend("10.0.1.6", 80)), service("10.0.1.3")]
    )
    turn = "numgen inc mod 2 map { 0 : 10.0.1.5, 1 : 10.0.1.6 }"
    assert change(SETTING, before, after).splitlines() == [
        "flush chain ip ours to-10.0.1.2-tcp-80",
        f"add rule ip ours to-10.0.1.2-tcp-80 meta l4proto tcp dnat to {turn} : 80",
    ]
    assert change(SETTING, after, after) == ""


def test_a_service_that_goes_leaves_the_map_before_its_chain() -> None:
    before, after = chains([service(), service("10.0.1.3")]), chains([service("10.0.1.3")])
    assert change(SETTING, before, after).splitlines() == [
        "delete element ip ours services { 10.0.1.2 . tcp . 80 }",
        "delete chain ip ours to-10.0.1.2-tcp-80",
    ]


def test_a_service_without_backends_has_no_rule() -> None:
    drained = VirtualService("10.0.1.2", 80, "tcp", frozenset({Backend("10.0.1.5", 80, weight=0)}))
    assert chains([drained, VirtualService("10.0.1.3", 80, "tcp", frozenset())]) == {}


def test_the_last_service_takes_the_table_along() -> None:
    assert change(SETTING, chains([service()]), {}) == "delete table ip ours"


def test_weights_are_turns_that_are_mixed() -> None:
    heavy = service("10.0.1.2", 80, "tcp", Backend("10.0.1.5", 80, 3), Backend("10.0.1.6", 80, 1))
    (chain,) = chains([heavy]).values()
    assert [backend.address[-1] for backend in chain.backends] == ["5", "6", "5", "5"]


@pytest.mark.parametrize(
    "wrong",
    [
        service("10.0.1.2; flush ruleset"),
        service(protocol="icmp"),
        service(port=70000),
        service("0.0.0.0", 0),
        service("10.0.1.2", 80, "tcp", Backend("10.0.1.5 } ; add table ip x", 80)),
        service("10.0.1.2", 80, "tcp", Backend("fd00::5", 80)),
        service("10.0.1.2", 80, "tcp", Backend("10.0.1.5", 0)),
        service("10.0.1.2", 0, "", Backend("10.0.1.5", 80)),
    ],
)
def test_what_is_no_service_is_refused(wrong: VirtualService) -> None:
    with pytest.raises(ValueError):
        chains([wrong])


backends = st.builds(Backend, st.integers(1, 6).map(lambda n: f"10.0.1.{n}"), st.just(80), st.integers(0, 2))
desired = st.frozensets(
    st.builds(
        VirtualService,
        st.integers(1, 4).map(lambda n: f"10.0.2.{n}"),
        st.just(80),
        st.sampled_from(["tcp", "udp", ""]),
        st.frozensets(backends, max_size=4),
    ),
    max_size=6,
).map(lambda services: frozenset({(s.address, s.protocol): s for s in services}.values()))


class Table:
    """Carries commands out on what the kernel would have, and refuses what it would."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.there = False

    def run(self, commands: str) -> None:
        for line in commands.splitlines():
            verb, what, *rest = line.split()
            if what == "table":
                if verb == "delete":
                    assert self.there
                    self.chains, self.elements = {}, {}
                self.there = verb == "add"
                continue
            assert self.there, line
            if what == "element":
                name, key = rest[2], line.partition("{ ")[2].rpartition(" }")[0].partition(" : ")
                if verb == "delete":
                    del self.elements[name, key[0]]
                else:
                    target = key[2].removeprefix("goto ")
                    assert target in self.chains
                    assert self.elements.get((name, key[0]), target) == target
                    self.elements[name, key[0]] = target
            elif what == "chain" and verb == "delete":
                assert rest[2] not in self.elements.values()
                del self.chains[rest[2]]
            elif what == "chain" and verb == "flush":
                self.chains[rest[2]].clear()
            elif what == "chain" and "hook" not in rest:
                assert rest[2] not in self.chains
                self.chains[rest[2]] = []
            elif what == "rule" and rest[2] in self.chains:
                self.chains[rest[2]].append(" ".join(rest[3:]))


@given(st.lists(desired, max_size=5))
def test_steps_lead_to_what_writing_anew_leads_to(states: list[frozenset[VirtualService]]) -> None:
    stepwise, before = Table(), chains([])
    for state in states:
        try:
            after = chains(state)
        except ValueError:
            continue
        stepwise.run(change(SETTING, before, after))
        before = after
        anew = Table()
        anew.run(rewrite(SETTING, after, ["ip"]))
        assert (stepwise.chains, stepwise.elements) == (anew.chains, anew.elements)
        assert all(len(rules) == 1 for rules in stepwise.chains.values())


def message(kind: int, sender: int, table: bytes) -> bytes:
    name = table + b"\0"
    body = b"\2\0\0\0" + struct.pack("=HH", 4 + len(name), 1) + name + bytes(-len(name) % 4)
    return struct.pack("=IHHII", 16 + len(body), 10 << 8 | kind, 0, 0, sender) + body


def test_who_took_something_from_our_table() -> None:
    heard = message(2, 7, b"ours") + message(2, 8, b"others") + message(6, 9, b"ours") + message(14, 10, b"ours")
    assert takers(heard, b"ours") == {7, 10}


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    takers(data, b"ours")
    takers(message(2, 7, b"ours")[:20] + data, b"ours")

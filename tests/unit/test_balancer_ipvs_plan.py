"""Virtual services as IPVS has them: marks for every port, schedulers, drained destinations."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.balancers.ipvs_plan import Action, Service, State, Step, Virtual, after, firewall, plan, steps
from agent.network.interface import Backend, VirtualService

VIP = "10.0.1.2"


def every(*backends: tuple[str, int]) -> VirtualService:
    return VirtualService(VIP, 0, "", frozenset(Backend(address, 0, weight) for address, weight in backends))


def test_every_port_is_a_mark_that_the_address_gives() -> None:
    made = plan([every(("10.0.1.5", 1))])
    assert made.state == {Virtual(socket.AF_INET, 0x0A000102): Service("rr", {("10.0.1.5", 0): 1})}
    assert made.marks == {VIP: (0x0A000102, ("tcp", "udp", "sctp"))}
    rules = firewall(made.marks, "eth0", 4)
    assert "-A PREROUTING -d 10.0.1.2 -p udp -j MARK --set-mark 0xa000102\n" in rules
    assert "-A POSTROUTING -o eth0 -m ipvs --ipvs -j MASQUERADE\n" in rules
    assert "10.0.1.2" not in firewall(made.marks, "eth0", 6)


def test_a_port_is_named_by_protocol() -> None:
    made = plan([VirtualService(VIP, 80, "", frozenset({Backend("10.0.1.5", 8080, 2)}))])
    assert {(virtual.protocol, virtual.port) for virtual in made.state} == {(6, 80), (17, 80), (132, 80)}
    assert {service.scheduler for service in made.state.values()} == {"wrr"}
    assert made.marks == {}


def test_what_goes_is_drained_and_comes_back_with_its_weight() -> None:
    virtual = Virtual(socket.AF_INET, 0x0A000102)
    both, one = plan([every(("10.0.1.5", 1), ("10.0.1.6", 1))]).state, plan([every(("10.0.1.6", 1))]).state
    assert steps(both, one) == [Step(Action.SET_DESTINATION, virtual, destination=("10.0.1.5", 0), weight=0)]
    drained = after(both, one)
    assert steps(drained, one) == []
    assert steps(drained, both) == [Step(Action.SET_DESTINATION, virtual, destination=("10.0.1.5", 0), weight=1)]
    assert steps(drained, {}) == [Step(Action.REMOVE_SERVICE, virtual)]


def test_two_that_want_every_port_of_an_address_are_refused() -> None:
    with pytest.raises(ValueError, match="every port"):
        plan([every(), VirtualService(VIP, 0, "tcp", frozenset())])


services = st.frozensets(
    st.builds(
        VirtualService,
        st.integers(1, 3).map(lambda n: f"10.0.2.{n}"),
        st.just(80),
        st.sampled_from(["tcp", "udp"]),
        st.frozensets(st.builds(Backend, st.integers(1, 4).map(lambda n: f"10.0.1.{n}"), st.just(80)), max_size=4),
    ),
    max_size=5,
).map(lambda chosen: frozenset({(s.address, s.protocol): s for s in chosen}.values()))


@given(st.lists(services, max_size=6))
def test_steps_do_what_they_say(states: list[frozenset[VirtualService]]) -> None:
    kernel: dict[Virtual, dict[tuple[str, int], int]] = {}
    standing: State = {}
    for state in states:
        wanted = plan(state).state
        for step in steps(standing, wanted):
            match step.action:
                case Action.ADD_SERVICE:
                    assert step.virtual not in kernel
                    kernel[step.virtual] = {}
                case Action.REMOVE_SERVICE:
                    del kernel[step.virtual]
                case Action.ADD_DESTINATION:
                    assert step.destination not in kernel[step.virtual]
                    kernel[step.virtual][step.destination] = step.weight
                case Action.SET_DESTINATION:
                    assert step.destination in kernel[step.virtual]
                    kernel[step.virtual][step.destination] = step.weight
        standing = after(standing, wanted)
        assert kernel == {virtual: dict(service.destinations) for virtual, service in standing.items()}
        for virtual, service in wanted.items():
            taking = {place: weight for place, weight in kernel[virtual].items() if weight}
            assert taking == service.destinations

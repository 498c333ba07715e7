"""Which names an address sees, and what it is answered."""

from __future__ import annotations

from collections import Counter

import dns.flags
import dns.message
import dns.reversename
import pytest
from dns_network import addresses, ask, code, network, picture, task

from agent.network.dns.answers import Verdict, answer, failure
from agent.network.dns.names import TASK_TTL, VIRTUAL_TTL, Names
from agent.rpc.messages import OverlayService

WEB = OverlayService("web-id", "web", vip="10.0.1.2", aliases=["www"])
PLAIN = OverlayService("plain-id", "plain")
"""A service without a virtual address (dnsrr)."""

FRONT = network(
    "front",
    "10.0.1.0/24",
    [WEB, PLAIN],
    [
        task("10.0.1.5", "web.1.aaa", service="web-id", aliases=["first"]),
        task("10.0.1.6", "web.2.bbb", service="web-id"),
        task("10.0.1.7", "web.3.ccc", service="web-id", ready=False),
        task("10.0.1.8", "plain.1.ddd", service="plain-id"),
        task("10.0.1.9", "plain.2.eee", service="plain-id"),
        task("10.0.1.3", "", id="balancer"),
    ],
)
NAMES = picture(FRONT)
ME = "10.0.1.5"


@pytest.mark.parametrize("name", ["web", "web.", "WEB", "wEb.", "www", "web.front", "Web.Front.", "www.front"])
def test_a_service_name_stands_for_its_virtual_address(name: str) -> None:
    said = ask(NAMES, name, ME)
    assert addresses(said) == ["10.0.1.2"]
    assert said.answer[0].ttl == VIRTUAL_TTL
    assert said.flags & dns.flags.AA
    assert said.flags & dns.flags.RA


def test_letter_case_of_the_question_comes_back_as_it_was() -> None:
    assert str(ask(NAMES, "wEB", ME).question[0].name) == "wEB."


@pytest.mark.parametrize("name", ["tasks.web", "Tasks.Web.front"])
def test_tasks_of_a_service_are_its_ready_tasks(name: str) -> None:
    said = ask(NAMES, name, ME)
    assert sorted(addresses(said)) == ["10.0.1.5", "10.0.1.6"]
    assert said.answer[0].ttl == TASK_TTL


def test_without_a_virtual_address_the_name_stands_for_the_tasks_in_random_order() -> None:
    firsts = Counter(addresses(ask(NAMES, "plain", ME, seed=seed))[0] for seed in range(400))
    assert set(firsts) == {"10.0.1.8", "10.0.1.9"}
    assert min(firsts.values()) > 150


def test_a_task_has_its_name_and_its_aliases() -> None:
    assert addresses(ask(NAMES, "web.2.bbb", ME)) == ["10.0.1.6"]
    assert addresses(ask(NAMES, "first", ME)) == ["10.0.1.5"]


def test_a_name_that_is_known_and_has_no_address_now_is_answered_at_once() -> None:
    assert addresses(ask(NAMES, "web.3.ccc", ME)) == []
    names = picture(network("front", "10.0.1.0/24", [PLAIN], [task("10.0.1.8", "p", service="plain-id", ready=False)]))
    assert addresses(ask(names, "plain", "10.0.1.8")) == []
    assert addresses(ask(names, "tasks.plain", "10.0.1.8")) == []


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV", "HTTPS", "PTR"])
def test_other_types_of_a_known_name_have_no_data(kind: str) -> None:
    assert addresses(ask(NAMES, "web", ME, kind)) == []


def test_any_asks_for_all_types() -> None:
    assert addresses(ask(NAMES, "web", ME, "ANY")) == ["10.0.1.2"]


def test_ipv6_addresses_are_answered_as_such() -> None:
    six = network(
        "six",
        "10.0.6.0/24 fd00:6::/64",
        [OverlayService("s", "db", vip="fd00:6::2")],
        [task("fd00:6::5", "db.1.x", service="s"), task("10.0.6.5", "db.1.x", service="s", id="other")],
    )
    names = picture(six)
    for source in ("10.0.6.5", "fd00:6::5"):
        assert addresses(ask(names, "db", source, "AAAA")) == ["fd00:6::2"]
        assert addresses(ask(names, "db", source, "A")) == []
        assert addresses(ask(names, "db.1.x", source, "AAAA")) == ["fd00:6::5"]
        assert addresses(ask(names, "db.1.x", source, "A")) == ["10.0.6.5"]
    reverse = str(dns.reversename.from_address("fd00:6::5"))
    assert addresses(ask(names, reverse, "fd00:6::5", "PTR")) == ["db.1.x.six."]
    assert code(ask(names, "7" + reverse[1:], "fd00:6::5", "PTR")) == "NXDOMAIN"


def test_two_tasks_with_one_alias_both_answer() -> None:
    one = task("10.0.1.5", "a", aliases=["db"])
    other = task("10.0.1.6", "b", aliases=["DB"], service="s")
    names = picture(network("front", "10.0.1.0/24", [OverlayService("s", "svc", vip="10.0.1.2")], [one, other]))
    orders = {tuple(addresses(ask(names, "db", ME, seed=seed))) for seed in range(20)}
    assert orders == {("10.0.1.5", "10.0.1.6"), ("10.0.1.6", "10.0.1.5")}


def test_a_service_answers_for_an_alias_that_its_tasks_have_too() -> None:
    service = OverlayService("s", "svc", vip="10.0.1.2", aliases=["db"])
    tasks = [task("10.0.1.5", "svc.1.a", service="s", aliases=["db"]), task("10.0.1.6", "mine", aliases=["db"])]
    names = picture(network("front", "10.0.1.0/24", [service], tasks))
    assert sorted(addresses(ask(names, "db", ME))) == ["10.0.1.2", "10.0.1.6"]


def test_the_reverse_of_an_address_names_task_and_network() -> None:
    assert addresses(ask(NAMES, "6.1.0.10.in-addr.arpa", ME, "PTR")) == ["web.2.bbb.front."]
    assert addresses(ask(NAMES, "2.1.0.10.IN-ADDR.arpa", ME, "PTR")) == ["web.front."]
    assert addresses(ask(NAMES, "web.2.bbb.front.", ME)) == ["10.0.1.6"]


@pytest.mark.parametrize("last", ["7", "3", "200"])
def test_the_reverse_of_an_unknown_address_on_the_network_never_leaves_the_host(last: str) -> None:
    assert code(ask(NAMES, f"{last}.1.0.10.in-addr.arpa", ME, "PTR")) == "NXDOMAIN"


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "unknown",
        "web.example.com",
        "web.back",
        "front",
        ".",
        "tasks.unknown",
        "tasks",
        "xfront",
        "webfront",
        "8.8.8.8.in-addr.arpa",
        "1.0.10.in-addr.arpa",
        "x.1.0.10.in-addr.arpa",
        "256.1.0.10.in-addr.arpa",
        "in-addr.arpa",
    ],
)
def test_what_no_network_knows_goes_to_the_hosts_resolvers(name: str) -> None:
    assert ask(NAMES, name, ME) is Verdict.FORWARD


def test_a_label_with_a_dot_in_it_is_another_name() -> None:
    query = dns.message.make_query("web\\.1\\.aaa.", "A").to_wire()
    assert b"\x09web.1.aaa\x00" in query
    assert answer(query, ME, NAMES) is Verdict.FORWARD
    inside = dns.message.make_query("web\\005front.", "A").to_wire()
    assert b"\x09web\x05front\x00" in inside
    assert answer(inside, ME, NAMES) is Verdict.FORWARD


BACK = network(
    "back",
    "10.0.2.0/24",
    [OverlayService("db-id", "db", vip="10.0.2.2"), OverlayService("web-id", "web", vip="10.0.2.3")],
    [task("10.0.2.5", "web.1.aaa", service="web-id"), task("10.0.2.6", "db.1.fff", service="db-id")],
)
BOTH = picture(FRONT, BACK)


@pytest.mark.parametrize("source", ["10.0.1.5", "10.0.2.5"])
def test_a_task_on_several_networks_sees_the_union(source: str) -> None:
    assert addresses(ask(BOTH, "db", source)) == ["10.0.2.2"]
    assert addresses(ask(BOTH, "plain.1.ddd", source)) == ["10.0.1.8"]
    assert sorted(addresses(ask(BOTH, "web", source))) == ["10.0.1.2", "10.0.2.3"]
    assert addresses(ask(BOTH, "web.back", source)) == ["10.0.2.3"]
    assert addresses(ask(BOTH, "5.2.0.10.in-addr.arpa", source, "PTR")) == ["web.1.aaa.back."]


def test_a_container_on_several_networks_sees_the_union_though_its_attachments_have_ids_of_their_own() -> None:
    names = picture(
        network("one", "10.0.3.0/24", [], [task("10.0.3.2", "mine", id="first")]),
        network("two", "10.0.4.0/24", [], [task("10.0.4.2", "mine", id="second"), task("10.0.4.3", "other")]),
    )
    assert addresses(ask(names, "other", "10.0.3.2")) == ["10.0.4.3"]
    elsewhere = picture(
        network("one", "10.0.3.0/24", [], [task("10.0.3.2", "mine", id="first", node_id="another")]),
        *names.without_network("one").networks.values(),
    )
    assert ask(elsewhere, "other", "10.0.3.2") is Verdict.FORWARD


def test_networks_are_isolated_from_those_who_are_not_on_them() -> None:
    assert ask(BOTH, "db", "10.0.1.6") is Verdict.FORWARD
    assert ask(BOTH, "web.back", "10.0.1.6") is Verdict.FORWARD
    assert ask(BOTH, "5.2.0.10.in-addr.arpa", "10.0.1.6", "PTR") is Verdict.FORWARD
    assert addresses(ask(BOTH, "web", "10.0.1.6")) == ["10.0.1.2"]


def test_a_task_whose_start_overtook_its_news_and_the_host_itself_see_their_network() -> None:
    assert addresses(ask(BOTH, "web", "10.0.1.77")) == ["10.0.1.2"]
    assert addresses(ask(BOTH, "web", "10.0.1.1")) == ["10.0.1.2"]


@pytest.mark.parametrize("source", ["192.0.2.1", "127.0.0.1", "::1", "fe80::1%eth0", "10.0.3.1"])
def test_a_stranger_is_refused(source: str) -> None:
    assert code(ask(BOTH, "web", source)) == "REFUSED"
    assert code(ask(BOTH, "example.com", source)) == "REFUSED"


def test_questions_from_internal_networks_alone_never_leave_the_host() -> None:
    inside = network(
        "inside", "10.0.5.0/24", [OverlayService("db-id", "db", vip="10.0.5.2")],
        [task("10.0.5.5", "web.1.aaa"), task("10.0.5.6", "alone")], internal=True,
    )  # fmt: skip
    names = picture(FRONT, inside)
    assert addresses(ask(names, "db", "10.0.5.6")) == ["10.0.5.2"]
    for name in ("example.com", "unknown", "secret.data.example.com", "8.8.8.8.in-addr.arpa"):
        assert code(ask(names, name, "10.0.5.6")) == "NXDOMAIN"
        assert ask(names, name, "10.0.5.5") is Verdict.FORWARD
    assert ask(names, "example.com", "10.0.1.6") is Verdict.FORWARD


def test_the_ingress_network_has_no_names_but_members() -> None:
    ingress = network(
        "ingress",
        "10.0.0.0/24",
        [OverlayService("web-id", "web", vip="10.0.0.9")],
        [task("10.0.0.5", "web.1.aaa", service="web-id")],
        ingress=True,
    )
    names = picture(ingress, FRONT)
    assert addresses(ask(names, "web", "10.0.0.5")) == ["10.0.1.2"]
    assert ask(picture(ingress), "web", "10.0.0.5") is Verdict.FORWARD


def test_a_slice_is_replaced_without_the_old_picture_changing() -> None:
    before = BOTH
    after = before.with_network(network("back", "10.0.2.0/24", [], [task("10.0.2.5", "web.1.aaa")]))
    assert addresses(ask(before, "db", "10.0.1.5")) == ["10.0.2.2"]
    assert ask(after, "db", "10.0.1.5") is Verdict.FORWARD
    gone = after.without_network("back").without_network("never")
    assert code(ask(gone, "web", "10.0.2.5")) == "REFUSED"
    assert gone.networks["front"] is FRONT


def test_nobody_is_known_where_there_is_no_network() -> None:
    assert code(ask(Names(), "web", "10.0.1.5")) == "REFUSED"


def test_names_that_dns_cannot_carry_are_left_out() -> None:
    names = picture(
        network(
            "a" * 64,
            "10.0.1.0/24",
            [OverlayService("s", "x" * 64, aliases=["", "a..b", "é", ".", "fine"])],
            [task("10.0.1.5", "y." * 130, service="s"), task("10.0.1.6", "ok", aliases=["-_~ strange"])],
        )
    )
    assert sorted(addresses(ask(names, "fine", ME))) == ["10.0.1.5"]
    assert addresses(ask(names, "6.1.0.10.in-addr.arpa", ME, "PTR")) == ["ok."]
    assert code(ask(names, "5.1.0.10.in-addr.arpa", ME, "PTR")) == "NXDOMAIN"


MANY = picture(
    network(
        "big",
        "10.0.16.0/20",
        [PLAIN],
        [task(f"10.0.{16 + i // 250}.{2 + i % 250}", f"plain.{i}.x", service="plain-id") for i in range(1000)],
    )
)


@pytest.mark.parametrize(("payload", "limit"), [(0, 512), (100, 512), (800, 800), (1232, 1232), (65535, 1232)])
def test_an_answer_by_udp_that_does_not_fit_is_truncated_and_full_of_records(payload: int, limit: int) -> None:
    query = dns.message.make_query("plain", "A", use_edns=0 if payload else -1, payload=payload or 512)
    said = answer(query.to_wire(), "10.0.16.2", MANY)
    assert isinstance(said, bytes)
    assert limit - 16 < len(said) <= limit
    message = dns.message.from_wire(said)
    assert message.flags & dns.flags.TC
    assert (message.edns == 0) == bool(payload)


def test_by_tcp_a_thousand_addresses_come_whole() -> None:
    said = ask(MANY, "plain", "10.0.16.2", stream=True)
    assert not said.flags & dns.flags.TC
    assert len(set(addresses(said))) == 1000


def test_every_one_of_many_addresses_has_its_turn() -> None:
    seen = {one for seed in range(400) for one in addresses(ask(MANY, "plain", "10.0.16.2", seed=seed))}
    assert len(seen) > 990


def test_other_classes_and_operations_are_refused() -> None:
    assert code(ask(NAMES, "web", ME, "A")) == "NOERROR"
    chaos = dns.message.make_query("version.bind", "TXT", "CH")
    said = answer(chaos.to_wire(), ME, NAMES)
    assert isinstance(said, bytes)
    assert code(dns.message.from_wire(said)) == "REFUSED"
    update = bytearray(dns.message.make_query("web", "SOA").to_wire())
    update[2] |= 5 << 3
    said = answer(bytes(update), ME, NAMES)
    assert isinstance(said, bytes)
    assert said[3] & 0xF == 4


def test_a_newer_edns_version_is_told_ours() -> None:
    query = dns.message.make_query("web", "A", use_edns=1)
    said = answer(query.to_wire(), ME, NAMES)
    assert isinstance(said, bytes)
    message = dns.message.from_wire(said)
    assert code(message) == "BADVERS"
    assert message.edns == 0


def test_without_an_answer_from_any_resolver() -> None:
    def failed(name: str, *, resolvers: bool) -> str:
        return code(dns.message.from_wire(failure(dns.message.make_query(name, "A").to_wire(), resolvers=resolvers)))

    assert failed("unknown", resolvers=False) == "NXDOMAIN"
    assert failed("unknown", resolvers=True) == "SERVFAIL"
    assert failed("example.com", resolvers=False) == "SERVFAIL"

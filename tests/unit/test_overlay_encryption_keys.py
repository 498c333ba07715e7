"""Keys and numbers of encrypted networks: what two hosts work out by themselves fits, and nothing is used twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.network.overlay.decisions import Site
from agent.network.overlay.encryption import Association, associations
from agent.network.overlay.interface import ENCRYPTED_MTU, OverlayWanted
from agent.rpc.messages import NetworkKey, NetworkKeys

KEYS = NetworkKeys([NetworkKey(number, bytes([number]) * 16) for number in (4, 5, 6)], 5)
HOSTS = st.sets(st.integers(1, 250).map(lambda number: f"10.99.0.{number}"), min_size=2, max_size=6)


def test_what_one_sends_with_the_other_receives_with_whatever_key_each_of_them_prefers() -> None:
    one = associations("10.99.0.1", ["10.99.0.2"], KEYS)
    for sending in (4, 5, 6):
        two = associations("10.99.0.2", ["10.99.0.1"], NetworkKeys(KEYS.keys, sending))
        (sent,) = [known for known in two if known.source == "10.99.0.2"]
        assert sent in one
    assert len([known for known in one if known.target == "10.99.0.1"]) == 3
    assert len([known for known in one if known.source == "10.99.0.1"]) == 1


@given(HOSTS)
def test_no_key_serves_two_senders_or_two_ways(hosts: set[str]) -> None:
    every = [known for host in hosts for known in associations(host, hosts - {host}, KEYS)]
    keys: dict[bytes, tuple[str, str]] = {}
    for known in every:
        assert len(known.key) == 36
        assert known.spi > 255
        assert keys.setdefault(known.key, (known.source, known.target)) == (known.source, known.target)


def test_nothing_is_sent_with_a_generation_that_is_not_known() -> None:
    known = associations("10.99.0.1", ["10.99.0.2"], NetworkKeys(KEYS.keys, 9))
    assert {one.source for one in known} == {"10.99.0.2"}


def test_no_key_is_shown() -> None:
    shown = repr(Association("10.99.0.1", "10.99.0.2", 300, b"secret"))
    assert "secret" not in shown
    assert "300" in shown or "0x12c" in shown


def test_an_encrypted_network_has_a_port_of_its_own_and_smaller_packets() -> None:
    plain, secret = (OverlayWanted("n", 4097, (), encrypted=encrypted) for encrypted in (False, True))
    site = Site("10.99.0.1", 4789)
    assert site.port_of(plain) != site.port_of(secret)
    assert (plain.link_mtu, secret.link_mtu) == (1450, ENCRYPTED_MTU)
    assert OverlayWanted("n", 4097, (), mtu=1300, encrypted=True).link_mtu == 1300

"""Which tier a machine gets, and what a person is told."""

import pytest

from swarmtui.playground.tier import Capabilities, Tier, TierUnavailable, choose

EVERYTHING = Capabilities("", "", "")


def test_the_richest_tier_that_the_machine_allows_is_chosen() -> None:
    assert choose("auto", EVERYTHING).tier is Tier.ENGINE
    assert choose("auto", Capabilities("", "", "no engine installed")).tier is Tier.NAMESPACES
    assert choose("auto", Capabilities("", "no control groups are mounted", "")).tier is Tier.NAMESPACES
    assert choose("auto", Capabilities("not root", "", "")).tier is Tier.LOOPBACK


def test_the_reason_names_what_is_missing() -> None:
    assert "dockerd is missing" in choose("auto", Capabilities("", "", "dockerd is missing")).reason
    assert "not root" in choose("auto", Capabilities("not root", "", "")).reason


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tier_that_is_asked_for_is_given_where_it_can_be(tier: Tier) -> None:
    assert choose(tier, EVERYTHING).tier is tier


def test_a_tier_that_cannot_be_had_is_refused_with_the_reason() -> None:
    with pytest.raises(TierUnavailable, match="tier engine cannot be had on this machine: not root"):
        choose("engine", Capabilities("not root", "", "no engine"))
    with pytest.raises(TierUnavailable, match="not writable"):
        choose("engine", Capabilities("", "/sys/fs/cgroup is not writable", ""))


@pytest.mark.parametrize("tier", ["namespaces", "loopback"])
def test_groups_are_used_wherever_they_can_be_made(tier: str) -> None:
    assert choose(tier, EVERYTHING).grouped
    assert not choose(tier, Capabilities("", "not writable", "")).grouped

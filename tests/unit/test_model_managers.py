"""Majorities, groups, and telling an election from a quorum that is lost."""

import msgspec
import pytest
from client_fake_engine import make_node
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.managers import read_managers
from swarmtui.docker_api.types import Node
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.managers import (
    ELECTION_SECONDS,
    GroupHistory,
    ManagerGroup,
    MemberRow,
    group_of_nodes,
    majority,
    survived,
)
from swarmtui.model.pulse import Pulse, by_state
from swarmtui.model.query import Table
from swarmtui.model.row_making import node_row
from swarmtui.model.tables import Upsert
from swarmtui.operations.base import OperationFailed
from swarmtui.operations.tolerance import Managers, managers_of, refuse_lost_quorum, tolerance_changes, tolerance_lines

SECOND = 10**9


def answer(*reachable: bool, leader: str = "n1", quorum: bool = True, stale: bool = False) -> object:
    members = [
        {"id": f"n{n}", "hostname": f"node{n}", "address": f"10.0.0.{n}:2377", "role": "follower", "voter": True,
         "reachable": up, "match": 10 * n, "lag": 5}
        for n, up in enumerate(reachable, 1)
    ]  # fmt: skip
    missing = [f"n{n}" for n, up in enumerate(reachable, 1) if not up]
    return read_managers(
        {"term": 2, "leader": leader, "quorum": quorum, "stale": stale, "missing": missing, "members": members}
    )


class Watching:
    """A history asked at moments that a test names."""

    def __init__(self) -> None:
        self.history = GroupHistory()

    def at(self, seconds: float, said: object) -> ManagerGroup:
        return self.history.take(said, {}, int(seconds * SECOND), seconds)  # type: ignore[arg-type]


@given(st.integers(1, 9), st.integers(0, 9))
def test_a_majority_survives_exactly_so_many(voters: int, failed: int) -> None:
    assert (voters - failed >= majority(voters)) == (failed <= survived(voters))
    assert 2 * majority(voters) > voters


def test_an_election_is_no_loss() -> None:
    watching = Watching()
    assert watching.at(0, answer(True, True, True)).leader == "node1"
    # The leader is gone; who is asked hears nobody, and knows only that.
    during = watching.at(1, answer(False, True, False, leader="", quorum=False, stale=True))
    assert (during.quorum, during.leader, during.stale) == (True, "", False)
    assert [member.reachable for member in during.members] == [True, True, True]
    after = watching.at(2, answer(False, True, True, leader="n2"))
    assert (after.quorum, after.leader) == (True, "node2")
    assert [(member.hostname, member.since // SECOND) for member in after.missing] == [("node1", 1)]


def test_a_loss_is_told_when_no_election_takes_so_long() -> None:
    watching = Watching()
    watching.at(0, answer(True, True, True))
    gone = answer(False, True, False, leader="", quorum=False, stale=True)
    assert watching.at(1, gone).quorum
    assert watching.at(1 + ELECTION_SECONDS - 0.1, gone).quorum
    lost = watching.at(1 + ELECTION_SECONDS, gone)
    assert (lost.quorum, lost.stale, lost.needed, lost.spare) == (False, True, 1, 0)
    assert [(member.hostname, member.since // SECOND) for member in lost.missing] == [("node1", 1), ("node3", 1)]
    back = watching.at(9, answer(False, True, True, leader="n3"))
    assert (back.quorum, back.stale, back.leader) == (True, False, "node3")
    assert watching.at(10, gone).quorum, "and the next election has its time again"


def test_a_position_that_nobody_knows_is_not_zero() -> None:
    said = answer(True, False)
    members = [msgspec.structs.replace(member, index=0) for member in said.members]  # type: ignore[attr-defined]
    group = Watching().at(0, msgspec.structs.replace(said, members=members))
    assert [(member.index, member.lag) for member in group.members] == [(0, 5), (-1, -1)]


def node(number: int, **more: object) -> Node:
    return msgspec.convert(make_node(f"n{number}", f"node{number}", **more), Node)


def test_a_docker_swarm_says_who_there_is() -> None:
    nodes = [node(1, role="manager", leader=True), node(2, role="manager"), node(3)]
    group = group_of_nodes(nodes)
    assert group is not None
    assert (group.leader, len(group.voters), group.index, group.term) == ("node1", 2, -1, 0)
    lost = group_of_nodes(nodes, quorum=False)
    assert lost is not None
    assert (lost.leader, lost.needed) == ("", 1)
    assert group_of_nodes([node(3)]) is None


def test_the_groups_own_word_goes_before_what_was_written_down() -> None:
    member = MemberRow("n1", "node1", "10.0.0.1:2377", "follower", True, False, 7, 3, 1)
    row = node_row(node(1, role="manager", leader=True), (), member)
    assert (row.leader, row.reachability, row.state, row.log_index, row.log_lag) == (
        False,
        "unreachable",
        "unreachable",
        7,
        3,
    )
    assert node_row(node(1, role="manager", leader=True), ()).leader


def test_nodes_that_a_new_leader_has_yet_to_hear_are_still_there() -> None:
    model = ClusterModel(None)

    def states(*found: str) -> int:
        model.apply([Upsert(Table.NODES, node(n, state=state)) for n, state in enumerate(found, 1)])
        model.flush()
        return model.summary.nodes_ready

    assert states("ready", "ready", "down") == 2
    assert states("unknown", "unknown", "unknown") == 2
    assert states("ready", "down", "unknown") == 1
    assert states("ready", "unknown", "ready") == 2


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((1, 1), (2, 2), ["no more failures than 1 do"]),
        ((2, 2), (3, 3), []),
        ((3, 3), (4, 4), ["an odd number is better"]),
        ((3, 3), (2, 2), ["0 instead of 1; if any manager is lost", "an odd number"]),
        ((5, 5), (4, 4), ["1 instead of 2", "an odd number"]),
        ((3, 2), (2, 1), ["2 of 2 managers must answer and 1 would", "an odd number"]),
        ((3, 3), (3, 2), ["only 2 of 3 managers answer"]),
        ((1, 1), (0, 0), ["the last manager"]),
    ],
)
def test_what_a_change_of_managers_costs(before: tuple[int, int], after: tuple[int, int], words: list[str]) -> None:
    lines = tolerance_lines(Managers(*before), Managers(*after))
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))
    assert all(line.startswith("warning: ") for line in lines)
    managers, failures = tolerance_changes(Managers(*before), Managers(*after))
    assert (managers.old, managers.new) == (str(before[0]), str(after[0]))
    assert (failures.old, failures.new) == (str(survived(before[0])), str(survived(after[0])))


def test_the_last_manager_stays() -> None:
    nodes = [node(1, role="manager"), node(2)]
    before, after = managers_of(nodes), managers_of(nodes, without="n1")
    assert before == Managers(1, 1)
    with pytest.raises(OperationFailed, match="node1 is the last manager"):
        refuse_lost_quorum(before, after, "node1")


def test_the_pulse_counts_what_is_decided_a_second() -> None:
    model, pulse, watching = ClusterModel(None), Pulse(), Watching()
    model.set_group(watching.at(0, answer(True, True)))
    model.flush()
    assert pulse.take(model.summary, [], 100.0).commits == 0.0
    later = msgspec.structs.replace(answer(True, True), members=[  # type: ignore[type-var]
        msgspec.structs.replace(member, index=120) for member in answer(True, True).members  # type: ignore[attr-defined]
    ])  # fmt: skip
    model.set_group(watching.at(2, later))
    model.flush()
    assert pulse.take(model.summary, [], 102.0).commits == 50.0
    assert [sample.commits for sample in pulse.samples] == [0.0, 50.0]
    assert by_state([]) == []

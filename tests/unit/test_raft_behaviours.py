"""What a Raft group must be known to do, each behaviour beside the tests that show it. One without a test fails here."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

ELECTIONS = "unit/test_raft_core_elections.py"
REPLICATION = "unit/test_raft_core_replication.py"
READS = "unit/test_raft_core_reads.py"
MEMBERSHIP = "unit/test_raft_core_membership.py"
SNAPSHOTS = "unit/test_raft_core_snapshots.py"
TRANSFER = "unit/test_raft_core_transfer.py"
STORAGE = "unit/test_raft_core_storage.py"
LOG = "unit/test_raft_log.py"
DAMAGE = "unit/test_raft_core_damage.py"
RAFTOS = "simulation/raft/test_sim_raftos_defects.py"
FAILOVER = "integration/test_managers_failover.py"
RESTART = "integration/test_managers_restart.py"
QUORUM = "integration/test_managers_quorum.py"
CUT = "integration/test_managers_cut.py"
SECRETS = "integration/test_managers_secrets.py"
ROUNDS = "integration/test_managers_rounds.py"
STORIES = "simulation/raft/test_sim_raft.py"
PLANTED = "simulation/raft/test_sim_raft_planted.py"
HISTORIES = "simulation/raft/test_raft_linearizability.py"

BEHAVIOURS: dict[str, dict[str, tuple[str, ...]]] = {
    ELECTIONS: {
        "duelling candidates": ("test_duelling_candidates_end_with_one_leader",),
        "a candidate concedes": ("test_a_candidate_concedes_to_the_leader_of_its_term",),
        "a single node": ("test_a_single_member_leads_itself_once_its_own_vote_is_durable",),
        "old messages": (
            "test_old_messages_change_nothing",
            "test_consent_to_an_earlier_term_is_not_consent_to_this_one",
            "test_a_vote_of_an_earlier_term_does_not_count",
        ),
        "a disruptive follower": (
            "test_a_member_that_comes_back_from_a_partition_does_not_disrupt",
            "test_who_hears_a_leader_ignores_requests_for_votes",
        ),
        "a split vote": ("test_a_split_vote_is_resolved_in_a_later_term",),
        "a stuck candidate is freed": ("test_a_candidate_stuck_in_a_later_term_is_freed",),
        "a leader steps down without a quorum": ("test_a_leader_steps_down_without_a_quorum",),
        "one vote a term": (
            "test_each_member_votes_for_one_candidate_a_term",
            "test_a_vote_outlives_a_restart",
            "test_a_vote_that_comes_twice_counts_once",
        ),
    },
    REPLICATION: {
        "fast rejection by conflict term": ("test_a_conflict_is_found_one_term_at_a_time",),
        "reordered progress": (
            "test_acknowledgements_may_come_in_any_order",
            "test_an_old_rejection_does_not_set_a_follower_back",
            "test_an_old_append_does_not_truncate_the_log",
        ),
        "paused progress": (
            "test_an_unreachable_follower_is_probed_with_one_append",
            "test_lost_appends_are_sent_again_after_a_sign_of_life",
        ),
        "flow control": (
            "test_appends_are_bounded_in_bytes",
            "test_what_is_on_the_way_is_bounded_and_acknowledgements_make_room",
            "test_bytes_on_the_way_are_bounded",
        ),
        "a bounded uncommitted log": (
            "test_what_waits_for_a_quorum_is_bounded",
            "test_a_new_leader_counts_what_it_inherited_as_uncommitted",
        ),
    },
    READS: {
        "read index on a new leader": ("test_a_new_leader_answers_reads_only_after_it_has_committed_an_entry",),
        "read index on an old leader": ("test_an_old_leader_answers_no_reads",),
        "duplicate reads": (
            "test_a_request_that_comes_twice_is_answered_twice",
            "test_an_answer_that_is_older_than_the_read_does_not_confirm_it",
        ),
        "reads with learners": ("test_learners_do_not_confirm_reads",),
    },
    MEMBERSHIP: {
        "add": ("test_a_member_joins_as_a_learner_catches_up_and_becomes_a_voter",),
        "add twice": ("test_changes_that_do_not_apply_are_refused_in_words",),
        "remove": ("test_a_removed_follower_is_not_counted_and_hears_nothing_more",),
        "remove the leader": ("test_a_removed_leader_leads_until_its_removal_is_committed_and_is_not_counted",),
        "learner promotion": (
            "test_a_learner_that_lacks_much_is_not_promoted",
            "test_a_learner_that_was_promoted_without_knowing_it_votes_when_asked",
        ),
        "a removed member that comes back": ("test_a_removed_member_that_comes_back_does_not_disrupt",),
        "commit after removal": ("test_entries_that_wait_are_committed_by_a_removal",),
        "one change at a time": (
            "test_a_change_is_refused_until_the_one_before_it_is_committed",
            "test_a_change_is_refused_until_an_entry_of_the_own_term_is_committed",
        ),
        "a forced new group": ("test_the_last_one_left_begins_a_new_group_and_keeps_all_it_has",),
    },
    SNAPSHOTS: {
        "a slow follower after compaction": (
            "test_a_slow_follower_gets_a_snapshot_and_then_the_log",
            "test_entries_that_were_kept_spare_a_slow_follower_the_snapshot",
        ),
        "sending pauses replication": ("test_while_a_snapshot_is_on_its_way_nothing_else_is_sent",),
        "failure": ("test_a_snapshot_that_failed_is_tried_again",),
        "abort": ("test_a_stream_is_given_up_when_the_follower_has_caught_up_otherwise",),
        "restore of a voter and of a learner": (
            "test_a_slow_follower_gets_a_snapshot_and_then_the_log",
            "test_a_learner_that_was_added_after_the_snapshot_is_served_all_the_same",
            "test_a_snapshot_replaces_a_log_that_differs",
        ),
    },
    TRANSFER: {
        "to an up-to-date member": ("test_to_a_member_that_has_everything_it_takes_no_tick",),
        "to a slow member": ("test_to_a_slow_member_waits_until_it_has_everything",),
        "to a missing member": ("test_to_a_missing_member_or_a_learner_is_refused",),
        "to itself": ("test_to_itself_nothing_happens",),
        "time-out, ignored proposals": (
            "test_proposals_are_refused_meanwhile_and_it_is_given_up_after_an_elections_time",
        ),
        "second transfer": ("test_a_second_transfer_takes_the_place_of_the_first",),
    },
    STORIES: {
        "seeded schedules; the invariants after every step": ("test_nothing_acknowledged_is_lost_and_everyone_agrees",),
        "a failing seed replays": ("test_a_seed_is_always_the_same_story",),
    },
    HISTORIES: {
        "linearizability, unknown outcomes included": ("test_what_could_have_happened", "test_what_could_not"),
    },
    PLANTED: {
        "planted bugs": (
            "test_every_bug_of_the_list_is_planted",
            "test_a_planted_bug_is_found",
            "test_an_old_entry_that_counts_as_committed_is_found",
        ),
        "a failing seed is printed": ("test_a_failure_says_how_to_replay_it",),
    },
    LOG: {
        "cut at every byte": ("test_cut_at_every_byte_keeps_whole_batches_only",),
        "a bit flipped in every byte": ("test_bit_flipped_in_every_byte_is_never_wrong_data_and_never_silent",),
    },
    FAILOVER: {
        "bootstrap": ("test_docker_shows_three_managers_and_one_leader",),
        "leader down": ("test_a_service_is_created_through_another_manager",),
        "follower down": ("test_a_manager_that_follows_may_die_unnoticed",),
        "a leader that stops in order": ("test_a_leader_that_is_stopped_in_order_hands_over",),
        "invisible but for one retry": ("test_a_loop_of_docker_service_ls_needs_one_retry_at_most",),
    },
    RESTART: {
        "restart of all at once": ("test_all_are_restarted_at_once",),
        "restart of all, staggered": ("test_they_are_restarted_one_after_the_other_under_a_writer",),
        "wiped state": ("test_one_that_lost_its_state_is_no_member_and_joins_again_as_another",),
        "leave and rejoin": ("test_one_leaves_and_comes_again",),
        "join twice": ("test_one_joins_while_the_leader_dies_and_none_joins_twice",),
    },
    QUORUM: {
        "quorum lost and recovered": ("test_reads_go_on_writes_name_who_is_missing_and_tasks_are_restarted",),
        "forced new cluster": ("test_a_forced_new_cluster_keeps_everything_and_takes_the_others_again",),
        "a wedged manager": ("test_a_wedged_manager_is_left_behind_and_catches_up",),
        "wrong address": ("test_at_a_wrong_address_nobody_is_taken_for_another",),
    },
    CUT: {
        "cut links": (
            "test_the_leaders_cable_is_pulled",
            "test_leader_and_a_follower_are_cut_from_the_rest_at_the_same_time",
            "test_tasks_of_a_worker_that_is_cut_off_run_elsewhere_and_once",
        ),
    },
    SECRETS: {
        "key rotation under load": (
            "test_the_unlock_key_is_rotated_under_load_and_a_restarted_manager_waits_for_the_newest",
        ),
        "a log that nobody can read": ("test_what_is_written_is_on_no_disk_to_be_read",),
        "a removed manager's certificate": ("test_a_removed_managers_certificate_opens_nothing",),
    },
    ROUNDS: {"nothing acknowledged is lost": ("test_nothing_acknowledged_is_lost_and_no_slot_is_wanted_twice",)},
    STORAGE: {
        "a member's log, cut and flipped in every byte": (
            "test_cut_anywhere_it_is_an_earlier_state_and_flipped_anywhere_it_is_refused",
        ),
    },
    DAMAGE: {
        "a snapshot, cut and flipped in every byte": (
            "test_a_snapshot_cut_or_flipped_anywhere_is_refused_and_left_as_it_is",
        ),
        "every segment, cut and flipped in every byte": (
            "test_a_segment_that_others_follow_is_refused_when_it_was_cut_or_flipped_anywhere",
        ),
        "a log that takes every byte": ("test_every_byte_may_be_in_an_entry_and_every_number_may_be_its_term",),
    },
    RAFTOS: {"raftos' own defects": ("test_a_group_with_this_defect_loses",)},
}
"""By the file that holds the tests: the behaviour, and the tests that fail without it."""


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file."""
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize(
    ("path", "behaviour"), [(path, behaviour) for path, behaviours in BEHAVIOURS.items() for behaviour in behaviours]
)
def test_a_behaviour_has_its_tests(path: str, behaviour: str) -> None:
    names = BEHAVIOURS[path][behaviour]
    assert names
    missing = set(names) - names_in(path)
    assert not missing, f"{behaviour}: {path} has no {', '.join(sorted(missing))}"

"""The one table of routes: every request goes where the table says, with and without a version, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.routes import OWN_GROUPS, ROUTES, By, RouteKind, find_route

CASES = [
    ("GET", "/services", RouteKind.OWN, {}),
    ("GET", "/v1.41/services/web", RouteKind.OWN, {"id": "web"}),
    ("GET", "/v9.99/tasks/abc/logs", RouteKind.OWN, {"id": "abc"}),
    ("POST", "/v1.24/services/create", RouteKind.OWN, {}),
    ("POST", "/services/x/update", RouteKind.OWN, {"id": "x"}),
    ("HEAD", "/_ping", RouteKind.MERGED, {}),
    ("GET", "/v1.41/info", RouteKind.MERGED, {}),
    ("GET", "/networks/a/b", RouteKind.MERGED, {"id": "a/b"}),
    ("GET", "/containers/json", RouteKind.PROCESS, {}),
    ("GET", "/containers/x/json", RouteKind.PROCESS, {"id": "x"}),
    ("GET", "/images/swarmtui/whoami:latest/json", RouteKind.PROCESS, {"name": "swarmtui/whoami:latest"}),
    ("POST", "/containers/create", RouteKind.MERGED, {}),
    ("POST", "/v1.41/build", RouteKind.PASSED, {}),
    ("POST", "/networks/prune", RouteKind.MERGED, {}),
    ("GET", "/system/df", RouteKind.PASSED, {}),
]


@pytest.mark.parametrize(("method", "path", "kind", "params"), CASES)
def test_where_a_request_goes(method: str, path: str, kind: RouteKind, params: dict[str, str]) -> None:
    match = find_route(method, path)
    assert (match.kind, dict(match.params)) == (kind, params)


@pytest.mark.parametrize("path", ["/services/a/b/c", "/swarm/nosuch", "/v1.41/nodes/", "/swarmtui/v1", "/secrets/a/b"])
def test_what_is_ours_and_unknown_is_never_passed_to_an_engine(path: str) -> None:
    match = find_route("GET", path)
    assert (match.kind, match.route) == (RouteKind.OWN, None)


def test_no_row_is_there_twice() -> None:
    rows = [(route.method, route.pattern) for route in ROUTES]
    assert len(rows) == len(set(rows))


def test_rows_of_one_shape_name_the_fixed_path_first() -> None:
    """`/networks/create` would else be the network "create"."""
    for index, route in enumerate(ROUTES):
        example = route.pattern.replace("{id*}", "x").replace("{name*}", "x").replace("{id}", "x")
        assert find_route(route.method, example).route is route, (index, route.pattern)


def test_own_rows_are_of_own_groups() -> None:
    for route in ROUTES:
        own = any(route.pattern == group or route.pattern.startswith(group + "/") for group in OWN_GROUPS)
        assert own == (route.kind is RouteKind.OWN), route.pattern


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "BREW"]))
def test_any_path_goes_somewhere(path: str, method: str) -> None:
    match = find_route(method, "/" + path)
    assert match.kind in RouteKind


ANSWERED_HERE = {
    # What is about this node alone.
    ("POST", "/swarm/init"),
    ("POST", "/swarm/join"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/unlock"),
    ("POST", "/swarmtui/v1/restore"),
}


def test_every_write_of_the_cluster_goes_to_the_leader() -> None:
    for route in ROUTES:
        if route.kind is RouteKind.OWN and route.method != "GET":
            here = (route.method, route.pattern) in ANSWERED_HERE
            assert route.by is (By.HERE if here else By.LEADER), route.pattern


def test_reads_are_answered_where_they_are_asked_unless_only_the_leader_knows() -> None:
    asked_of_the_leader = {route.pattern for route in ROUTES if route.method == "GET" and route.by is By.LEADER}
    assert asked_of_the_leader == {
        "/swarm/unlockkey",
        "/services/{id}/logs",
        "/tasks/{id}/logs",
        "/swarmtui/v1/explain/task/{id}",
        "/swarmtui/v1/explain/service/{id}",
        "/swarmtui/v1/explain/network/{id}",
    }
    both = {(route.method, route.pattern) for route in ROUTES if route.by is By.BOTH}
    assert both == {
        ("GET", "/swarmtui/v1/managers"),
        ("POST", "/networks/create"),
        ("POST", "/networks/prune"),
        ("POST", "/networks/{id*}/connect"),
        ("POST", "/networks/{id*}/disconnect"),
        ("POST", "/containers/create"),
        ("DELETE", "/networks/{id*}"),
    }


def test_what_makes_or_removes_an_object_says_which() -> None:
    """Without it a repeat could not be told from a second request."""
    for route in ROUTES:
        if route.by is By.LEADER:
            named = route.method == "DELETE" or route.pattern.endswith("/create")
            assert (route.object_of is not None) == named, route.pattern

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_objects import a_node

from agent.api_types.errors import Unknown
from agent.api_types.node import NodeRole
from agent.api_types.task import Placement
from agent.manager.constraints import fits_all, parse_constraints, placement_fits

NODE = a_node(
    "n1",
    labels={"Zone": "EU-1", "empty": ""},
    engine_labels={"disk": "ssd"},
    address="10.1.2.3",
    platform=("linux", "x86_64"),
    role=NodeRole.MANAGER,
)


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("node.id == n1", True),
        ("node.id==N1", True),
        ("node.id != n1", False),
        ("node.hostname == HOST-n1", True),
        ("node.role == manager", True),
        ("node.role != manager", False),
        ("NODE.ROLE == manager", True),
        ("node.platform.os == Linux", True),
        ("node.platform.arch == amd64", True),
        ("node.platform.arch == x86_64", True),
        ("node.platform.arch == arm64", False),
        ("node.labels.Zone == eu-1", True),
        ("node.labels.zone == eu-1", False),
        ("node.labels.zone != eu-1", True),
        ("node.labels.missing == x", False),
        ("node.labels.missing != x", True),
        ("engine.labels.disk == SSD", True),
        ("node.ip == 10.1.2.3", True),
        ("node.ip == 10.1.0.0/16", True),
        ("node.ip != 10.1.0.0/16", False),
        ("node.ip == 10.2.0.0/16", False),
        ("node.ip != 10.2.0.0/16", True),
        ("node.ip == nonsense", False),
        ("node.ip != nonsense", False),
        ("node.shape == round", False),
        ("node.shape != round", False),
        ("node.labels. == x", False),
    ],
)
def test_a_constraint_fits_or_does_not(expression: str, fits: bool) -> None:
    assert fits_all(parse_constraints([expression]), NODE) is fits


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("bad", "constraint expected one operator from ==, !="),
        ("node.id=n1", "constraint expected one operator from ==, !="),
        ("no de==x", "key 'no de' is invalid"),
        ("==x", "key '' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a;b", "value 'a;b' is invalid"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_engines_text(expression: str, text: str) -> None:
    with pytest.raises(Unknown) as refused:
        parse_constraints([expression])
    assert str(refused.value) == f"rpc error: code = Unknown desc = {text}"


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        fits_all(parse_constraints([text]), NODE)
    except Unknown:
        assert placement_fits(Placement(constraints=[text]), NODE) is False

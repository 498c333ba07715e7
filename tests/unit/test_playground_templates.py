"""Which instances are managers."""

from swarmtui.playground.session import Options
from swarmtui.playground.templates import DEFAULT_NODES, DEFAULT_TEMPLATE, TEMPLATES, managers_for


def test_the_default_survives_the_loss_of_a_manager() -> None:
    default = TEMPLATES[DEFAULT_TEMPLATE]
    assert (default.managers, default.workers, default.nodes) == (3, 2, DEFAULT_NODES)
    assert managers_for(Options().nodes) == 3


def test_small_ones_have_one_manager_and_no_number_is_even() -> None:
    assert [managers_for(nodes) for nodes in range(1, 8)] == [1, 1, 1, 1, 3, 3, 3]
    assert all(template.managers % 2 for template in TEMPLATES.values())

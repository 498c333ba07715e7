"""What the tests of screens share."""

from collections.abc import Callable

import pytest
from textual.app import App


def screen_lines(app: App[None]) -> list[str]:
    """The screen as it would be on a terminal, a string a line, without colours and the right edge's scroll bar."""
    return [strip.text.rstrip(" ▁▂▃▄▅▆▇█") for strip in app.screen._compositor.render_strips()]


@pytest.fixture
def lines_of() -> Callable[[App[None]], list[str]]:
    """`screen_lines`."""
    return screen_lines

"""What the tests of screens share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input
from ui_fake_cluster import START, FakeClient, FakeCluster, shop

from swarmtui.ui.app import SwarmApp


def screen_lines(app: App[None]) -> list[str]:
    """The screen as it would be on a terminal, a string a line, without colours and the right edge's scroll bar."""
    return [strip.text.rstrip(" ▁▂▃▄▅▆▇█") for strip in app.screen._compositor.render_strips()]


@pytest.fixture
def lines_of() -> Callable[[App[None]], list[str]]:
    """`screen_lines`."""
    return screen_lines


class Console:
    """The console on a cluster in memory, and what a person does with it."""

    def __init__(self, app: SwarmApp, pilot: Pilot[None], cluster: FakeCluster, client: FakeClient) -> None:
        self.app = app
        self.pilot = pilot
        self.cluster = cluster
        self.client = client

    @property
    def text(self) -> str:
        """All that the top screen shows."""
        return "\n".join(screen_lines(self.app))

    @property
    def lines(self) -> list[str]:
        return screen_lines(self.app)

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until `holds`, however long the machine takes."""
        try:
            async with asyncio.timeout(20):
                while not holds():
                    await self.pilot.pause()
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"never happened; the screen shows:\n{self.text}") from None

    async def sees(self, *texts: str) -> None:
        """Waits until the screen shows all of the texts."""
        await self.until(lambda: all(text in self.text for text in texts))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Types letters into whatever has the focus."""
        names = {
            " ": "space",
            ":": "colon",
            "/": "slash",
            "@": "at",
            ".": "full_stop",
            "-": "minus",
            "!": "exclamation_mark",
        }
        await self.pilot.press(*(names.get(letter, letter) for letter in text))

    async def command(self, text: str) -> None:
        """Gives a command at the prompt, pasted rather than typed, and Enter."""
        await self.press("colon")
        await self.until(lambda: isinstance(self.app.focused, Input))
        self.app.screen.query_one(Input).value = text
        await self.press("enter")


@asynccontextmanager
async def console(
    size: tuple[int, int] = (160, 50), cluster: FakeCluster | None = None, **settings: Any
) -> AsyncIterator[Console]:
    """The console, connected and showing services."""
    cluster = cluster if cluster is not None else shop()
    client = FakeClient(cluster)
    settings = {"context": "test", "pause": 0, **settings}
    app = SwarmApp(lambda: client, now=lambda: START + 1.0, clock=lambda: "14:03:27", **settings)
    async with app.run_test(size=size, notifications=True) as pilot:
        there = Console(app, pilot, cluster, client)
        await there.until(lambda: app.main.session is not None and "live" in there.text)
        if cluster.tables["services"] and "playground" not in settings:
            await there.until(lambda: app.main.table is not None and app.main.table.row_count)
            await there.until(lambda: type(app.focused).__name__ == "ResourceTable")
        yield there

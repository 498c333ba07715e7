"""The console's application: theme, screen, connection. Imports only what the first paint needs.

`SwarmApp(connect)` shows a cluster; `connect` is called after the first paint and gives the connection as an async context
manager (an `EngineClient` is one). `SwarmApp(playground=session)` shows a playground and connects to its first manager.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from swarmtui.ui.actions import Action
from swarmtui.ui.deferred import deferred
from swarmtui.ui.glyphs import SETS, UNICODE
from swarmtui.ui.navigation import Place
from swarmtui.ui.ports import Connect, PlaygroundPort
from swarmtui.ui.screens.main import MainScreen
from swarmtui.ui.theme import ThemedApp

if TYPE_CHECKING:
    from textual.app import SystemCommand

    from swarmtui.docker_api.address import EngineAddress
    from swarmtui.docker_api.client import EngineClient
    from swarmtui.model.summary import ClusterSummary


CALM = (2_000, 10, 100)
"""Thresholds of the garbage collector while a cluster is shown: small passes often, full ones seldom."""


def wall_clock() -> str:
    """The time of day, local, to the second."""
    return time.strftime("%H:%M:%S")


class SwarmApp(ThemedApp):
    """The console."""

    TITLE = "swarmtui"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    CSS = """
    ToastRack { align: right bottom; margin-bottom: 1; }
    Toast { background: $panel; color: $foreground; }
    """

    def __init__(
        self,
        connect: Connect | None = None,
        playground: PlaygroundPort | None = None,
        theme: str | None = None,
        *,
        context: str = "",
        glyphs: str = UNICODE.name,
        readonly: bool = False,
        production: bool = False,
        keys: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], str] = wall_clock,
        pause: float = 0.25,
    ) -> None:
        """`keys`: by action id, keys separated by commas, from the configuration. `glyphs`: unicode or ascii.

        `now` gives seconds since 1970 for ages, `clock` the time of day in the header; `pause` seconds must pass between
        showing a change and doing it.
        """
        super().__init__(theme)
        if connect is None and playground is None:
            raise ValueError("nothing to show: neither a connection nor a playground")
        self._connect: Connect = connect if connect is not None else self._playground_connection
        self._playground = playground
        self._keys = dict(keys or {})
        self._mouse = True
        self._connection: asyncio.Task[None] | None = None
        self.main = MainScreen(
            context=context or ("playground" if playground is not None else ""),
            glyphs=SETS[glyphs],
            now=now,
            clock=clock,
            keys_of=self.keys_of,
            playground=playground,
            readonly=readonly,
            production=production,
            pause=pause,
        )
        """The screen below all dialogs."""

    def keys_of(self, action: Action) -> Sequence[str]:
        """The keys of an action, as the configuration has them."""
        if action.id in self._keys:
            return [key.strip() for key in self._keys[action.id].split(",") if key.strip()]
        return action.keys

    def get_default_screen(self) -> Screen[Any]:
        """The console."""
        return self.main

    def on_mount(self) -> None:
        """Connects once the first paint is out."""
        if self._keys:
            self.set_keymap(self._keys)
        self.call_after_refresh(self.reconnect)

    # The connection

    def reconnect(self) -> None:
        """Connects, or while connected tries at once what would be tried later."""
        if self.main.session is not None:
            self.main.session.model.retry_now()
        elif self._connection is None or self._connection.done():
            self.main.banner.say("")
            if self._playground is not None and self.main.trail.here == Place("services"):
                self.main.go(Place("playground"), anew=True)
            self.run_worker(deferred(self._stay_connected), group="connection", exclusive=True)

    async def _stay_connected(self) -> None:
        # Half a second of imports: in a thread, so that keys and clock go on.
        await asyncio.to_thread(_import_rooms)
        from swarmtui.docker_api.errors import EngineError
        from swarmtui.ui.session import ClusterSession

        try:
            async with ClusterSession(self._connect, self.main.header.context) as session:
                self.main.attach(session)
                with _CalmCollector() as collector:
                    session.model.subscribe_summary(collector.see)
                    await session.model.run()
        except EngineError as error:
            self.main.detach(str(error))

    def _playground_connection(self) -> EngineClient:
        from swarmtui.docker_api.address import parse_address
        from swarmtui.docker_api.client import EngineClient

        playground = self._playground
        assert playground is not None

        def addresses() -> list[EngineAddress]:
            # Any of them may be a manager by now; those that began as one are asked first, and those that run.
            likely = sorted(
                playground.instances, key=lambda one: (str(one.state) != "running", str(one.role) != "manager")
            )
            return [parse_address(one.docker_host) for one in likely]

        return EngineClient(addresses()[0], others=addresses)

    # What the toolkit asks for

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: every command of the registry that applies."""
        from textual.app import SystemCommand

        from swarmtui.ui.actions import ACTIONS

        if screen is not self.main:
            return
        for action in ACTIONS:
            if action.names:
                title = " ".join(filter(None, (action.names[0], action.arguments)))
                yield SystemCommand(title, f"{action.scope.value}: {action.help}", self._performer(action))

    def _performer(self, action: Action) -> Callable[[], None]:
        def perform() -> None:
            if action.arguments and not action.arguments.startswith("["):
                self.main.ask(":", f"{action.names[0]} ")
            else:
                self.call_later(self.main.perform, action, [])

        return perform

    def copy_to_clipboard(self, text: str) -> None:
        """To the terminal's clipboard (OSC 52) and, where there is one, the desktop's."""
        super().copy_to_clipboard(text)
        if not self.is_headless:
            self.run_worker(deferred(self._copy_natively, text), group="clipboard", exclusive=True)

    async def _copy_natively(self, text: str) -> None:
        from swarmtui.ui import clipboard

        if (command := clipboard.program()) is not None:
            await clipboard.copy(text, command)

    async def action_quit(self) -> None:
        """Ctrl+Q, on whatever screen: leaves, or asks; where it has been asked already it is the answer."""
        leave: Callable[[], None] = getattr(self.screen, "action_ask_quit", self.main.action_app_exit)
        leave()

    def toggle_mouse(self) -> None:
        """The mouse to the terminal, or back to the console."""
        self._mouse = not self._mouse
        driver = self._driver
        if driver is not None:
            # The driver has no public switch; both methods are there since Textual 0.1.
            name = "_enable_mouse_support" if self._mouse else "_disable_mouse_support"
            if (method := getattr(driver, name, None)) is not None:
                method()
        self.notify("mouse on" if self._mouse else "mouse off: the terminal selects text", timeout=3)


class _CalmCollector:
    """Keeps the garbage collector from stalling the loop.

    A full pass over the rows of 20,000 tasks takes 150 ms. Once the first picture is whole it is set aside (`gc.freeze`): rows
    hold no cycles, so they are freed by reference counts all the same. Full passes over what comes later are made rarer.
    """

    def __init__(self) -> None:
        self._frozen = False
        self._thresholds = gc.get_threshold()

    def __enter__(self) -> _CalmCollector:
        return self

    def __exit__(self, *_: object) -> None:
        if self._frozen:
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)

    def see(self, summary: ClusterSummary) -> None:
        """Acts once, when the first picture is whole."""
        if not self._frozen and str(summary.connection.state) in ("live", "polling") and summary.nodes:
            self._frozen = True
            gc.freeze()
            gc.set_threshold(*CALM)


def _import_rooms() -> None:
    """Everything that the console needs beyond the first paint."""
    import swarmtui.docker_api.client
    import swarmtui.ui.changes
    import swarmtui.ui.inspection
    import swarmtui.ui.log_feed
    import swarmtui.ui.session  # noqa: F401

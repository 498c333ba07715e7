"""What is done with a playground's instances: adding, deleting, power, freezing; and the session's end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from swarmtui.ui.deferred import deferred
from swarmtui.ui.navigation import Place
from swarmtui.ui.ports import InstancePort, PlaygroundPort
from swarmtui.ui.screens.changing import ChangingScreen

EXTENSION_MINUTES = 60
LONGEST_MINUTES = 7 * 24 * 60


class InstancesScreen(ChangingScreen):
    """Every `action_` method belongs to an action of the registry."""

    def action_view_playground(self) -> None:
        """The playground's instances."""
        if self.playground is None:
            self.notify("this is no playground: swarmtui playground starts one", timeout=4)
        else:
            self.go(Place("playground"), anew=True)

    def action_playground_add(self) -> None:
        """Starts one more instance."""
        if self.playground is None:
            self.action_view_playground()
            return
        self.notify("starting an instance ...", timeout=3)
        self.run_worker(deferred(self._add_instance), group="playground")

    async def _add_instance(self) -> None:
        from swarmtui.ui.screens.instance import playground_call

        assert self.playground is not None
        problem = await playground_call(self.playground.add())
        if problem:
            self.notify(problem, severity="error", timeout=10)
        elif self._playground_view is not None:
            self._playground_view.update_rows()

    def action_playground_delete(self, name: str = "") -> None:
        """Deletes an instance; its name is typed first."""
        if self.playground is None or self._playground_view is None:
            self.action_view_playground()
            return
        wanted = name or self._playground_view.table.cursor_id
        if wanted is None or wanted not in {one.name for one in self.playground.instances}:
            self.notify(f"there is no instance {wanted!r}", severity="warning", timeout=3)
            return
        from swarmtui.ui.screens.instance import DeleteInstance

        self.app.push_screen(DeleteInstance(self.playground, wanted))

    def action_playground_copy_host(self) -> None:
        """Copies the DOCKER_HOST of the instance."""
        if self._playground_view is not None and (row := self._playground_view.table.cursor_row) is not None:
            self.app.copy_to_clipboard(row.docker_host)
            self.notify("copied DOCKER_HOST", timeout=2)

    def action_playground_power(self, name: str = "") -> None:
        """Cuts an instance's power, or switches it on again."""
        instance = self._instance(name)
        if instance is None or self.playground is None:
            return
        if str(instance.state) in ("stopped", "without agent"):
            self._call(f"{instance.name} is switched on ...", self.playground.start(instance.name))
            return
        self._ask_first(
            f"cut the power of {instance.name}",
            [
                f"everything that runs in {instance.name} ends at once, as in a machine whose power fails",
                *self._loss_of(instance),
                "its files stay: the same key switches it on again",
            ],
            lambda session, name: self._call(f"{name} loses its power", session.cut_power(name)),
            instance.name,
        )

    def action_playground_freeze(self, name: str = "") -> None:
        """Freezes an instance, or thaws it."""
        instance = self._instance(name)
        if instance is None or self.playground is None:
            return
        if str(instance.state) == "frozen":
            self._call(f"{instance.name} thaws", self.playground.thaw(instance.name))
            return
        self._ask_first(
            f"freeze {instance.name}",
            [
                f"every process in {instance.name} stands still, as in a machine that hangs: nothing answers any more",
                *self._loss_of(instance),
                "the same key thaws it",
            ],
            lambda session, name: self._call(f"{name} freezes", session.freeze(name)),
            instance.name,
        )

    def action_playground_extend(self, minutes: str = "") -> None:
        """Moves the session's end."""
        if self.playground is None:
            self.action_view_playground()
            return
        if minutes and not (minutes.isascii() and minutes.isdigit() and 0 < int(minutes) <= LONGEST_MINUTES):
            self.notify(
                f"{minutes!r} is no number of minutes from 1 to {LONGEST_MINUTES}", severity="warning", timeout=3
            )
            return
        by = timedelta(minutes=int(minutes or EXTENSION_MINUTES))
        until = self.playground.expires_at + by
        self._ask_first(
            f"extend the session by {by.total_seconds() / 60:.0f} minutes",
            [f"it ends at {until.astimezone():%H:%M:%S} instead of {self.playground.expires_at.astimezone():%H:%M:%S}"],
            lambda session, name: session.extend(by),
            "",
        )

    def _instance(self, name: str) -> InstancePort | None:
        if self.playground is None or self._playground_view is None:
            self.action_view_playground()
            return None
        wanted = name or self._playground_view.table.cursor_id
        found = next((one for one in self.playground.instances if one.name == wanted), None)
        if found is None:
            self.notify(f"there is no instance {wanted!r}", severity="warning", timeout=3)
        return found

    def _loss_of(self, instance: InstancePort) -> list[str]:
        """What the cluster loses with an instance."""
        group = self.header.summary.group if self.header.summary is not None else None
        member = next((each for each in group.voters if each.hostname == instance.name), None) if group else None
        if group is None or member is None:
            return ["its tasks are started on other nodes"]
        lines = [f"{instance.name} leads: another manager takes over"] if member.role == "leader" else []
        if not group.quorum or not member.reachable:
            return lines
        if group.spare == 0:
            lines.append("warning: too few managers are left then: nothing can be changed until it is back")
        else:
            left = len(group.voters) - len(group.missing) - 1
            lines.append(f"{left} of {len(group.voters)} managers are left, {group.spare - 1} more may fail")
        return lines

    def _ask_first(self, title: str, lines: list[str], do: Callable[[PlaygroundPort, str], None], name: str) -> None:
        from swarmtui.ui.screens.question import Question

        session = self.playground
        assert session is not None

        def answered(answer: bool | None) -> None:
            if answer:
                do(session, name)

        self.app.push_screen(Question(title, lines), answered)

    def _call(self, text: str, call: Awaitable[object]) -> None:
        self.notify(text, timeout=3)
        # Not in a group: two instances may be switched on side by side.
        self.run_worker(deferred(self._called, call), group="power")

    async def _called(self, call: Awaitable[object]) -> None:
        from swarmtui.ui.screens.instance import playground_call

        problem = await playground_call(call)
        if problem:
            self.notify(problem, severity="error", timeout=10)
        elif self._playground_view is not None:
            self._playground_view.update_rows()

"""Changes of one service that is there: scale, restart, new image, any edit, roll back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.errors import EngineError
from swarmtui.model.row_making import counts, moment
from swarmtui.operations.base import Danger, Operation, OperationFailed, Phase, Progress, Report
from swarmtui.operations.client import OperationClient
from swarmtui.operations.spec_changes import Path, child, path_words, value_at, value_words
from swarmtui.operations.spec_edit import Found, SpecEdit, restore
from swarmtui.operations.waiting import Timing, wait_for_service

Written = Sequence[tuple[Path, Any, Any]]

_REPLICAS: Path = ("Mode", "Replicated", "Replicas")
_COMPLETIONS: Path = ("Mode", "ReplicatedJob", "TotalCompletions")
_IMAGE: Path = ("TaskTemplate", "ContainerSpec", "Image")


def tagged(image: str) -> str:
    """A reference with its tag: without tag and digest it means `latest`, and the API must be told so."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def found_service(raw: Json) -> Found:
    """A service's JSON as it was read; OperationFailed when it lacks what an update needs."""
    try:
        return Found(raw["ID"], raw["Spec"]["Name"], int(raw["Version"]["Index"]), raw["Spec"], raw)
    except (KeyError, TypeError, ValueError) as error:
        raise OperationFailed(f"the engine's answer is no service: {error!r} is missing or wrong") from None


class ServiceEdit(SpecEdit):
    """Base of the edits of a service; also the generic one, with an `edit` of its own."""

    def __init__(
        self,
        client: OperationClient,
        service: str,
        edit: Callable[[Json], None] | None = None,
        *,
        title: str = "",
        timing: Timing | None = None,
    ) -> None:
        """`service`: id or name; `edit` changes the specification's JSON in place; `title` without the name."""
        super().__init__(client, service, timing)
        self._apply = edit
        self._verb = title

    async def _read(self) -> Found:
        return found_service(await self._client.raw_service(self._target))

    async def _write(self, found: Found, spec: Json) -> None:
        await self._client.update_service(found.id, found.version, spec)

    def _edit(self, spec: Json) -> None:
        if self._apply is not None:
            self._apply(spec)

    def _title(self, name: str, changes: Written) -> str:
        if self._verb:
            return f"{self._verb} {name}"
        words = ", ".join(path_words(path) for path, _, _ in changes[:3])
        return f"update {name}" + (f" ({words})" if words else "")

    async def _lines(self, found: Found) -> tuple[str, ...]:
        changes = self._changes(found)
        if not any(path[0] == "TaskTemplate" for path, _, _ in changes):
            return ()
        return await self._replacement_lines(found)

    async def _replacement_lines(self, found: Found) -> tuple[str, ...]:
        tasks = [task for task in await self._client.tasks({"service": [found.id]}) if counts(task)]
        config = found.spec.get("UpdateConfig") or {}
        parallelism = config.get("Parallelism", 1)
        pace = "all at once" if parallelism == 0 else f"{parallelism} at a time"
        order = "the new one first" if config.get("Order") == "start-first" else "the old one stops first"
        return (f"{len(tasks)} task(s) are replaced, {pace}, {order}",)

    async def _settle(self, found: Found, report: Report) -> None:
        if not self._sent:
            report(Progress(Phase.DONE, message="nothing to do"))
            return
        await wait_for_service(
            self._client,
            found.id,
            report,
            timing=self._timing,
            since=await self._changed_at(found),
            going_back=self._going_back,
        )

    async def _changed_at(self, found: Found) -> int:
        """When the change was made, by the managers' clock: failures before it are not its fault."""
        try:
            return moment((await self._client.service(found.id)).updated_at)
        except EngineError:
            # Whoever waits next meets the same trouble and tells it; until then the time of the change before is near.
            return moment(str(found.raw.get("UpdatedAt", "")))

    _going_back = False

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        return ServiceEdit(self._client, found.id, restore(written), title="put back", timing=self._timing)


class ScaleService(ServiceEdit):
    """Another number of replicas; of a job, of completions and concurrent tasks."""

    def __init__(self, client: OperationClient, service: str, replicas: int, *, timing: Timing | None = None) -> None:
        """`replicas` from 0 up."""
        super().__init__(client, service, timing=timing)
        self._replicas = replicas

    def _edit(self, spec: Json) -> None:
        if self._replicas < 0:
            raise OperationFailed(f"a service cannot have {self._replicas} replicas")
        mode = spec.get("Mode") or {}
        if mode.get("Global") is not None or mode.get("GlobalJob") is not None:
            name = spec.get("Name", self._target)
            raise OperationFailed(f"{name}: scale can only be used with replicated or replicated-job mode")
        if mode.get("ReplicatedJob") is not None:
            job = child(spec, "Mode", "ReplicatedJob")
            job["TotalCompletions"] = self._replicas
        else:
            child(spec, "Mode", "Replicated")["Replicas"] = self._replicas

    def _title(self, name: str, changes: Written) -> str:
        for path, before, _ in changes:
            if path in (_REPLICAS, _COMPLETIONS):
                return f"scale {name} {before or 0} → {self._replicas}"
        return f"scale {name} → {self._replicas}"

    async def _lines(self, found: Found) -> tuple[str, ...]:
        before = value_at(found.spec, _REPLICAS)
        if before is None or before == self._replicas:
            return ()
        if self._replicas > before:
            return (f"{self._replicas - before} task(s) more; the scheduler chooses the nodes",)
        return (
            f"{before - self._replicas} task(s) stop: those that do not run first, then from the fullest nodes, "
            "highest slots first",
        )

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        for path, before, _ in written:
            if path in (_REPLICAS, _COMPLETIONS):
                return ScaleService(self._client, found.id, before or 0, timing=self._timing)
        return super()._undo(found, written)


class UpdateImage(ServiceEdit):
    """Another image, rolled out by the service's update settings."""

    def __init__(self, client: OperationClient, service: str, image: str, *, timing: Timing | None = None) -> None:
        """`image`: a reference such as `web:1.1`."""
        super().__init__(client, service, timing=timing)
        self._image = tagged(image)

    def _edit(self, spec: Json) -> None:
        child(spec, "TaskTemplate", "ContainerSpec")["Image"] = self._image

    def _title(self, name: str, changes: Written) -> str:
        before = next((value_words(old) for path, old, _ in changes if path == _IMAGE), "")
        return f"image of {name} {before} → {self._image}" if before else f"image of {name} → {self._image}"

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        before = next((old for path, old, _ in written if path == _IMAGE), None)
        if not before:
            return None
        return UpdateImage(self._client, found.id, before, timing=self._timing)


class RestartService(ServiceEdit):
    """Replace every task, one after the other, by the service's update settings. Cannot be undone, nothing is lost."""

    danger = Danger.CAREFUL

    def __init__(self, client: OperationClient, service: str, *, timing: Timing | None = None) -> None:
        """`service`: id or name."""
        super().__init__(client, service, timing=timing)

    def _edit(self, spec: Json) -> None:
        template = child(spec, "TaskTemplate")
        template["ForceUpdate"] = int(template.get("ForceUpdate") or 0) + 1

    def _check(self, intended: list[tuple[Path, Any, Any]], found: Found) -> None:
        """Two restarts at once do not conflict: the counter rises again."""

    def _title(self, name: str, changes: Written) -> str:
        return f"restart {name}"

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        return None


class RollbackService(ServiceEdit):
    """Back to the specification before the last update."""

    danger = Danger.CAREFUL
    _going_back = True

    def __init__(self, client: OperationClient, service: str, *, timing: Timing | None = None) -> None:
        """`service`: id or name."""
        super().__init__(client, service, timing=timing)
        self._previous: Json = {}

    async def _read(self) -> Found:
        found = await super()._read()
        previous = found.raw.get("PreviousSpec")
        if not isinstance(previous, dict):
            raise OperationFailed(f"{found.name} has no previous specification to go back to")
        self._previous = previous
        return found

    async def _write(self, found: Found, spec: Json) -> None:
        await self._client.update_service(found.id, found.version, found.spec, rollback=True)

    def _edit(self, spec: Json) -> None:
        spec.clear()
        spec.update(self._previous)

    def _title(self, name: str, changes: Written) -> str:
        return f"roll back {name}"

    def _expect(self, found: Found, written: list[tuple[Path, Any, Any]]) -> None:
        """Which specification is the previous one only the cluster knows."""

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        # A rollback swaps the two specifications; another one swaps them back.
        return RollbackService(self._client, found.id, timing=self._timing)

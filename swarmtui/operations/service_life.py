"""Creating and removing a service: each the other's inverse."""

from __future__ import annotations

import copy

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.errors import EngineError
from swarmtui.model.row_making import counts
from swarmtui.operations.base import Change, Danger, Operation, OperationFailed, Phase, Preview, Progress, Report
from swarmtui.operations.client import OperationClient
from swarmtui.operations.sending import send
from swarmtui.operations.services import found_service
from swarmtui.operations.spec_changes import flat, path_words, value_words
from swarmtui.operations.spec_edit import Found
from swarmtui.operations.waiting import Timing, wait_for_service


class CreateService:
    """A new service from a specification in the API's JSON."""

    danger = Danger.NONE
    confirmation = ""

    def __init__(self, client: OperationClient, spec: Json, *, timing: Timing | None = None) -> None:
        """`spec`: the body of `POST /services/create`; without a name the engine makes one up."""
        self._client = client
        self._spec = copy.deepcopy(spec)
        self._timing = timing or Timing()
        self.service_id = ""
        """Known once it is created."""
        self.warnings: tuple[str, ...] = ()
        """The engine's, known once it is created."""

    @property
    def name(self) -> str:
        """The service's name, "" when the engine is to make one up."""
        return str(self._spec.get("Name") or "")

    @property
    def title(self) -> str:
        """`create web`."""
        return f"create {self.name or 'a service'}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The new id; the name before."""
        return (self.service_id or self.name,)

    @property
    def sent(self) -> bool:
        """True once the engine has created it."""
        return bool(self.service_id)

    async def preview(self) -> Preview:
        """Every value of the specification that is not empty."""
        changes = tuple(Change(path_words(path), "", value_words(value)) for path, value in flat(self._spec))
        return Preview(self.title, changes, undo=f"remove {self.name}" if self.name else "remove it again")

    async def submit(self) -> None:
        """Create, wait for nothing."""
        if self.sent:
            return
        try:
            await send(self._create())
        except EngineError as error:
            raise OperationFailed(str(error)) from error

    async def run(self, report: Report) -> None:
        """Create, unless `submit` has, and wait."""
        report(Progress(Phase.SENDING, message=self.title))
        try:
            await self.submit()
        except OperationFailed as error:
            report(Progress(Phase.FAILED, message=str(error)))
            raise
        await wait_for_service(self._client, self.service_id, report, timing=self._timing)

    def inverse(self) -> Operation | None:
        """Removing it."""
        if not self.service_id:
            return None
        return RemoveService(self._client, self.service_id, name=self.name, timing=self._timing)

    async def _create(self) -> None:
        created = await self._client.create_service(self._spec)
        self.service_id, self.warnings = created.id, created.warnings


class RemoveService:
    """A service and all its tasks. Undo creates it again from its specification: new tasks, a new id."""

    danger = Danger.DESTRUCTIVE

    def __init__(self, client: OperationClient, service: str, *, name: str = "", timing: Timing | None = None) -> None:
        """`service`: id or name; `name` for the title while it has not been read."""
        self._client = client
        self._target = service
        self._name = name
        self._timing = timing or Timing()
        self._found: Found | None = None
        self._sent = False

    @property
    def title(self) -> str:
        """`remove web`."""
        return f"remove {self.confirmation}"

    @property
    def confirmation(self) -> str:
        """The service's name."""
        return self._found.name if self._found else self._name or self._target

    @property
    def targets(self) -> tuple[str, ...]:
        """The service's id, or what it was called before it was read."""
        return (self._found.id if self._found else self._target,)

    @property
    def sent(self) -> bool:
        """True once the engine has removed it."""
        return self._sent

    async def preview(self) -> Preview:
        """What stops."""
        try:
            found = await self._read()
            tasks = [task for task in await self._client.tasks({"service": [found.id]}) if counts(task)]
        except EngineError as error:
            raise OperationFailed(str(error)) from error
        lines = [f"{len(tasks)} task(s) stop and their logs are no longer reachable"]
        ports = ((found.raw.get("Endpoint") or {}).get("Ports")) or []
        published = ", ".join(str(port.get("PublishedPort")) for port in ports if port.get("PublishedPort"))
        if published:
            lines.append(f"published port(s) {published} close on every node")
        return Preview(self.title, (Change("service", found.name, ""),), tuple(lines), undo=f"create {found.name}")

    async def submit(self) -> None:
        """Remove."""
        if self._sent:
            return
        try:
            await send(self._remove())
        except EngineError as error:
            raise OperationFailed(str(error)) from error

    async def run(self, report: Report) -> None:
        """Remove; nothing is waited for, the service is gone when the engine answers."""
        report(Progress(Phase.SENDING, message=self.title))
        try:
            await self.submit()
        except OperationFailed as error:
            report(Progress(Phase.FAILED, message=str(error)))
            raise
        report(Progress(Phase.DONE, 1, 1, f"{self.confirmation} is removed"))

    def inverse(self) -> Operation | None:
        """Creating it again from the specification that it had."""
        if not self._sent or self._found is None:
            return None
        return CreateService(self._client, self._found.spec, timing=self._timing)

    async def _read(self) -> Found:
        self._found = found_service(await self._client.raw_service(self._target))
        return self._found

    async def _remove(self) -> None:
        # Read again, however fresh the preview: undo must bring back what was there last.
        found = await self._read()
        await self._client.remove_service(found.id)
        self._sent = True

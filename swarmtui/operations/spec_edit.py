"""Read, change, write back: the one way in which services and nodes are updated.

The whole specification is read as JSON and sent back with only the wanted paths changed, so that nothing that this
program does not know is lost. When somebody else wrote meanwhile ("update out of sequence") it is read again and the
change is made again, unless the same paths were changed to something else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.errors import EngineError, OutOfSequence
from swarmtui.operations.base import (
    Conflicting,
    Danger,
    Operation,
    OperationFailed,
    Phase,
    Preview,
    Progress,
    Report,
)
from swarmtui.operations.client import OperationClient
from swarmtui.operations.sending import send
from swarmtui.operations.spec_changes import (
    Path,
    as_changes,
    differences,
    path_words,
    put_at,
    value_at,
    value_words,
)
from swarmtui.operations.waiting import Timing

ATTEMPTS = 8
"""Writes before giving up on an object that changes all the time (a service in an update does, several times a second)."""


_UNREAD = -1
"""Version of an object that was not read but expected."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it was read."""

    id: str
    name: str
    version: int
    spec: Json
    raw: Json


class SpecEdit:
    """Base of the operations that edit a specification. Subclasses say how to read, edit, write and wait."""

    danger = Danger.NONE
    confirmation = ""

    def __init__(self, client: OperationClient, target: str, timing: Timing | None = None) -> None:
        """`target`: id or name of the object."""
        self._client = client
        self._target = target
        self._timing = timing or Timing()
        self._base: Found | None = None
        self._written: list[tuple[Path, Any, Any]] = []
        self._sent = False

    # What subclasses say

    async def _read(self) -> Found:
        raise NotImplementedError

    async def _write(self, found: Found, spec: Json) -> None:
        raise NotImplementedError

    def _edit(self, spec: Json) -> None:
        """Change `spec` in place. OperationFailed when this object cannot be changed so."""
        raise NotImplementedError

    def _title(self, name: str, changes: Sequence[tuple[Path, Any, Any]]) -> str:
        raise NotImplementedError

    async def _lines(self, found: Found) -> tuple[str, ...]:
        """Sentences for the preview."""
        return ()

    async def _settle(self, found: Found, report: Report) -> None:
        """Wait until the cluster has followed."""

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        """The inverse of having written `written`; None when there is none."""
        raise NotImplementedError

    # The operation

    @property
    def title(self) -> str:
        """Known in full once the object has been read."""
        if self._base is None:
            return self._title(self._target, ())
        return self._title(self._base.name, self._written or self._changes(self._base))

    @property
    def targets(self) -> tuple[str, ...]:
        """The object's id, or what it was called before it was read."""
        return (self._base.id if self._base else self._target,)

    @property
    def sent(self) -> bool:
        """True once the engine has accepted the change."""
        return self._sent

    async def preview(self) -> Preview:
        """Read the object and say what would be written."""
        found = await self._begin(again=True)
        changes = self._changes(found)
        inverse = self._inverse(found, changes) if changes else None
        return Preview(
            title=self._title(found.name, changes),
            changes=as_changes(changes),
            lines=await self._lines(found),
            undo=inverse.title if inverse else "",
            nothing_to_do=not changes,
        )

    async def submit(self) -> None:
        """Write, wait for nothing."""
        if self._sent:
            return
        try:
            await self._submit(await self._begin(again=False))
        except EngineError as error:
            raise OperationFailed(str(error)) from error

    async def run(self, report: Report) -> None:
        """Write, unless `submit` has, and wait."""
        try:
            base = await self._begin(again=False)
            report(Progress(Phase.SENDING, message=self.title))
            await self.submit()
        except OperationFailed as error:
            report(Progress(Phase.FAILED, message=str(error)))
            raise
        await self._settle(self._base or base, report)

    def inverse(self) -> Operation | None:
        """The operation that puts the changed paths back."""
        if not self._sent or self._base is None or not self._written:
            return None
        return self._inverse(self._base, self._written)

    def _inverse(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        operation = self._undo(found, written)
        if isinstance(operation, SpecEdit):
            operation._expect(found, written)
        return operation

    def _expect(self, found: Found, written: list[tuple[Path, Any, Any]]) -> None:
        """Take for granted that `written` is what the object holds now: the title is whole before anything is read, and
        running without a look refuses when somebody else has changed the same meanwhile.
        """
        spec = copy.deepcopy(found.spec)
        for path, _, after in written:
            put_at(spec, path, copy.deepcopy(after))
        self._base = Found(found.id, found.name, _UNREAD, spec, found.raw)

    async def _begin(self, *, again: bool) -> Found:
        if self._base is None or (again and not self._sent):
            try:
                self._base = await self._read()
            except EngineError as error:
                raise OperationFailed(str(error)) from error
        return self._base

    def _edited(self, spec: Json) -> Json:
        draft = copy.deepcopy(spec)
        self._edit(draft)
        # Only the leaves that differ are taken over: an empty object that an edit made on its way would make the engine
        # believe that the tasks' specification has changed, and replace them all.
        edited = copy.deepcopy(spec)
        for path, _, wanted in differences(spec, draft):
            put_at(edited, path, wanted)
        return edited

    def _changes(self, found: Found) -> list[tuple[Path, Any, Any]]:
        return differences(found.spec, self._edited(found.spec))

    async def _submit(self, base: Found) -> None:
        intended = self._changes(base)
        found = base if base.version != _UNREAD else await self._read()
        for _ in range(ATTEMPTS):
            self._check(intended, found)
            edited = self._edited(found.spec)
            written = differences(found.spec, edited)
            if not written:
                # Somebody else has done it, or there was nothing to do: the cluster is as wanted.
                self._base = found
                return
            try:
                await send(self._accepted(found, edited, written))
                return
            except OutOfSequence:
                found = await self._read()
        raise Conflicting(f"{base.name} changes all the time; tried {ATTEMPTS} times")

    async def _accepted(self, found: Found, edited: Json, written: list[tuple[Path, Any, Any]]) -> None:
        await self._write(found, edited)
        self._sent, self._written, self._base = True, written, found

    def _check(self, intended: list[tuple[Path, Any, Any]], found: Found) -> None:
        for path, before, wanted in intended:
            now = value_at(found.spec, path)
            if now not in (before, wanted):
                raise Conflicting(
                    f"somebody else changed {path_words(path)} of {found.name} meanwhile, "
                    f"from {value_words(before) or 'nothing'} to {value_words(now) or 'nothing'}; "
                    "nothing was done, look again and decide"
                )


def restore(written: Sequence[tuple[Path, Any, Any]]) -> Callable[[Json], None]:
    """An edit that puts the old values of `written` back."""

    def edit(spec: Json) -> None:
        for path, before, _ in written:
            put_at(spec, path, copy.deepcopy(before))

    return edit

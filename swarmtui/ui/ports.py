"""What the console needs of the outside, as protocols. Nothing here is imported at run time from other rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from swarmtui.docker_api.client import EngineClient

Connect = Callable[[], "AbstractAsyncContextManager[EngineClient]"]
"""Makes the connection to the cluster. Called after the first paint, so it may import what it needs only then."""


class InstancePort(Protocol):
    """One instance of a playground."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def address(self) -> object: ...
    @property
    def docker_host(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def agent_pid(self) -> int: ...
    @property
    def state(self) -> str: ...


class TierPort(Protocol):
    """Which kind of instances there are, and why."""

    @property
    def tier(self) -> str: ...
    @property
    def reason(self) -> str: ...


class PlaygroundPort(Protocol):
    """A playground's session, as `swarmtui.playground.session.PlaygroundSession` has it."""

    @property
    def instances(self) -> Sequence[InstancePort]: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def tier(self) -> TierPort: ...
    @property
    def limit(self) -> int: ...
    def subscribe(self, callback: Callable[[Any], None], /) -> Callable[[], None]: ...
    async def add(self) -> object: ...
    async def remove(self, name: str) -> None: ...

"""What the console reads of an engine beside the cluster's objects: the swarm's tokens, versions, events, images."""

from __future__ import annotations

import msgspec

from swarmtui.docker_api.types import Object, SwarmSpec, Version


class JoinTokens(Object, frozen=True):
    """The two tokens, in full."""

    worker: str = msgspec.field(name="Worker", default="")
    manager: str = msgspec.field(name="Manager", default="")


class Swarm(Object, frozen=True):
    """The swarm as a whole, as `GET /swarm` shows it to a manager."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    spec: SwarmSpec = msgspec.field(name="Spec", default=SwarmSpec())
    join_tokens: JoinTokens = msgspec.field(name="JoinTokens", default=JoinTokens())


class EngineVersion(Object, frozen=True):
    """What `/version` says."""

    version: str = msgspec.field(name="Version", default="")
    api_version: str = msgspec.field(name="ApiVersion", default="")
    min_api_version: str = msgspec.field(name="MinAPIVersion", default="")
    os: str = msgspec.field(name="Os", default="")
    arch: str = msgspec.field(name="Arch", default="")


class Actor(Object, frozen=True):
    """What an event is about."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] | None = msgspec.field(name="Attributes", default=None)


class Event(Object, frozen=True):
    """One line of `/events`; `scope` is local or swarm, `time_nano` nanoseconds since the epoch."""

    type: str = msgspec.field(name="Type", default="")
    action: str = msgspec.field(name="Action", default="")
    actor: Actor = msgspec.field(name="Actor", default=Actor())
    scope: str = msgspec.field(name="scope", default="local")
    time_nano: int = msgspec.field(name="timeNano", default=0)


class Image(Object, frozen=True):
    """A local image."""

    id: str = msgspec.field(name="Id", default="")
    repo_tags: list[str] | None = msgspec.field(name="RepoTags", default=None)

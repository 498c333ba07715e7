"""`/secrets` and `/configs` (swarmkit manager/controlapi/secret.go, config.go): the data is written once, labels change.

Both are of one shape: `SECRETS` and `CONFIGS` say where they differ, and their methods are the routes' handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web
from msgspec.structs import replace

from agent.api.attempts import changed_before, chosen_id, made_before
from agent.api.call import Call, done, reply
from agent.api.filters import Filters
from agent.api.lookup import find_config, find_secret, manager_store
from agent.api.removal import remove_object
from agent.api.views import secret_view
from agent.api_types.codec import decode_json
from agent.api_types.common import Version
from agent.api_types.container import ContainerSpec
from agent.api_types.errors import AlreadyExists, InvalidArgument
from agent.api_types.secret import Config, ConfigSpec, Secret, SecretSpec
from agent.api_types.service import Service
from agent.api_types.validation import validate_config_spec, validate_secret_spec
from agent.store.transactions import ReadTx, WriteTx

T = TypeVar("T", Secret, Config)


@dataclass(frozen=True, slots=True)
class NamedData(Generic[T]):
    """The routes of one kind of named bytes."""

    noun: str
    table: type[T]
    make: Callable[[bytes], T]
    """An object with the spec that is a request's body, which InvalidArgument refuses."""
    check: Callable[[T], None]
    """Refuses what cannot be created."""
    find: Callable[[ReadTx, str], T]
    shown: Callable[[T], T]
    """An object as clients see it."""
    used_by: Callable[[ContainerSpec], Iterable[str]]
    """The ids of those that a container uses."""
    filters: tuple[str, ...]

    async def list(self, call: Call) -> web.StreamResponse:
        """`GET /secrets`, in order of id."""
        store = manager_store(call.backend)
        filters = call.filters(*self.filters)
        await call.fresh(store)
        found = store.view(lambda tx: [item for item in tx.all(self.table) if _matches(filters, item)])
        return reply([self.shown(item) for item in sorted(found, key=lambda item: item.id)])

    async def inspect(self, call: Call) -> web.StreamResponse:
        """`GET /secrets/ID`."""
        store = manager_store(call.backend)
        await call.fresh(store)
        return reply(self.shown(store.view(lambda tx: self.find(tx, call.params["id"]))))

    async def create(self, call: Call) -> web.StreamResponse:
        """`POST /secrets/create`."""
        store = manager_store(call.backend)
        wanted = self.make(await call.json_body())
        self.check(wanted)
        name = wanted.spec.name
        created: list[T] = []

        def change(tx: WriteTx) -> None:
            before = made_before(call.attempt, tx, self.table)
            if before is None and tx.find(self.table, "name", name):
                raise AlreadyExists.grpc(f"{self.noun} {name} already exists")
            created.append(before or tx.create(replace(wanted, id=chosen_id(call.attempt, tx))))

        await store.update(change)
        return reply({"ID": created[0].id}, 201, subject=f"{self.noun} {name} ({created[0].id})")

    async def update(self, call: Call) -> web.StreamResponse:
        """`POST /secrets/ID/update`: labels alone."""
        store = manager_store(call.backend)
        spec = self.make(await call.json_body()).spec
        version = call.object_version(self.noun)

        def change(tx: WriteTx) -> None:
            stored = self.find(tx, call.params["id"])
            if spec.name != stored.spec.name or (spec.data and spec.data != stored.spec.data):
                raise InvalidArgument.grpc("only updates to Labels are allowed")
            if not changed_before(call.attempt, tx, stored, version, stored.spec.labels == spec.labels):
                relabelled = replace(stored.spec, labels=spec.labels)
                tx.update(replace(stored, version=Version(index=version), spec=relabelled))

        await store.update(change)
        return done(subject=f"{self.noun} {spec.name}")

    async def remove(self, call: Call) -> web.StreamResponse:
        """`DELETE /secrets/ID`, refused while a service uses it."""
        store = manager_store(call.backend)
        wanted = call.params["id"]
        removed = await remove_object(call, store, self.table, lambda tx: self.find(tx, wanted), self._refuse_used)
        name = wanted if removed is None else f"{removed.spec.name} ({removed.id})"
        return done(204, subject=f"{self.noun} {name}")

    def _refuse_used(self, tx: ReadTx, item: T) -> None:
        names = [service.spec.name for service in tx.all(Service) if item.id in self._ids(service)]
        if names:
            services = "service" if len(names) == 1 else "services"
            raise InvalidArgument.grpc(
                f"{self.noun} '{item.spec.name}' is in use by the following {services}: {', '.join(names)}"
            )

    def _ids(self, service: Service) -> frozenset[str]:
        container = service.spec.task_template.container_spec
        return frozenset() if container is None else frozenset(self.used_by(container))


def _matches(filters: Filters, item: Secret | Config) -> bool:
    """Names and ids are alternatives to each other, labels are not."""
    named = any(item.spec.name.startswith(prefix) for prefix in filters.get("name"))
    named = named or item.spec.name in filters.get("names")
    named = named or any(item.id.startswith(prefix) for prefix in filters.get("id"))
    asked = bool(filters.get("name") or filters.get("names") or filters.get("id"))
    return (named or not asked) and filters.labels("label", item.spec.labels)


SECRETS = NamedData(
    noun="secret",
    table=Secret,
    make=lambda body: Secret(spec=decode_json(body, SecretSpec)),
    check=lambda secret: validate_secret_spec(secret.spec),
    find=find_secret,
    shown=secret_view,
    used_by=lambda container: [reference.secret_id for reference in container.secrets],
    filters=("names", "name", "id", "label"),
)
CONFIGS = NamedData(
    noun="config",
    table=Config,
    make=lambda body: Config(spec=decode_json(body, ConfigSpec)),
    check=lambda config: validate_config_spec(config.spec),
    find=find_config,
    shown=lambda config: config,
    used_by=lambda container: [reference.config_id for reference in container.configs],
    filters=("name", "id", "label"),
)

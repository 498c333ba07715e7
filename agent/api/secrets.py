"""`/secrets` and `/configs` (swarmkit manager/controlapi/secret.go, config.go): the data is written once, labels change."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from msgspec.structs import replace

from agent.api.call import Call, done, reply
from agent.api.filters import Filters
from agent.api.lookup import find_config, find_secret, manager_store
from agent.api.views import secret_view
from agent.api_types.common import Version
from agent.api_types.errors import AlreadyExists, InvalidArgument
from agent.api_types.secret import Config, ConfigSpec, Secret, SecretSpec
from agent.api_types.service import Service
from agent.api_types.validation import validate_config_spec, validate_secret_spec
from agent.store.transactions import WriteTx


def _matches(filters: Filters, item: Secret | Config) -> bool:
    """Names and ids are alternatives to each other, labels are not."""
    named = any(item.spec.name.startswith(prefix) for prefix in filters.get("name"))
    named = named or item.spec.name in filters.get("names")
    named = named or any(item.id.startswith(prefix) for prefix in filters.get("id"))
    asked = bool(filters.get("name") or filters.get("names") or filters.get("id"))
    return (named or not asked) and filters.labels("label", item.spec.labels)


def _refuse_used(noun: str, name: str, users: Iterable[str]) -> None:
    names = list(users)
    if names:
        services = "service" if len(names) == 1 else "services"
        raise InvalidArgument.grpc(f"{noun} '{name}' is in use by the following {services}: {', '.join(names)}")


async def list_secrets(call: Call) -> web.StreamResponse:
    """`GET /secrets`, in order of id, without data."""
    store = manager_store(call.backend)
    filters = call.filters("names", "name", "id", "label")
    await call.fresh(store)
    found = store.view(lambda tx: [secret for secret in tx.all(Secret) if _matches(filters, secret)])
    return reply([secret_view(secret) for secret in sorted(found, key=lambda secret: secret.id)])


async def inspect_secret(call: Call) -> web.StreamResponse:
    """`GET /secrets/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply(secret_view(store.view(lambda tx: find_secret(tx, call.params["id"]))))


async def create_secret(call: Call) -> web.StreamResponse:
    """`POST /secrets/create`."""
    store = manager_store(call.backend)
    spec = await call.json(SecretSpec)
    validate_secret_spec(spec)
    created: list[Secret] = []

    def change(tx: WriteTx) -> None:
        if tx.find(Secret, "name", spec.name):
            raise AlreadyExists.grpc(f"secret {spec.name} already exists")
        created.append(tx.create(Secret(spec=spec)))

    await store.update(change)
    return reply({"ID": created[0].id}, 201, subject=f"secret {spec.name} ({created[0].id})")


async def update_secret(call: Call) -> web.StreamResponse:
    """`POST /secrets/ID/update`: labels alone."""
    store = manager_store(call.backend)
    spec = await call.json(SecretSpec)
    version = call.object_version("secret")

    def change(tx: WriteTx) -> None:
        stored = find_secret(tx, call.params["id"])
        if spec.name != stored.spec.name or (spec.data and spec.data != stored.spec.data):
            raise InvalidArgument.grpc("only updates to Labels are allowed")
        tx.update(replace(stored, version=Version(index=version), spec=replace(stored.spec, labels=spec.labels)))

    await store.update(change)
    return done(subject=f"secret {spec.name}")


async def remove_secret(call: Call) -> web.StreamResponse:
    """`DELETE /secrets/ID`, refused while a service uses it."""
    store = manager_store(call.backend)
    removed: list[Secret] = []

    def change(tx: WriteTx) -> None:
        secret = find_secret(tx, call.params["id"])
        users = [service.spec.name for service in tx.all(Service) if secret.id in _secret_ids(service)]
        _refuse_used("secret", secret.spec.name, users)
        tx.delete(Secret, secret.id)
        removed.append(secret)

    await store.update(change)
    return done(204, subject=f"secret {removed[0].spec.name} ({removed[0].id})")


def _secret_ids(service: Service) -> frozenset[str]:
    container = service.spec.task_template.container_spec
    return frozenset(reference.secret_id for reference in container.secrets) if container is not None else frozenset()


async def list_configs(call: Call) -> web.StreamResponse:
    """`GET /configs`, in order of id."""
    store = manager_store(call.backend)
    filters = call.filters("name", "id", "label")
    await call.fresh(store)
    found = store.view(lambda tx: [config for config in tx.all(Config) if _matches(filters, config)])
    return reply(sorted(found, key=lambda config: config.id))


async def inspect_config(call: Call) -> web.StreamResponse:
    """`GET /configs/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply(store.view(lambda tx: find_config(tx, call.params["id"])))


async def create_config(call: Call) -> web.StreamResponse:
    """`POST /configs/create`."""
    store = manager_store(call.backend)
    spec = await call.json(ConfigSpec)
    validate_config_spec(spec)
    created: list[Config] = []

    def change(tx: WriteTx) -> None:
        if tx.find(Config, "name", spec.name):
            raise AlreadyExists.grpc(f"config {spec.name} already exists")
        created.append(tx.create(Config(spec=spec)))

    await store.update(change)
    return reply({"ID": created[0].id}, 201, subject=f"config {spec.name} ({created[0].id})")


async def update_config(call: Call) -> web.StreamResponse:
    """`POST /configs/ID/update`: labels alone."""
    store = manager_store(call.backend)
    spec = await call.json(ConfigSpec)
    version = call.object_version("config")

    def change(tx: WriteTx) -> None:
        stored = find_config(tx, call.params["id"])
        if spec.name != stored.spec.name or (spec.data and spec.data != stored.spec.data):
            raise InvalidArgument.grpc("only updates to Labels are allowed")
        tx.update(replace(stored, version=Version(index=version), spec=replace(stored.spec, labels=spec.labels)))

    await store.update(change)
    return done(subject=f"config {spec.name}")


async def remove_config(call: Call) -> web.StreamResponse:
    """`DELETE /configs/ID`, refused while a service uses it."""
    store = manager_store(call.backend)
    removed: list[Config] = []

    def change(tx: WriteTx) -> None:
        config = find_config(tx, call.params["id"])
        users = [service.spec.name for service in tx.all(Service) if config.id in _config_ids(service)]
        _refuse_used("config", config.spec.name, users)
        tx.delete(Config, config.id)
        removed.append(config)

    await store.update(change)
    return done(204, subject=f"config {removed[0].spec.name} ({removed[0].id})")


def _config_ids(service: Service) -> frozenset[str]:
    container = service.spec.task_template.container_spec
    return frozenset(reference.config_id for reference in container.configs) if container is not None else frozenset()

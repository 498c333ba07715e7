"""Secrets and configs: named bytes that tasks may read (moby api/types/swarm/secret.go, config.go)."""

from __future__ import annotations

from agent.api_types.common import Driver, Version
from agent.api_types.fields import ApiObject, nested, omitempty, present


class SecretSpec(ApiObject, frozen=True):
    """A secret; `data` is base64 and never sent back to a client."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    data: bytes = omitempty("Data", b"")
    driver: Driver | None = omitempty("Driver", None)
    templating: Driver | None = omitempty("Templating", None)


class Secret(ApiObject, frozen=True):
    """A secret of the cluster."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: SecretSpec = nested("Spec", SecretSpec)


class ConfigSpec(ApiObject, frozen=True):
    """A config; its data is shown."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    data: bytes = omitempty("Data", b"")
    templating: Driver | None = omitempty("Templating", None)


class Config(ApiObject, frozen=True):
    """A config of the cluster."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: ConfigSpec = nested("Spec", ConfigSpec)

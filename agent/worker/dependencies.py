"""Secrets and configs that tasks of this node may read. In memory only: nothing here is ever written."""

from __future__ import annotations

from collections.abc import Iterable

from agent.api_types.secret import Config, Secret
from agent.api_types.task import Task
from agent.worker.interface import Dependencies


class DependencyStore:
    """What managers sent, by id."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}
        self._configs: dict[str, bytes] = {}

    def replace(self, secrets: Iterable[Secret], configs: Iterable[Config]) -> None:
        """A complete assignment: what it does not name goes."""
        self._secrets = {secret.id: secret.spec.data for secret in secrets}
        self._configs = {config.id: config.spec.data for config in configs}

    def add(self, secrets: Iterable[Secret], configs: Iterable[Config]) -> None:
        """An incremental assignment brought these."""
        self._secrets.update((secret.id, secret.spec.data) for secret in secrets)
        self._configs.update((config.id, config.spec.data) for config in configs)

    def drop(self, secrets: Iterable[str], configs: Iterable[str]) -> None:
        """No task here reads these any more."""
        for secret_id in secrets:
            self._secrets.pop(secret_id, None)
        for config_id in configs:
            self._configs.pop(config_id, None)

    def of(self, task: Task) -> tuple[Dependencies, tuple[str, ...]]:
        """What `task` may read, and the names of what it asks for that is not here."""
        spec = task.spec.container_spec
        if spec is None or not (spec.secrets or spec.configs):
            return Dependencies(), ()
        secrets = {
            ref.secret_id: self._secrets[ref.secret_id] for ref in spec.secrets if ref.secret_id in self._secrets
        }
        configs = {
            ref.config_id: self._configs[ref.config_id] for ref in spec.configs if ref.config_id in self._configs
        }
        missing = [f"secret {ref.secret_name}" for ref in spec.secrets if ref.secret_id not in secrets]
        missing += [f"config {ref.config_name}" for ref in spec.configs if ref.config_id not in configs]
        return Dependencies(secrets, configs), tuple(missing)

"""`swarmtui service update`: only what is given changes, everything else of the specification stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from swarmtui.commands import service_options as options
from swarmtui.commands.lookups import config_references, network_targets, secret_references
from swarmtui.commands.progress import show
from swarmtui.commands.session import with_client
from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.client import EngineClient
from swarmtui.operations.base import OperationFailed
from swarmtui.operations.services import RollbackService, ServiceEdit, tagged
from swarmtui.operations.spec_changes import child


@click.command()
@click.option("--image", default=None, help="Another image.")
@click.option("--replicas", type=click.IntRange(0), default=None, help="Another number of tasks.")
@click.option("--max-concurrent", type=click.IntRange(0), default=None, help="Tasks of a job at a time.")
@click.option("--args", "arguments", default=None, help="Other arguments of its command.")
@click.option("--force", is_flag=True, help="Replace its tasks even when nothing changes.")
@click.option("--rollback", is_flag=True, help="Go back to the specification before the last update.")
@options.many("--env-add", help="Set an environment variable: NAME=VALUE.")
@options.many("--env-rm", help="Take an environment variable away.")
@options.many("--label-add", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Set a label of the service.")
@options.many("--label-rm", help="Take a label away.")
@options.many(
    "--container-label-add", kind=options.KEY_VALUE, metavar="KEY=VALUE", help="Set a label of its containers."
)
@options.many("--container-label-rm", help="Take a label of its containers away.")
@options.many("--constraint-add", help="Add a constraint.")
@options.many("--constraint-rm", help="Take a constraint away.")
@options.many("--placement-pref-add", kind=options.PREFERENCE, metavar="PREF", help="Add a placement preference.")
@options.many("--placement-pref-rm", kind=options.PREFERENCE, metavar="PREF", help="Take a placement preference away.")
@options.many("--publish-add", kind=options.PORT, metavar="PORT", help="Publish a port.")
@options.many("--publish-rm", metavar="TARGET[/PROTOCOL]", help="Stop publishing a port, named by its target.")
@options.many("--mount-add", kind=options.MOUNT, metavar="MOUNT", help="Add or replace a mount.")
@options.many("--mount-rm", metavar="TARGET", help="Take a mount away, named by its target.")
@options.many("--network-add", help="Attach to a network.")
@options.many("--network-rm", help="Detach from a network.")
@options.many("--secret-add", kind=options.SECRET, metavar="SECRET", help="Give it a secret.")
@options.many("--secret-rm", help="Take a secret away.")
@options.many("--config-add", kind=options.CONFIG, metavar="CONFIG", help="Give it a config.")
@options.many("--config-rm", help="Take a config away.")
@options.scalar_options
@click.option("--no-resolve-image", is_flag=True, hidden=True, help="Accepted for Docker's sake: never resolved here.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the service to converge.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.argument("service")
@with_client
async def update(
    client: EngineClient, /, service: str, detach: bool, quiet: bool, rollback: bool, **given: Any
) -> None:
    """Change SERVICE."""
    operation: ServiceEdit
    if rollback:
        operation = RollbackService(client, service)
    else:
        given["networks"] = await network_targets(client, given["network_add"])
        given["networks_gone"] = await network_targets(client, given["network_rm"])
        given["secrets"] = await secret_references(client, given["secret_add"])
        given["configs"] = await config_references(client, given["config_add"])
        operation = ServiceEdit(client, service, lambda spec: apply(spec, given), title="update")
    await operation.submit()
    click.echo(service)
    if not detach:
        await show(operation, quiet=quiet)


def apply(spec: Json, given: Mapping[str, Any]) -> None:
    """Write the options into a specification, in place. OperationFailed for what this service cannot have."""
    options.put_scalars(spec, given)
    template = child(spec, "TaskTemplate")
    container = child(template, "ContainerSpec")
    if given["image"] is not None:
        container["Image"] = tagged(given["image"])
    if given["arguments"] is not None:
        container["Args"] = options.split_command(given["arguments"])
    _scale(spec, given["replicas"], given["max_concurrent"])
    _labels(child(spec, "Labels"), given["label_add"], given["label_rm"])
    _labels(child(container, "Labels"), given["container_label_add"], given["container_label_rm"])
    added = options.environment(given["env_add"], [])
    _list(container, "Env", added, given["env_rm"], lambda line: line.partition("=")[0])
    placement = child(template, "Placement")
    _list(placement, "Constraints", given["constraint_add"], given["constraint_rm"], lambda text: text)
    gone = [_spread(each) for each in given["placement_pref_rm"]]
    _list(placement, "Preferences", given["placement_pref_add"], gone, _spread)
    _list(container, "Mounts", given["mount_add"], given["mount_rm"], lambda mount: mount.get("Target", ""))
    _list(container, "Secrets", given["secrets"], given["secret_rm"], lambda each: each.get("SecretName", ""))
    _list(container, "Configs", given["configs"], given["config_rm"], lambda each: each.get("ConfigName", ""))
    gone = [each["Target"] for each in given["networks_gone"]]
    _list(template, "Networks", given["networks"], gone, lambda each: each.get("Target", ""))
    _ports(child(spec, "EndpointSpec"), given["publish_add"], given["publish_rm"])
    if given["force"]:
        template["ForceUpdate"] = int(template.get("ForceUpdate") or 0) + 1


def _scale(spec: Json, replicas: int | None, max_concurrent: int | None) -> None:
    mode = child(spec, "Mode")
    if max_concurrent is not None:
        if mode.get("ReplicatedJob") is None:
            raise OperationFailed("max-concurrent can only be used with replicated-job mode")
        mode["ReplicatedJob"]["MaxConcurrent"] = max_concurrent
    if replicas is None:
        return
    if mode.get("ReplicatedJob") is not None:
        mode["ReplicatedJob"]["TotalCompletions"] = replicas
    elif mode.get("Global") is not None or mode.get("GlobalJob") is not None:
        raise OperationFailed("replicas can only be used with replicated or replicated-job mode")
    else:
        child(mode, "Replicated")["Replicas"] = replicas


def _labels(labels: Json, added: Iterable[tuple[str, str]], removed: Iterable[str]) -> None:
    for key in removed:
        labels.pop(key, None)
    labels.update(dict(added))


def _list(place: Json, name: str, added: Sequence[Any], removed: Sequence[Any], key: Callable[[Any], Any]) -> None:
    """Replace what has the same key, add what is new, take away what is named; the order of the rest stays."""
    if not added and not removed:
        return
    fresh = {key(item): item for item in added}
    kept = [fresh.pop(key(item), item) for item in place.get(name) or [] if key(item) not in set(removed)]
    place[name] = kept + list(fresh.values())


def _spread(preference: Json) -> str:
    return str((preference.get("Spread") or {}).get("SpreadDescriptor", ""))


def _ports(endpoint: Json, added: Sequence[Sequence[Json]], removed: Sequence[str]) -> None:
    gone = set()
    for text in removed:
        target, _, protocol = text.partition("/")
        if not target.isdecimal():
            raise OperationFailed(f"--publish-rm {text}: name the port inside the container, TARGET[/PROTOCOL]")
        gone.add((int(target), protocol or "tcp"))
    fresh = [port for group in added for port in group]
    if fresh or gone:
        _list(
            endpoint, "Ports", fresh, sorted(gone), lambda port: (port.get("TargetPort"), port.get("Protocol", "tcp"))
        )

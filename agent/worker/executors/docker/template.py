"""Go templates in a task's hostname, environment and mounts (swarmkit template/context.go, template/expand.go).

What people write there is carried out: fields, `index` on labels, `join`, `printf`-free text, comments and trim markers. What
is beyond that is refused with the place it stands at, so that nobody finds a literal `{{if}}` in a container.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from agent.api_types.container import ContainerSpec, Mount
from agent.api_types.node import NodeDescription
from agent.api_types.task import Task
from agent.worker.executors.docker.names import slot_of, task_name
from agent.worker.interface import RejectedByExecutor

Value = str | Mapping[str, "Value"]

_ACTION = re.compile(
    r"\{\{(?P<ltrim>-(?=\s))?\s*(?P<body>(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|/\*.*?\*/|(?!\}\}).)*?)\s*(?P<rtrim>(?<=\s)-)?\}\}",
    re.S,
)
_TOKEN = re.compile(
    r"\s*(?:(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<name>[A-Za-z_]\w*)|(?P<text>\"(?:\\.|[^\"\\])*\"|`[^`]*`))"
)


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a template may name."""

    values: Mapping[str, Value]

    @classmethod
    def of(cls, task: Task, node: NodeDescription) -> Expansion:
        """The context of `task` on the node."""
        service = task.service_annotations
        labels: Mapping[str, Value] = dict(service.labels) if service else {}
        return cls(
            {
                "Service": {"ID": task.service_id, "Name": service.name if service else "", "Labels": labels},
                "Node": {
                    "ID": task.node_id,
                    "Hostname": node.hostname,
                    "Platform": {"OS": node.platform.os, "Architecture": node.platform.architecture},
                },
                "Task": {"ID": task.id, "Name": task_name(task), "Slot": slot_of(task)},
            }
        )

    def expand(self, text: str) -> str:
        """`text` with every `{{...}}` replaced. RejectedByExecutor says which cannot be."""
        if "{{" not in text:
            return text
        pieces: list[str] = []
        position, trim = 0, False
        for action in _ACTION.finditer(text):
            literal = text[position : action.start()]
            pieces.append(_trimmed(literal, left=trim, right=action["ltrim"] is not None))
            body = action["body"]
            if not (body.startswith("/*") and body.endswith("*/")):
                pieces.append(self._evaluate(body, text))
            position, trim = action.end(), action["rtrim"] is not None
        pieces.append(_trimmed(text[position:], left=trim, right=False))
        if any("{{" in text[start:end] for start, end in _gaps(text)):
            raise _refused(text, "unclosed action")
        return "".join(pieces)

    def _evaluate(self, body: str, whole: str) -> str:
        arguments: list[Value] = []
        function: str | None = None
        position = 0
        while position < len(body):
            token = _TOKEN.match(body, position)
            if token is None:
                raise _refused(whole, f"{body!r} is not understood")
            position = token.end()
            if token["name"] is not None:
                if function is not None or arguments:
                    raise _refused(whole, f"{body!r} is not understood")
                function = token["name"]
            elif token["field"] is not None:
                arguments.append(self._field(token["field"], whole))
            else:
                arguments.append(_unquoted(token["text"]))
        if function is None:
            if len(arguments) != 1:
                raise _refused(whole, f"{body!r} is not understood")
            result = arguments[0]
        else:
            known = _FUNCTIONS.get(function)
            if known is None:
                raise _refused(whole, f"function {function!r} not defined")
            try:
                result = known(*arguments)
            except TypeError:
                raise _refused(whole, f"wrong arguments for {function}") from None
        if not isinstance(result, str):
            return "map[" + " ".join(f"{key}:{value}" for key, value in sorted(result.items())) + "]"
        return result

    def _field(self, path: str, whole: str) -> Value:
        value: Value = self.values
        for name in path[1:].split("."):
            if isinstance(value, str) or name not in value:
                raise _refused(whole, f"can't evaluate field {name} in {path}")
            value = value[name]
        return value


def expand_spec(spec: ContainerSpec, expansion: Expansion) -> ContainerSpec:
    """The container with hostname, environment and the texts of mounts expanded; all else stays as it is."""
    return msgspec.structs.replace(
        spec,
        hostname=expansion.expand(spec.hostname),
        env=[expansion.expand(line) for line in spec.env],
        mounts=[_expand_mount(mount, expansion) for mount in spec.mounts],
    )


def _expand_mount(mount: Mount, expansion: Expansion) -> Mount:
    options = mount.volume_options
    if options is not None:
        driver = options.driver_config
        if driver is not None:
            driver = msgspec.structs.replace(driver, options=_expand_values(driver.options, expansion))
        options = msgspec.structs.replace(
            options, labels=_expand_values(options.labels, expansion), driver_config=driver
        )
    return msgspec.structs.replace(
        mount,
        source=expansion.expand(mount.source),
        target=expansion.expand(mount.target),
        volume_options=options,
    )


def _expand_values(values: Mapping[str, str], expansion: Expansion) -> dict[str, str]:
    return {key: expansion.expand(value) for key, value in values.items()}


def _index(container: Value, key: Value) -> Value:
    if isinstance(container, str) or not isinstance(key, str):
        raise TypeError
    return container.get(key, "")


def _join(separator: Value, *parts: Value) -> Value:
    texts = [part for part in parts if isinstance(part, str)]
    if not isinstance(separator, str) or len(texts) != len(parts):
        raise TypeError
    return separator.join(texts)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {"index": _index, "join": _join}

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    if left:
        text = text.lstrip()
    return text.rstrip() if right else text


def _gaps(text: str) -> list[tuple[int, int]]:
    gaps: list[tuple[int, int]] = []
    position = 0
    for action in _ACTION.finditer(text):
        gaps.append((position, action.start()))
        position = action.end()
    return [*gaps, (position, len(text))]


def _refused(template: str, why: str) -> RejectedByExecutor:
    return RejectedByExecutor(f"expanding template {template!r} failed: {why}")

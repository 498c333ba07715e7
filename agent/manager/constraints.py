"""Placement constraints: `node.labels.disk == ssd` and its kin, parsed and held against nodes.

Keys and comparison are SwarmKit's (manager/constraint): the value is compared without case, the key of a label with
case, and a key that is not known fits no node.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from agent.api_types.errors import Unknown
from agent.api_types.node import Node
from agent.api_types.task import Placement, TaskSpec

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Operator(StrEnum):
    """How a constraint compares."""

    EQUAL = "=="
    NOT_EQUAL = "!="


@dataclass(frozen=True, slots=True)
class Constraint:
    """One expression; `text` as the person wrote it."""

    key: str
    operator: Operator
    value: str
    text: str

    def fits(self, node: Node) -> bool:
        """Whether the node satisfies the constraint."""
        equal = _equal(self, node)
        if equal is None:
            return False
        return equal == (self.operator is Operator.EQUAL)


def parse_constraints(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """The constraints of a spec; Unknown (status 500, as the engine answers) with the engine's text for a bad one."""
    return tuple(_parse(expression) for expression in expressions)


def fits_all(constraints: Iterable[Constraint], node: Node) -> bool:
    """Whether the node satisfies every constraint."""
    return all(constraint.fits(node) for constraint in constraints)


def placement_fits(placement: Placement | None, node: Node) -> bool:
    """Whether the node satisfies the constraints of a placement; one that cannot be read fits no node."""
    if placement is None or not placement.constraints:
        return True
    try:
        return fits_all(_parsed(tuple(placement.constraints)), node)
    except Unknown:
        return False


def constraints_of(spec: TaskSpec) -> tuple[Constraint, ...]:
    """The parsed constraints of a task, parsed once for all tasks that share them."""
    return () if spec.placement is None else _parsed(tuple(spec.placement.constraints))


def label_of(node: Node, key: str) -> str | None:
    """The value of `node.labels.X` or `engine.labels.X`; "" where the node lacks it, None when `key` is neither."""
    if len(key) > len(NODE_LABEL) and key[: len(NODE_LABEL)].lower() == NODE_LABEL:
        return node.spec.labels.get(key[len(NODE_LABEL) :], "")
    if len(key) > len(ENGINE_LABEL) and key[: len(ENGINE_LABEL)].lower() == ENGINE_LABEL:
        return node.description.engine.labels.get(key[len(ENGINE_LABEL) :], "")
    return None


def normal_architecture(name: str) -> str:
    """One spelling for an architecture of which Docker knows two."""
    return _ARCHITECTURES.get(name.lower(), name.lower())


@lru_cache(maxsize=1024)
def _parsed(expressions: tuple[str, ...]) -> tuple[Constraint, ...]:
    return parse_constraints(expressions)


def _parse(expression: str) -> Constraint:
    for operator in Operator:
        left, found, right = expression.partition(operator.value)
        if not found:
            continue
        key, value = left.strip(), right.strip()
        if _KEY.fullmatch(key) is None:
            raise Unknown.grpc(f"key '{key}' is invalid")
        if _VALUE.fullmatch(value) is None:
            raise Unknown.grpc(f"value '{value}' is invalid")
        return Constraint(key, operator, value, expression)
    raise Unknown.grpc("constraint expected one operator from ==, !=")


def _equal(constraint: Constraint, node: Node) -> bool | None:
    """Whether the node's value is the constraint's; None when nothing can be said, which fits neither operator."""
    key, wanted = constraint.key.lower(), constraint.value.lower()
    match key:
        case "node.id":
            return node.id.lower() == wanted
        case "node.hostname":
            return node.description.hostname.lower() == wanted
        case "node.ip":
            return _address_equal(node.status.addr, wanted)
        case "node.role":
            return node.spec.role.value == wanted
        case "node.platform.os":
            return node.description.platform.os.lower() == wanted
        case "node.platform.arch":
            return normal_architecture(node.description.platform.architecture) == normal_architecture(wanted)
        case _:
            label = label_of(node, constraint.key)
            return None if label is None else label.lower() == wanted


def _address_equal(address: str, wanted: str) -> bool | None:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return None
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False

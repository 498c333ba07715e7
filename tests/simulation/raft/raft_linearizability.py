"""Whether a history of operations on registers could have happened one at a time.

The search of Wing and Gong (1993) with Lowe's memory of states seen (2017): take the operations in some order that keeps
to real time, and go back where the register's answers do not fit. Registers are independent, so each is searched alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

UNKNOWN = None
"""`returned` of an operation of which nobody knows whether, and when, it took effect."""

Value = int | None


class Kind(Enum):
    READ = "read"
    WRITE = "write"
    SWAP = "swap"
    """Writes `value` if the register holds `expected`; the result is 1 or 0."""


@dataclass(slots=True, eq=False)
class Operation:
    """One call of one client, from `invoked` to `returned`."""

    key: str
    kind: Kind
    value: Value = None
    expected: Value = None
    invoked: int = 0
    returned: int | None = UNKNOWN
    result: Value = None

    def __repr__(self) -> str:
        end = "?" if self.returned is UNKNOWN else self.returned
        return f"{self.key}.{self.kind.value}({self.expected}, {self.value}) -> {self.result} [{self.invoked}, {end}]"


def apply(state: Value, kind: Kind, value: Value, expected: Value) -> tuple[Value, Value]:
    """The register afterwards, and the operation's result."""
    match kind:
        case Kind.READ:
            return state, state
        case Kind.WRITE:
            return value, None
        case Kind.SWAP:
            return (value, 1) if state == expected else (state, 0)


def check_linearizable(history: Iterable[Operation]) -> list[Operation]:
    """The operations of a register that has no linearization; empty when all have one."""
    registers: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.returned is not UNKNOWN or operation.kind is not Kind.READ:
            registers[operation.key].append(operation)
    for operations in registers.values():
        if not _has_linearization(operations):
            return sorted(operations, key=lambda operation: operation.invoked)
    return []


class _Event:
    """A call, or the return that belongs to it, in a list from which both are lifted while the operation is taken."""

    __slots__ = ("after", "before", "bit", "operation", "returns")

    def __init__(self, operation: Operation | None, bit: int) -> None:
        self.operation = operation
        self.bit = bit
        self.returns: _Event | None = None
        self.before: _Event | None = None
        self.after: _Event | None = None

    def lift(self) -> None:
        for event in (self, self.returns):
            if event is not None:
                assert event.before is not None
                event.before.after = event.after
                if event.after is not None:
                    event.after.before = event.before

    def put_back(self) -> None:
        for event in (self.returns, self):
            if event is not None:
                assert event.before is not None
                event.before.after = event
                if event.after is not None:
                    event.after.before = event


def _events(operations: list[Operation]) -> _Event:
    timed: list[tuple[int, int, _Event]] = []
    for number, operation in enumerate(operations):
        call = _Event(operation, 1 << number)
        # At one moment calls come before returns: operations that touch are concurrent.
        timed.append((operation.invoked, 0, call))
        if operation.returned is not UNKNOWN:
            call.returns = _Event(None, 0)
            timed.append((operation.returned, 1, call.returns))
    timed.sort(key=lambda item: item[:2])
    head = previous = _Event(None, 0)
    for _, _, event in timed:
        previous.after, event.before = event, previous
        previous = event
    return head


def _has_linearization(operations: list[Operation]) -> bool:
    head = _events(operations)
    missing = sum(operation.returned is not UNKNOWN for operation in operations)
    state: Value = None
    taken = 0
    seen: set[tuple[int, Value]] = set()
    path: list[tuple[_Event, Value]] = []
    event = head.after
    while missing:
        assert event is not None
        operation = event.operation
        if operation is not None:
            after, result = apply(state, operation.kind, operation.value, operation.expected)
            fits = operation.returned is UNKNOWN or result == operation.result
            if fits and (taken | event.bit, after) not in seen:
                seen.add((taken | event.bit, after))
                path.append((event, state))
                state, taken = after, taken | event.bit
                missing -= operation.returned is not UNKNOWN
                event.lift()
                event = head.after
            else:
                event = event.after
            continue
        # A return whose call was not taken: what was taken before it cannot be right.
        if not path:
            return False
        event, state = path.pop()
        taken &= ~event.bit
        assert event.operation is not None
        missing += event.operation.returned is not UNKNOWN
        event.put_back()
        event = event.after
    return True

"""The checker itself: it must accept what could have happened, and nothing else."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from raft_linearizability import UNKNOWN, Kind, Operation, Value, apply, check_linearizable


def _write(value: int, invoked: int, returned: int | None) -> Operation:
    return Operation("a", Kind.WRITE, value, invoked=invoked, returned=returned)


def _read(result: Value, invoked: int, returned: int) -> Operation:
    return Operation("a", Kind.READ, invoked=invoked, returned=returned, result=result)


def _swap(expected: Value, value: int, result: int, invoked: int, returned: int | None) -> Operation:
    return Operation("a", Kind.SWAP, value, expected, invoked, returned, result)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [_read(None, 0, 1)],
        [_write(1, 0, 1), _read(1, 2, 3)],
        [_write(1, 0, 10), _read(None, 1, 2), _read(1, 3, 4)],
        [_write(1, 0, UNKNOWN), _read(None, 5, 6), _read(1, 7, 8)],
        [_write(1, 0, UNKNOWN), _write(2, 1, 2), _read(2, 5, 6)],
        [_swap(None, 1, 1, 0, 5), _swap(None, 2, 0, 0, 5)],
    ],
)
def test_what_could_have_happened(history: list[Operation]) -> None:
    assert check_linearizable(history) == []


@pytest.mark.parametrize(
    "history",
    [
        [_write(1, 0, 1), _read(None, 2, 3)],
        [_write(1, 0, 10), _read(1, 1, 2), _read(None, 3, 4)],
        [_write(1, 0, UNKNOWN), _read(1, 5, 6), _read(None, 7, 8)],
        [_write(1, 5, UNKNOWN), _read(1, 1, 2)],
        [_swap(None, 1, 1, 0, 5), _swap(None, 2, 1, 0, 5)],
        [_write(1, 0, 1), _write(2, 2, 3), _read(1, 4, 5)],
    ],
)
def test_what_could_not(history: list[Operation]) -> None:
    assert check_linearizable(history) != []


def test_registers_are_independent() -> None:
    other = Operation("b", Kind.READ, invoked=2, returned=3)
    assert check_linearizable([_write(1, 0, 1), other]) == []


def test_it_agrees_with_trying_every_order() -> None:
    random = Random(5)
    answers = set()
    for _ in range(300):
        history = [_random_operation(random) for _ in range(5)]
        answer = check_linearizable(history) == []
        assert answer == _any_order_fits(history)
        answers.add(answer)
    assert answers == {True, False}


def _random_operation(random: Random) -> Operation:
    invoked = random.randint(0, 8)
    returned = None if random.random() < 0.2 else invoked + random.randint(1, 6)
    kind = random.choice(list(Kind))
    result = {Kind.READ: random.choice((None, 1, 2)), Kind.WRITE: None, Kind.SWAP: random.randint(0, 1)}[kind]
    return Operation("a", kind, random.randint(1, 2), random.choice((None, 1, 2)), invoked, returned, result)


def _any_order_fits(history: list[Operation]) -> bool:
    known = [operation for operation in history if operation.returned is not UNKNOWN]
    unknown = [operation for operation in history if operation.returned is UNKNOWN and operation.kind is not Kind.READ]
    for choice in range(1 << len(unknown)):
        taken = known + [operation for bit, operation in enumerate(unknown) if choice >> bit & 1]
        if any(_fits(order) for order in permutations(taken)):
            return True
    return False


def _fits(order: tuple[Operation, ...]) -> bool:
    state: Value = None
    for position, operation in enumerate(order):
        for later in order[position + 1 :]:
            if later.returned is not UNKNOWN and later.returned < operation.invoked:
                return False
        state, result = apply(state, operation.kind, operation.value, operation.expected)
        if operation.returned is not UNKNOWN and result != operation.result:
            return False
    return True

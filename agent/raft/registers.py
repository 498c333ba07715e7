"""A state machine of named values, for those who want agreement on a few of them and no store: see `raftos`.

A change of a part of a value is one command: two members that each change another key of a dict lose nothing.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec


class _Command(msgspec.Struct, frozen=True, tag=True, array_like=True):
    name: str


class Put(_Command, frozen=True):
    """Replace the whole value."""

    value: Any


class Merge(_Command, frozen=True):
    """Set some keys of a dict."""

    items: dict[Any, Any]


class Take(_Command, frozen=True):
    """Remove a key of a dict; the result is what it held. `default` holds what to answer where there is no such key."""

    key: Any
    default: tuple[Any] | None = None


class Extend(_Command, frozen=True):
    """Put items at the end of a list."""

    items: list[Any]


Command = Put | Merge | Take | Extend


class _Proposal(msgspec.Struct, frozen=True, array_like=True):
    """`origin` and `number` tell the one who asked that this was its own."""

    origin: int
    number: int
    command: Command


class _Register(msgspec.Struct, frozen=True, array_like=True):
    name: str
    value: Any


_encode = msgspec.msgpack.Encoder().encode
_decode_proposal = msgspec.msgpack.Decoder(_Proposal).decode
_decode_register = msgspec.msgpack.Decoder(_Register).decode

Outcome = tuple[Any, Exception | None]
"""What a command gave, or why it could not be done (the same on every member)."""


class Registers:
    """`StateMachine` of values that msgpack can hold."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origin = secrets.randbits(63)
        self._next = 0
        self._outcomes: dict[int, Outcome | None] = {}

    def read(self, name: str) -> Any:
        """A copy of a value; raises KeyError."""
        return copy.deepcopy(self._values[name])

    async def run(self, command: Command, propose: Callable[[bytes], Any]) -> Any:
        """Have a command agreed on and return what it gave; raises what it raised, and what `propose` raises."""
        self._next += 1
        number = self._next
        self._outcomes[number] = None
        try:
            await propose(_encode(_Proposal(self._origin, number, command)))
        finally:
            outcome = self._outcomes.pop(number)
        if outcome is None:
            raise RuntimeError(f"{command} was applied and gave nothing")
        result, error = outcome
        if error is not None:
            raise error
        return result

    def apply(self, index: int, data: bytes) -> None:
        """See `StateMachine`."""
        proposal = _decode_proposal(data)
        outcome = self._change(proposal.command)
        if proposal.origin == self._origin and proposal.number in self._outcomes:
            self._outcomes[proposal.number] = outcome

    async def snapshot(self) -> AsyncIterator[bytes]:
        """See `StateMachine`."""
        for chunk in [_encode(_Register(name, value)) for name, value in self._values.items()]:
            yield chunk

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        """See `StateMachine`."""
        registers = [_decode_register(chunk) async for chunk in chunks]
        self._values = {register.name: register.value for register in registers}

    def _change(self, command: Command) -> Outcome:
        match command:
            case Put(name, value):
                self._values[name] = value
            case Merge(name, items):
                value = self._values.setdefault(name, {})
                if not isinstance(value, dict):
                    return None, TypeError(f"{name} is no dict")
                value.update(items)
            case Take(name, key, default):
                value = self._values.get(name, {})
                if not isinstance(value, dict):
                    return None, TypeError(f"{name} is no dict")
                if key in value:
                    return value.pop(key), None
                if default is None:
                    return None, KeyError(key)
                return default[0], None
            case Extend(name, items):
                value = self._values.setdefault(name, [])
                if not isinstance(value, list):
                    return None, TypeError(f"{name} is no list")
                value.extend(items)
        return None, None

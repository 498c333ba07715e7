"""The state machine of the simulation: registers, and a digest of all that was ever applied."""

from __future__ import annotations

import hashlib

import msgspec
from raft_linearizability import Kind, Operation, Value, apply

from agent.raft.core.messages import Entry, EntryKind


class Command(msgspec.Struct, frozen=True):
    """What an entry holds; `number` tells commands apart."""

    number: int
    key: str
    kind: Kind
    value: Value
    expected: Value

    @staticmethod
    def of(number: int, operation: Operation) -> bytes:
        return msgspec.msgpack.encode(
            Command(number, operation.key, operation.kind, operation.value, operation.expected)
        )


class _State(msgspec.Struct):
    applied: int = 0
    registers: dict[str, Value] = {}
    digest: bytes = b""


class RegisterMachine:
    def __init__(self) -> None:
        self._state = _State()

    @property
    def applied(self) -> int:
        return self._state.applied

    @property
    def digest(self) -> bytes:
        return self._state.digest

    def read(self, key: str) -> Value:
        return self._state.registers.get(key)

    def apply(self, entry: Entry) -> Value:
        state = self._state
        assert entry.index == state.applied + 1, f"entry {entry.index} applied after {state.applied}"
        state.applied = entry.index
        state.digest = hashlib.blake2b(
            state.digest + entry.term.to_bytes(8, "big") + entry.data, digest_size=8
        ).digest()
        if entry.kind != EntryKind.COMMAND:
            return None
        command = msgspec.msgpack.decode(entry.data, type=Command)
        state.registers[command.key], result = apply(
            self.read(command.key), command.kind, command.value, command.expected
        )
        return result

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._state)

    def restore(self, data: bytes) -> None:
        self._state = msgspec.msgpack.decode(data, type=_State) if data else _State()

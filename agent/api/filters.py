"""The `filters` of list requests, in both forms that clients send, and how they match (moby api/types/filters)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from agent.api_types.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Filters:
    """The values of each filter. A filter that is not there matches everything."""

    values: Mapping[str, Sequence[str]]

    def get(self, name: str) -> Sequence[str]:
        """The values of a filter, empty when it is not there."""
        return self.values.get(name, ())

    def exact(self, name: str, value: str) -> bool:
        """Whether `value` is one of those asked for."""
        wanted = self.get(name)
        return not wanted or value in wanted

    def prefix(self, name: str, value: str) -> bool:
        """Whether `value` begins with one of those asked for."""
        wanted = self.get(name)
        return not wanted or value.startswith(tuple(wanted))

    def labels(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether every `key` is there and every `key=value` has that value."""
        for wanted in self.get(name):
            key, _, value = wanted.partition("=")
            if key not in labels or (value and labels[key] != value):
                return False
        return True


def parse_filters(raw: str, accepted: Iterable[str] | None) -> Filters:
    """`{"name": {"x": true}}` or `{"name": ["x"]}`; InvalidArgument for anything else and for a filter not in `accepted`."""
    if not raw:
        return Filters({})
    try:
        parsed = msgspec.json.decode(raw, type=dict[str, dict[str, bool] | list[str] | None])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid filter: {error}") from None
    known = frozenset(parsed if accepted is None else accepted)
    for name in parsed:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")
    return Filters({name: tuple(values) for name, values in parsed.items() if values})

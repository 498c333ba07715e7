"""Sets of whole numbers as runs, so that a subnet of 16 million addresses costs as much as one of two hundred."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Intervals:
    """A set of integers, kept as sorted runs that neither touch nor overlap."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, *runs: tuple[int, int]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in runs:
            self.add(first, last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The runs, first and last number of each, lowest first."""
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def add(self, first: int, last: int) -> None:
        """Put the numbers from `first` to `last` in, both included; those that are in already stay."""
        if first > last:
            raise ValueError(f"a run from {first} to {last}")
        # Every run that overlaps or touches the new one becomes part of it.
        begin = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first = min(first, self._firsts[begin])
            last = max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]

    def remove(self, first: int, last: int) -> None:
        """Take the numbers from `first` to `last` out, both included, as far as they are in."""
        if first > last:
            raise ValueError(f"a run from {first} to {last}")
        begin = bisect_left(self._lasts, first)
        end = bisect_right(self._firsts, last)
        if begin >= end:
            return
        left = [(self._firsts[begin], first - 1)] if self._firsts[begin] < first else []
        right = [(last + 1, self._lasts[end - 1])] if self._lasts[end - 1] > last else []
        rest = left + right
        self._firsts[begin:end] = [each[0] for each in rest]
        self._lasts[begin:end] = [each[1] for each in rest]

    def next(self, number: int) -> int | None:
        """The lowest number of the set that is `number` or above; None when there is none."""
        at = bisect_left(self._lasts, number)
        return None if at == len(self._lasts) else max(number, self._firsts[at])

    def run_within(self, first: int, last: int) -> tuple[int, int] | None:
        """The whole of the first run that has a number between the two; None when there is none."""
        at = bisect_left(self._lasts, first)
        return None if at == len(self._lasts) or self._firsts[at] > last else (self._firsts[at], self._lasts[at])

    def between(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The runs of the set within `first` to `last`, cut to it."""
        for at in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
            yield max(first, self._firsts[at]), min(last, self._lasts[at])

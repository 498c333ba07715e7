"""The rows behind a table: keyed by id, filtered, sorted, kept in order as differences arrive. Knows nothing of screens.

Differences are folded in without sorting anew: rows that moved are appended and the nearly sorted list is sorted again,
which costs one pass. 50,000 rows take tens of milliseconds to load, 1000 changes a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Generic

from swarmtui.ui.columns import Column, R
from swarmtui.ui.filtering import RowFilter
from swarmtui.ui.text import natural_key

NO_LABELS: Mapping[str, str] = {}


class TableRows(Generic[R]):
    """All rows by id, and `order`: the ids that pass the filter, sorted."""

    def __init__(self, columns: Sequence[Column[R]], labels: Callable[[R], Mapping[str, str]] | None = None) -> None:
        self.columns = tuple(columns)
        """Every column, shown or not: all of them are searched."""
        self.rows: dict[str, R] = {}
        """Every row, shown or not."""
        self.order: list[str] = []
        """The ids to show, from the top."""
        self.marked: set[str] = set()
        """Ids marked for an action on several."""
        self.filter = RowFilter("")
        """The filter in force."""
        self.sort_column: Column[R] = self.columns[0]
        """The column that gives the order; ties follow the first column."""
        self.descending = False
        """Largest first."""
        self.keep: Callable[[R], bool] | None = None
        """Rows that are shown at all, whatever the filter; None for every row. Set by `set_keep`."""
        # Ages are not searched: they are other ones every second.
        self._searched = tuple(column for column in columns if not column.live)
        self._labels = labels
        self._keys: dict[str, Any] = {}
        self._ties: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._shown: set[str] = set()

    def index_of(self, row_id: str | None) -> int | None:
        """Where the row stands in `order`; None when it is gone or filtered out."""
        if row_id is None or row_id not in self._keys or (not self._everything and row_id not in self._shown):
            return None
        return self.order.index(row_id)

    def apply(self, changed: Mapping[str, R], removed: Iterable[str]) -> bool:
        """Folds in rows that are new or different, and ids that are gone; True when `order` is another than before."""
        gone = {row_id for row_id in removed if row_id not in changed and self._drop(row_id)}
        moved: set[str] = set()
        joined: list[str] = []
        self.rows.update(changed)
        if not self._keys and changed:
            return self._load()
        key_of, keys, texts = self._key_function(changed), self._keys, self._texts
        everything = self._everything
        for row_id, row in changed.items():
            key = key_of(row_id, row)
            old = keys.get(row_id, _ABSENT)
            keys[row_id] = key
            if texts:
                texts.pop(row_id, None)
            if everything:
                if old is _ABSENT:
                    joined.append(row_id)
                elif old != key:
                    moved.add(row_id)
                continue
            was, now = row_id in self._shown, self._passes(row_id, row)
            if was and not now:
                self._shown.discard(row_id)
                gone.add(row_id)
            elif now and not was:
                self._shown.add(row_id)
                joined.append(row_id)
            elif now and old != key:
                moved.add(row_id)
        if not (gone or moved or joined):
            return False
        if gone or moved:
            self.order = [row_id for row_id in self.order if row_id not in gone and row_id not in moved]
        self.order.extend(joined)
        self.order.extend(row_id for row_id in changed if row_id in moved)
        self.order.sort(key=keys.__getitem__, reverse=self.descending)
        return True

    def replace(self, rows: Mapping[str, R]) -> bool:
        """Makes `rows` all there is; True when `order` changed. Marks of rows that remain are kept."""
        return self.apply(rows, [row_id for row_id in self.rows if row_id not in rows])

    def set_filter(self, text: str) -> str:
        """Shows only what passes; returns why a term was not understood, or an empty text."""
        self.filter = RowFilter(text)
        self._select()
        return self.filter.problem

    def set_keep(self, keep: Callable[[R], bool] | None) -> None:
        """Shows only rows for which `keep` is true, before any filter: history, for one, is asked for."""
        self.keep = keep
        self._select()

    @property
    def kept_count(self) -> int:
        """Rows that `keep` lets through, filtered out or not."""
        if self.keep is None or self.filter.empty:
            return len(self.rows) if self.keep is None else len(self.order)
        return sum(map(self.keep, self.rows.values()))

    @property
    def _everything(self) -> bool:
        return self.keep is None and self.filter.empty

    def sort_by(self, column: Column[R], *, descending: bool) -> None:
        """Orders by `column`."""
        self.sort_column, self.descending = column, descending
        self._load()

    def toggle_mark(self, row_id: str) -> None:
        """Marks the row, or takes the mark away."""
        self.marked.symmetric_difference_update((row_id,))

    def _select(self) -> None:
        if self._everything:
            self._shown, self.order = set(), list(self.rows)
        else:
            passes = self._passes
            self.order = [row_id for row_id, row in self.rows.items() if passes(row_id, row)]
            self._shown = set(self.order)
        self.order.sort(key=self._keys.__getitem__, reverse=self.descending)

    def _load(self) -> bool:
        key_of = self._key_function({})
        self._keys = {row_id: key_of(row_id, row) for row_id, row in self.rows.items()}
        self._select()
        return True

    def _key_function(self, changed: Mapping[str, R]) -> Callable[[str, R], Any]:
        """The key of a row in the order in force; rows of `changed` may have another name than before."""
        main, tie, ties = self.sort_column, self.columns[0], self._ties
        if ties:
            for row_id in changed:
                ties.pop(row_id, None)
        if main is tie:
            if main.sort is None:
                text_of = main.text
                return lambda _, row: natural_key(text_of(row))
            return lambda _, row: tie.sort_key(row)
        # Few distinct values are the rule here (states, nodes, images), so each is worked out once.
        known: dict[str, Any] = {}

        def key(row_id: str, row: R) -> tuple[Any, Any]:
            second = ties.get(row_id)
            if second is None:
                second = ties[row_id] = tie.sort_key(row)
            if main.sort is not None:
                return main.sort(row), second
            text = main.text(row)
            first = known.get(text)
            if first is None:
                first = known[text] = natural_key(text)
            return first, second

        return key

    def _passes(self, row_id: str, row: R) -> bool:
        if self.keep is not None and not self.keep(row):
            return False
        if self.filter.empty:
            return True
        text = self._texts.get(row_id)
        if text is None:
            text = self._searchable(row_id, row)
        return self.filter.matches(text, self._labels(row) if self._labels is not None else NO_LABELS)

    def prepare(self, budget: int = 3000) -> bool:
        """Makes the searchable text of up to `budget` more rows; True when all have one. For before a filter is typed."""
        missing = islice((row_id for row_id in self.rows if row_id not in self._texts), budget)
        for row_id in list(missing):
            self._searchable(row_id, self.rows[row_id])
        return len(self._texts) == len(self.rows)

    def _searchable(self, row_id: str, row: R) -> str:
        text = self._texts[row_id] = "\n".join([column.text(row) for column in self._searched])
        return text

    def _drop(self, row_id: str) -> bool:
        """Forgets a row; whether it was shown."""
        if self.rows.pop(row_id, None) is None:
            return False
        del self._keys[row_id]
        self._ties.pop(row_id, None)
        self._texts.pop(row_id, None)
        self.marked.discard(row_id)
        if self._everything:
            return True
        if row_id in self._shown:
            self._shown.discard(row_id)
            return True
        return False


_ABSENT = object()

"""What is typed after `/`, as a predicate on rows.

Terms are separated by blanks and all must hold: `web` a regular expression, `!web` its opposite, `~wb` letters in this
order, `label=zone` or `label=zone=a` a label. Small letters match either case, a capital makes the term exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
_ESCAPED = re.compile(r"\\.")


class RowFilter:
    """A parsed filter. `matches` takes a row's searchable text (cells joined with line feeds) and its labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        """The filter as typed."""
        self.problem = ""
        """Why a term was taken literally, empty when all were understood."""
        self._tests: list[tuple[Callable[[str], object], bool]] = []
        self._labels: list[tuple[str, str | None, bool]] = []
        for term in text.split():
            self._add(term)

    @property
    def empty(self) -> bool:
        """True when every row passes."""
        return not self._tests and not self._labels

    def _add(self, term: str) -> None:
        inverted = term.startswith("!")
        term = term[1:] if inverted else term
        if not term:
            return
        if term.startswith("label="):
            key, _, value = term.removeprefix("label=").partition("=")
            if key:
                self._labels.append((key, value if "=" in term.removeprefix("label=") else None, inverted))
            return
        if term.startswith("~"):
            if letters := term[1:].lower():
                pattern = re.compile(".*?".join(map(re.escape, letters)))
                self._tests.append((lambda text: pattern.search(text.lower()), inverted))
            return
        self._tests.append((self._matcher(term), inverted))

    def _matcher(self, term: str) -> Callable[[str], object]:
        # A capital after a backslash is a class (\S), not a letter to be matched.
        exact = any(letter.isupper() for letter in _ESCAPED.sub("", term))
        if not _SPECIAL.search(term):
            return (lambda text: term in text) if exact else (lambda text: term in text.lower())
        try:
            pattern = re.compile(term, re.MULTILINE)
        except (re.error, OverflowError, RecursionError) as error:
            self.problem = f"{term!r} is not a regular expression ({error}), taken literally"
            return (lambda text: term in text) if exact else (lambda text: term in text.lower())
        return pattern.search if exact else (lambda text: pattern.search(text.lower()))

    def matches(self, text: str, labels: Mapping[str, str]) -> bool:
        """Whether a row passes every term."""
        for test, inverted in self._tests:
            if bool(test(text)) is inverted:
                return False
        for key, value, inverted in self._labels:
            found = key in labels and (value is None or labels[key] == value)
            if found is inverted:
                return False
        return True

"""Text from elsewhere: nothing that a terminal obeys gets through, and every cell is accounted for."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from swarmtui.ui.text import age, countdown, fitted, natural_key, safe

any_text = st.text(st.characters(codec=None, categories=None))


@given(any_text)
def test_no_control_or_format_character_survives(text: str) -> None:
    out = safe(text)
    assert len(out) == len(text)
    for letter in out:
        assert unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp")
        assert letter not in "\u202e\u2066\u200f\u061c\ufeff\u200b"


def test_escape_is_shown_instead_of_obeyed() -> None:
    assert safe("a\x1b[31mred\x07\x9b2J") == "a␛[31mred␇�2J"


@given(any_text, st.integers(0, 60), st.booleans())
def test_fitted_takes_exactly_its_cells(text: str, width: int, right: bool) -> None:
    assert cell_len(fitted(text, width, right=right)) == width


def test_fitted_cuts_with_a_sign_and_pads() -> None:
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("ab", 4, right=True) == "  ab"
    assert fitted("語語語", 4) == "語 …"


@given(st.lists(st.integers(0, 10**30), min_size=2))
def test_natural_key_orders_numbers_as_numbers(numbers: list[int]) -> None:
    names = [f"web.{number}" for number in numbers]
    assert [int(name[4:]) for name in sorted(names, key=natural_key)] == sorted(numbers)


def test_natural_key_inside_a_name() -> None:
    assert sorted(["n10-a2", "N2-b", "n10-a10", "n2-a", "n"], key=natural_key) == [
        "n",
        "n2-a",
        "N2-b",
        "n10-a2",
        "n10-a10",
    ]


def test_ages_and_countdown() -> None:
    assert [age(s) for s in (-3, 0, 59.9, 60, 3599, 7200, 86400 * 9)] == ["0s", "0s", "59s", "1m", "59m", "2h", "9d"]
    assert countdown(3 * 3600 + 57 * 60 + 41.2) == "03:57:41"
    assert countdown(-1) == "00:00:00"

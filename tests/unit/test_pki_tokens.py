"""Join tokens and unlock keys: their form, what is refused, and that no error shows a secret."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api_types.identity import base36
from agent.api_types.node import NodeRole
from agent.pki.tokens import InvalidJoinToken, join_token, make_secret, parse_token, role_of_secret
from agent.pki.unlock import InvalidUnlockKey, format_unlock_key, make_unlock_key, parse_unlock_key

digests = st.binary(min_size=32, max_size=32)


def test_the_form_is_docker_swarms() -> None:
    token = join_token(b"\xff" * 32, make_secret())
    assert re.fullmatch("SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", token)
    assert join_token(b"\x00" * 31 + b"\x23", "0" * 25) == "SWMTKN-1-" + "0" * 49 + "z-" + "0" * 25
    assert make_secret() != make_secret()


@given(digests, st.integers(0, (1 << 128) - 1))
def test_a_token_is_read_back(digest: bytes, number: int) -> None:
    secret = base36(number, 25)
    assert parse_token(join_token(digest, secret)) == (digest, secret)
    assert parse_token(f"  {join_token(digest, secret)}\n") == (digest, secret)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidJoinToken, match=r"^invalid join token$"):
        parse_token(text)


@given(digests, st.integers(0, 84), st.text(min_size=1, max_size=1))
def test_a_changed_token_is_another_or_none(digest: bytes, place: int, character: str) -> None:
    token = join_token(digest, "0123456789abcdefghijklmno")
    changed = token[:place] + character + token[place + 1 :]
    with contextlib.suppress(InvalidJoinToken):
        assert changed.strip() == token or parse_token(changed) != parse_token(token)


@pytest.mark.parametrize(
    "text",
    [
        "SWMTKN-1-bad",
        "SWMTKN-2-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "z" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "z" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "0" * 26,
        "swmtkn-1-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "٠" * 50 + "-" + "0" * 25,
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(InvalidJoinToken):
        parse_token(text)


def test_a_secret_admits_to_its_role_alone() -> None:
    worker, manager = make_secret(), make_secret()
    assert role_of_secret(worker, worker_secret=worker, manager_secret=manager) is NodeRole.WORKER
    assert role_of_secret(manager, worker_secret=worker, manager_secret=manager) is NodeRole.MANAGER
    # Rotated: the old one admits nobody.
    with pytest.raises(InvalidJoinToken):
        role_of_secret(worker, worker_secret=make_secret(), manager_secret=manager)
    # Secrets that are not set yet admit nobody either.
    with pytest.raises(InvalidJoinToken):
        role_of_secret("", worker_secret="", manager_secret="")
    with pytest.raises(InvalidJoinToken):
        role_of_secret("ü", worker_secret=worker, manager_secret=manager)


@given(st.binary(min_size=32, max_size=32))
def test_an_unlock_key_is_read_back(key: bytes) -> None:
    text = format_unlock_key(key)
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", text)
    assert parse_unlock_key(text) == key


@given(st.text())
def test_other_texts_are_no_unlock_key(text: str) -> None:
    with pytest.raises(InvalidUnlockKey) as caught:
        parse_unlock_key(text)
    assert str(caught.value) == "invalid unlock key: it has the form SWMKEY-1- and 43 letters and digits"


def test_unlock_keys_differ() -> None:
    assert make_unlock_key() != make_unlock_key()

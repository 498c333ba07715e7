"""What integration tests share: a Docker Engine of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine import PrivateEngine, private_engine


@pytest.fixture(scope="session")
def session_engine() -> Iterator[PrivateEngine]:
    """One engine for the whole session: starting one takes seconds."""
    with private_engine() as engine:
        yield engine


@pytest.fixture
def engine(session_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The session's engine, without containers before and after."""
    session_engine.clean()
    yield session_engine
    session_engine.clean()

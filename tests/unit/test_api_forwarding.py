"""A manager that does not lead: what it answers itself, what the leader answers, and what becomes of a lost leader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_managers import Managers, managers
from api_scripted import service_body


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


async def test_a_write_through_a_follower_is_seen_by_a_read_through_it(group: Managers) -> None:
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert status == 201
    status, shown = await group.clients["h2"].call("GET", "/services/web")
    assert (status, shown["ID"]) == (200, answer["ID"])

"""Running one story in a world of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from virtual_time import VirtualLoop, run_virtual
from world import World

Story = Callable[[World], Awaitable[None]]


def simulate(story: Story, seed: int = 1, **options: Any) -> None:
    """Run `story` in a small cluster whose nodes are all ready; invariants are checked at every commit."""

    async def main() -> None:
        async with World(seed, **options) as world:
            await story(world)

    run_virtual(main(), VirtualLoop())

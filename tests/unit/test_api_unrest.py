"""Writers at every manager while links break at random and the leadership wanders: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from api_broken_links import broken, refused, store_of
from api_managers import Link, ManagerBackend, Managers, dial, managers
from api_scripted import service_body

from agent.api_types.service import Service


def unreliable(chance: random.Random) -> object:
    """A way to the leader of which every third fails somehow."""

    async def way(backend: ManagerBackend, caller: str) -> Link:
        match chance.randrange(9):
            case 0:
                return await refused(1)(backend, caller)
            case 1:
                return await broken(1, deliver=False)(backend, caller)
            case 2:
                return await broken(1, deliver=True, keep=chance.choice((0, 30, 120)))(backend, caller)
            case _:
                return await dial(backend, caller)

    return way


class Counter:
    """Raises the number in a service's label as long as it lasts; what was acknowledged, and what nobody knows.

    Every update is one of its kind: of two that ask for the same state one may be taken for the other's repeat.
    """

    def __init__(self, group: Managers, chance: random.Random) -> None:
        self.group, self.chance = group, chance
        self.acknowledged = self.unknown = self.asked = 0

    async def count(self, times: int) -> None:
        while times:
            client = self.group.clients[self.chance.choice(self.group.names)]
            _, service = await client.call("GET", "/services/web")
            number = int(service["Spec"]["Labels"]["n"])
            target = f"/services/web/update?version={service['Version']['Index']}"
            self.asked += 1
            labels = {"n": str(number + 1), "update": str(self.asked)}
            status, answer = await client.call("POST", target, service_body(Labels=labels))
            if status == 500:
                # Another one was faster; nothing was changed.
                assert "update out of sequence" in answer["message"]
                continue
            assert status in (200, 503), answer
            times -= 1
            self.acknowledged += status == 200
            self.unknown += status == 503


async def wander(group: Managers, chance: random.Random) -> None:
    """Another manager leads every now and then."""
    while True:
        await asyncio.sleep(chance.uniform(0.01, 0.06))
        group.elect(chance.choice(group.names))


@pytest.mark.parametrize("seed", range(4))
async def test_every_acknowledged_update_is_there_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with managers(tmp_path, 3) as group:
        await group.clients["h1"].call("POST", "/services/create", service_body(Labels={"n": "0"}))
        for backend in group.backends.values():
            backend.way = unreliable(chance)  # type: ignore[assignment]
        counter = Counter(group, chance)
        wandering = asyncio.create_task(wander(group, chance))
        async with asyncio.timeout(50):
            await asyncio.gather(*[counter.count(15) for _ in range(3)])
        wandering.cancel()
        await asyncio.gather(wandering, return_exceptions=True)
        group.log.catch_up()
        service = store_of(group, "h1").view(lambda tx: tx.by_name(Service, "web"))
    assert service is not None
    counted = int(service.spec.labels["n"])
    assert counter.acknowledged <= counted <= counter.acknowledged + counter.unknown
    assert counter.acknowledged > 20


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_made_and_removed_at_random_is_there_as_acknowledged(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    there: set[str] = set()
    unsure: set[str] = set()

    async def live(group: Managers, number: int) -> None:
        for round_ in range(6):
            client, name = group.clients[chance.choice(group.names)], f"s{number}-{round_}"
            status, _ = await client.call("POST", "/secrets/create", {"Name": name, "Data": "QQ=="})
            assert status in (201, 503)
            (there if status == 201 else unsure).add(name)
            if status == 201 and chance.random() < 0.6:
                status, _ = await client.call("DELETE", f"/secrets/{name}")
                assert status in (204, 503)
                there.discard(name)
                if status == 503:
                    unsure.add(name)

    async with managers(tmp_path, 3) as group:
        for backend in group.backends.values():
            backend.way = unreliable(chance)  # type: ignore[assignment]
        wandering = asyncio.create_task(wander(group, chance))
        async with asyncio.timeout(50):
            await asyncio.gather(*[live(group, number) for number in range(8)])
        wandering.cancel()
        await asyncio.gather(wandering, return_exceptions=True)
        for backend in group.backends.values():
            backend.way = None
        _, listed = await group.clients["h2"].call("GET", "/secrets")
    names = [secret["Spec"]["Name"] for secret in listed]
    assert len(names) == len(set(names))
    assert there <= set(names) <= there | unsure
    assert len(unsure) < 24

"""The store over the group: who may write, what a refused transaction takes along, calls that are given up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from raft_driver_network import TICK, Network, Plain, when

from agent.api_types.service import Service, ServiceSpec
from agent.raft.core.settings import Settings
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.raft.member import RaftMember
from agent.store.entries import encode_entry
from agent.store.store import BrokenOrder, Store
from agent.store.transactions import Change, WriteTx


class Stores:
    """Members whose machine is a store."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        self.network = Network()
        self.settings = settings or Settings()
        self.stores: dict[str, Store] = {}
        self.members: dict[str, RaftMember] = {}

    async def __aenter__(self) -> Stores:
        for name in "abc":
            store = Store()
            member = RaftMember(
                self.folder / name,
                store,
                Plain(),
                name,
                self.network.wire(name, f"{name}:1"),
                address=f"{name}:1",
                founding=name == "a",
                tick=TICK,
                settings=self.settings,
            )
            self.stores[name], self.members[name] = store, await member.__aenter__()
            store.connect(member)
            if name != "a":
                await self.members["a"].add_learner(name, f"{name}:1")
                await when(self.members["a"], lambda status, name=name: _has_all(status, name))  # type: ignore[misc]
                await self.members["a"].promote(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            await member.__aexit__(None, None, None)

    async def leader(self, names: str) -> str:
        waits = {asyncio.create_task(when(self.members[n], lambda status: status.leading)): n for n in names}
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        return waits[done.pop()]


def _has_all(status, name: str) -> bool:  # type: ignore[no-untyped-def]
    return any(member.id == name and member.match >= status.last_index for member in status.members)


def create(name: str):  # type: ignore[no-untyped-def]
    return lambda tx: tx.create(Service(id=name, spec=ServiceSpec(name=name)))


def names(store: Store) -> list[str]:
    return [service.spec.name for service in store.view(lambda tx: tx.all(Service))]


async def test_a_follower_refuses_before_it_runs_anything(tmp_path: Path) -> None:
    async with Stores(tmp_path) as stores:
        with pytest.raises(NotLeader):
            await stores.stores["b"].update(lambda tx: pytest.fail("it ran"))
        await stores.stores["a"].update(create("one"))
        assert await stores.stores["b"].barrier() > 0
        assert names(stores.stores["b"]) == ["one"]


async def test_what_was_made_after_a_refused_transaction_is_refused_too(tmp_path: Path) -> None:
    """A transaction that is too large just now is refused; the small one behind it was made on top of it."""
    async with Stores(tmp_path, Settings(max_uncommitted_bytes=20_000)) as stores:
        store = stores.stores["a"]
        big = "x" * 15_000

        def large(tx: WriteTx) -> None:
            tx.create(Service(id="second", spec=ServiceSpec(name="second", labels={"big": big})))

        def on_top(tx: WriteTx) -> None:
            second = tx.get(Service, "second")
            assert second is not None
            tx.create(Service(id="third", spec=ServiceSpec(name=f"after {second.spec.name}")))

        def first(tx: WriteTx) -> None:
            tx.create(Service(id="first", spec=ServiceSpec(name="first", labels={"big": big})))

        tasks = [asyncio.create_task(store.update(change)) for change in (first, large, on_top)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], int)
        assert [type(result) for result in results[1:]] == [NotLeader, NotLeader]
        await store.update(create("fourth"))
        assert names(store) == ["first", "fourth"]
        await stores.stores["b"].barrier()
        assert names(stores.stores["b"]) == ["first", "fourth"]


async def test_a_lost_leader_takes_its_overlay_along(tmp_path: Path) -> None:
    async with Stores(tmp_path) as stores:
        stores.network.cut("a", off="bc")
        lost = asyncio.create_task(stores.stores["a"].update(create("lost")))
        second = await stores.leader("bc")
        await stores.stores[second].update(create("kept"))
        stores.network.heal()
        with pytest.raises((NotLeader, OutcomeUnknown)):
            await lost
        await stores.members[second].transfer_leadership("a")
        await stores.leader("a")
        await stores.stores["a"].update(create("lost"))
        assert names(stores.stores["a"]) == ["kept", "lost"]


async def test_giving_up_a_call_takes_nothing_back(tmp_path: Path) -> None:
    async with Stores(tmp_path) as stores:
        store, member = stores.stores["a"], stores.members["a"]
        for n in range(30):
            tasks = [
                asyncio.create_task(store.update(create(f"{n}"))),
                asyncio.create_task(member.read_index()),
                asyncio.create_task(store.barrier()),
                asyncio.create_task(member.move("b", f"b:{n % 2}")),
                asyncio.create_task(member.status_changed(member.status)),
            ]
            for _ in range(n % 7):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await store.update(create("last"))
        assert "last" in names(store)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await member.transfer_leadership("nobody")
        assert await member.read_index() > 0


async def test_leaving_while_entering_is_cancelled_frees_the_folder(tmp_path: Path) -> None:
    network = Network()

    async def enter() -> None:
        async with RaftMember(
            tmp_path / "a", Store(), Plain(), "a", network.wire("a", "a:1"), address="a:1", founding=True, tick=TICK
        ):
            raise AssertionError

    for turns in range(0, 60, 3):
        task = asyncio.create_task(enter())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, AssertionError)):
            await task
    async with RaftMember(
        tmp_path / "a", Store(), Plain(), "a", network.wire("a", "a:1"), address="a:1", founding=True, tick=TICK
    ) as member:
        assert member.leading


async def test_a_busy_main_loop_delays_no_heartbeat(tmp_path: Path) -> None:
    """Pure Python that never lets the loop go, for longer than three elections."""
    async with Stores(tmp_path) as stores:
        term = stores.members["a"].status.term
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.2
        count = 0
        while loop.time() < end:
            count += 1
        await stores.stores["a"].update(create("after"))
        assert stores.members["a"].status.term == term
        assert stores.members["a"].leading


async def test_applying_in_another_order_than_made_is_found_out() -> None:
    class Held:
        leading = True

        def __init__(self) -> None:
            self.data: list[bytes] = []

        def propose(self, data: bytes) -> asyncio.Future[int]:
            self.data.append(data)
            return asyncio.get_running_loop().create_future()

        async def read_index(self) -> int:
            return 0

    held, store = Held(), Store()
    store.connect(held)
    tasks = [asyncio.create_task(store.update(create(name))) for name in ("one", "two")]
    await asyncio.sleep(0)
    with pytest.raises(BrokenOrder):
        store.apply(1, held.data[1])
    service = Service(id="x", spec=ServiceSpec(name="x"))
    store.apply(1, encode_entry(1, [Change(Service, "x", service)]))
    store.apply(2, held.data[0])
    store.apply(3, held.data[1])
    assert names(store) == ["x", "one", "two"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

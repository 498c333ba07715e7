"""The store: transactions see each other, stale writes fail, watchers get every commit once and in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_driver_network import Plain, Unconnected

from agent.api_types.errors import OutOfSequence
from agent.api_types.node import Node
from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import Task, TaskState
from agent.raft.member import RaftMember
from agent.store.store import Store
from agent.store.tables import UNCOMMITTED
from agent.store.transactions import MAX_CHANGES, TooManyChanges, WriteTx
from agent.store.watching import HISTORY, EventKind, IndexGone, WatchOverflow

replace = msgspec.structs.replace


def service(name: str) -> Service:
    return Service(id=name, spec=ServiceSpec(name=name), spec_version=UNCOMMITTED)


async def create(store: Store, *objects: Service | Task | Node) -> int:
    def fn(tx: WriteTx) -> None:
        for obj in objects:
            tx.create(obj)

    return await store.update(fn)


async def test_versions_are_the_index_of_the_entry() -> None:
    store = Store.in_memory()
    first = await create(store, service("a"))
    second = await create(store, service("b"))
    a = store.view(lambda tx: tx.get(Service, "a"))
    assert a is not None
    assert (a.version.index, a.spec_version.index if a.spec_version else None, second) == (first, first, first + 1)
    await store.update(lambda tx: tx.update(a) and None)
    changed = store.view(lambda tx: tx.get(Service, "a"))
    assert changed is not None
    assert changed.version.index == second + 1
    assert changed.spec_version == a.spec_version


async def test_stale_version_is_out_of_sequence_also_against_pending_changes() -> None:
    store = Store.in_memory()
    await create(store, service("a"))
    a = store.view(lambda tx: tx.get(Service, "a"))
    assert a is not None
    results = await asyncio.gather(
        *(store.update(lambda tx: tx.update(a) and None) for _ in range(3)), return_exceptions=True
    )
    assert isinstance(results[0], int)
    assert all(isinstance(result, OutOfSequence) for result in results[1:])


async def test_transactions_see_pending_ones_and_readers_do_not() -> None:
    store = Store.in_memory()
    seen: list[int] = []

    def add(tx: WriteTx) -> None:
        seen.append(tx.count(Service))
        tx.create(service(f"s{tx.count(Service)}"))

    tasks = [asyncio.ensure_future(store.update(add)) for _ in range(5)]
    await asyncio.sleep(0)
    assert store.view(lambda tx: tx.count(Service)) < 5
    await asyncio.gather(*tasks)
    assert seen == [0, 1, 2, 3, 4]
    assert [s.id for s in store.view(lambda tx: tx.all(Service))] == ["s0", "s1", "s2", "s3", "s4"]


async def test_a_transaction_that_raises_writes_nothing() -> None:
    store = Store.in_memory()

    def broken(tx: WriteTx) -> None:
        tx.create(service("a"))
        raise KeyError("no")

    with pytest.raises(KeyError):
        await store.update(broken)
    assert await store.update(lambda tx: None) == 0
    assert store.view(lambda tx: tx.count(Service)) == 0


async def test_too_many_changes_are_refused() -> None:
    store = Store.in_memory()
    with pytest.raises(TooManyChanges):
        await create(store, *(service(f"s{n}") for n in range(MAX_CHANGES + 1)))
    await create(store, *(service(f"s{n}") for n in range(MAX_CHANGES)))


async def test_indexes_follow_updates_and_removals() -> None:
    store = Store.in_memory()
    await create(store, Task(id="t", service_id="s", slot=1))
    task = store.view(lambda tx: tx.find(Task, "slot", "s.1"))[0]
    await store.update(lambda tx: tx.update(replace(task, node_id="n", desired_state=TaskState.RUNNING)) and None)
    assert [t.id for t in store.view(lambda tx: tx.find(Task, "node", "n"))] == ["t"]

    def move(tx: WriteTx) -> None:
        (found,) = tx.find(Task, "node", "n")
        tx.update(replace(found, node_id="m"))
        assert tx.find(Task, "node", "n") == []
        assert [t.id for t in tx.find(Task, "node", "m")] == ["t"]

    await store.update(move)
    assert store.view(lambda tx: tx.find(Task, "node", "n")) == []
    await store.update(lambda tx: tx.delete(Task, "t"))
    assert store.view(lambda tx: (tx.find(Task, "node", "m"), tx.find(Task, "service", "s"))) == ([], [])


async def test_watch_delivers_each_commit_once_in_order_and_resumes() -> None:
    store = Store.in_memory()
    with store.watch(Service) as watch:
        await create(store, service("a"))
        await create(store, Node(id="n"))
        await store.update(lambda tx: tx.delete(Service, "a"))
        created, removed = watch.drain()
        assert [event.kind for commit in (created, removed) for event in commit.events] == ["create", "remove"]
        with store.watch(since=created.index) as later:
            assert [commit.index for commit in later.drain()] == [created.index + 1, removed.index]
        assert removed.events[0].kind is EventKind.REMOVE


async def test_watch_ends_when_closed_while_waiting() -> None:
    store = Store.in_memory()
    watch = store.watch()
    reading = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    watch.close()
    assert await reading is None


async def test_slow_reader_is_cut_off_and_old_index_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.watching.READER_LIMIT", 10)
    store = Store.in_memory()
    slow = store.watch()
    for n in range(HISTORY + 2):
        await create(store, service(f"s{n}"))
    with pytest.raises(WatchOverflow):
        await anext(slow)
    with pytest.raises(IndexGone):
        store.watch(since=1)
    store.watch(since=2)


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.sampled_from(["put", "del"]), st.sampled_from(["n1", "n2", ""])),
            min_size=1,
            max_size=4,
        ),
        max_size=15,
    )
)
def test_state_is_the_same_after_replay_of_the_log(plan: list[list[tuple[str, str, str]]]) -> None:
    async def run() -> None:
        log: list[tuple[int, bytes]] = []
        store = Store.in_memory()
        apply = store.apply
        store.apply = lambda index, data: (log.append((index, data)), apply(index, data))[1]  # type: ignore[method-assign]

        def transaction(steps: list[tuple[str, str, str]], tx: WriteTx) -> None:
            for task_id, action, node in steps:
                stored = tx.get(Task, task_id)
                if action == "del":
                    tx.delete(Task, task_id)
                elif stored is None:
                    tx.create(Task(id=task_id, node_id=node, service_id="s", slot=1))
                else:
                    tx.update(replace(stored, node_id=node))

        await asyncio.gather(*(store.update(lambda tx, s=steps: transaction(s, tx)) for steps in plan))
        replayed = Store()
        for index, data in log:
            replayed.apply(index, data)

        def picture(tx: object) -> object:
            return (
                sorted(tx.all(Task), key=lambda t: t.id),  # type: ignore[attr-defined]
                {n: sorted(t.id for t in tx.find(Task, "node", n)) for n in ("n1", "n2")},  # type: ignore[attr-defined]
            )

        assert replayed.view(picture) == store.view(picture)
        snapshot = [chunk async for chunk in store.snapshot()]
        restored = Store()

        async def chunks():  # type: ignore[no-untyped-def]
            for chunk in snapshot:
                yield chunk

        await restored.restore(store.index, chunks())
        assert restored.view(picture) == store.view(picture)

    asyncio.run(run())


def alone(folder: Path, store: Store) -> RaftMember:
    return RaftMember(folder, store, Plain(), "me", Unconnected(), address="me:1", founding=True, snapshot_interval=50)


async def test_store_on_the_durable_log_comes_back(tmp_path: Path) -> None:
    store = Store()
    async with alone(tmp_path, store) as member:
        store.connect(member)
        await asyncio.gather(*(create(store, service(f"s{n}")) for n in range(120)))
        before = {s.id: s.version.index for s in store.view(lambda tx: tx.all(Service))}
    again = Store()
    async with alone(tmp_path, again) as member:
        again.connect(member)
        assert {s.id: s.version.index for s in again.view(lambda tx: tx.all(Service))} == before
        assert await create(again, service("new")) > max(before.values())

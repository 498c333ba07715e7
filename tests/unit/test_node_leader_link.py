"""Exchanges with the leader's API: over real connections, with a group that is told what to say."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rpc_cluster import TestCluster, listening, until

from agent.api_types.errors import Unavailable
from agent.api_types.node import NodeRole
from agent.api_types.times import SECOND, now_ns
from agent.node.api_exchange import ApiExchange
from agent.node.leader_link import LeaderLink
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus


class ToldGroup:
    """A group whose status a test sets."""

    def __init__(self, status: GroupStatus) -> None:
        self.status = status
        self._changed = asyncio.Condition()

    async def tell(self, status: GroupStatus) -> None:
        self.status = status
        async with self._changed:
            self._changed.notify_all()

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        async with self._changed:
            await self._changed.wait_for(lambda: self.status != seen)
        return self.status


def status(member: str, leader: str, addresses: dict[str, str], *, term: int = 5, leading: bool = False) -> GroupStatus:
    members = tuple(MemberStatus(name, address, True, active=True) for name, address in addresses.items())
    role = MemberRole.LEADER if leading else MemberRole.FOLLOWER
    return GroupStatus(member, role, term, leader, leading, 9, 9, 9, members)


class Scene:
    """A leader with an API that answers every line in capitals, and a follower with a link."""

    def __init__(self, cluster: TestCluster, leader: ToldGroup, follower: ToldGroup, link: LeaderLink) -> None:
        self.cluster, self.leader, self.follower, self.link = cluster, leader, follower, link
        self.open = 0


async def _shout(scene: Scene, reader: StreamReader, writer: StreamWriter) -> None:
    scene.open += 1
    try:
        while line := await reader.readline():
            writer.write(line.upper())
            if line == b"bye\n":
                break
    finally:
        scene.open -= 1
        writer.close()


@asynccontextmanager
async def scene(tmp_path: Path, *, monotonic: int = 0) -> AsyncIterator[Scene]:
    cluster = TestCluster()
    path = tmp_path / "api.sock"
    leader = ToldGroup(status("manager1", "manager1", {}, leading=True))
    handlers = {"api": ApiExchange(lambda: leader.status, path)}
    async with listening(cluster, handlers) as listener:
        addresses = {"manager1": listener.address, "manager2": "127.0.0.1:1"}
        follower = ToldGroup(status("manager2", "manager1", addresses))
        own = cluster.identity("manager2", NodeRole.MANAGER)
        link = LeaderLink(
            follower,
            lambda: own,
            path,
            lambda status: Unavailable("nobody leads"),
            source=None,
            clock=now_ns,
            monotonic=lambda: monotonic,
        )
        found = Scene(cluster, leader, follower, link)
        server = await asyncio.start_unix_server(lambda r, w: _shout(found, r, w), path)
        following = asyncio.create_task(link.run())
        await asyncio.sleep(0)
        try:
            yield found
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            server.close()
            await server.wait_closed()


async def ask(link: LeaderLink, line: bytes = b"hello\n") -> bytes:
    async with link.exchange("somebody") as (reader, writer):
        writer.write(line)
        return await reader.readline()


async def test_bytes_go_both_ways_and_both_ends_are_closed(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        assert await ask(found.link) == b"HELLO\n"
        await until(lambda: found.open == 0)
        async with found.link.exchange("somebody") as (reader, writer):
            writer.write(b"one\ntwo\n")
            writer.write_eof()
            assert await reader.read() == b"ONE\nTWO\n", "after a half-close the answer still comes"
        async with found.link.exchange("somebody") as (reader, writer):
            writer.write(b"bye\n")
            assert await reader.read() == b"BYE\n", "the leader ends the exchange"
        answers = await asyncio.gather(*(ask(found.link, f"line {n}\n".encode()) for n in range(50)))
        assert answers == [f"LINE {n}\n".encode() for n in range(50)]
        await until(lambda: found.open == 0)


async def test_a_term_that_is_over_is_refused_and_the_next_one_is_awaited(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.leader.tell(replace(found.leader.status, term=6))
        asking = asyncio.create_task(ask(found.link))
        assert not (await asyncio.wait({asking}, timeout=0.1))[0]
        assert found.open == 0, "nothing reached the leader's API"
        await found.follower.tell(replace(found.follower.status, term=6))
        assert await asking == b"HELLO\n"


async def test_an_election_is_awaited(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        before = found.follower.status
        await found.follower.tell(replace(before, leader="", leaderless_since=1))
        asking = asyncio.create_task(ask(found.link))
        assert not (await asyncio.wait({asking}, timeout=0.1))[0]
        await found.follower.tell(before)
        assert await asking == b"HELLO\n"


async def test_without_a_quorum_it_fails_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, monotonic=10 * SECOND) as found:
        await found.follower.tell(replace(found.follower.status, leader="", leaderless_since=SECOND))
        async with asyncio.timeout(1):
            with pytest.raises(Unavailable, match="nobody leads"):
                await ask(found.link)


async def test_an_exchange_with_a_former_leader_is_broken_off(tmp_path: Path) -> None:
    async with scene(tmp_path) as found, found.link.exchange("somebody") as (reader, writer):
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        await found.follower.tell(replace(found.follower.status, term=6, leader="manager2", leading=True))
        async with asyncio.timeout(2):
            with pytest.raises(ConnectionResetError):
                if await reader.readline() == b"":
                    raise ConnectionResetError
        assert await ask(found.link) == b"HELLO\n", "this manager leads by now: its own API answers"

"""A node's certificate through its life, in virtual time: renewed early, on demand, again and again, and never half."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from worker_fakes import VirtualLoop, run_virtual

from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import SECOND
from agent.node.certificates import CertificateKeeper
from agent.pki.identity import IDENTITY_FILE, NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.rpc.errors import Unreachable
from agent.rpc.messages import NodeUpdate

HOUR = 3600 * SECOND


class Authority:
    """The leader's side: signs with `root` for `role`; `hurdle` may raise instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.clock = loop.clock
        self.old = self.root = RootCA.create(loop.clock)
        self.trusted = self.root.cert_pem
        self.cross = b""
        self.role = NodeRole.WORKER
        self.expiry = 90 * DAY
        self.asked: list[int] = []
        self.hurdle: Callable[[], None] = lambda: None

    async def sign(self, key: NodeKey) -> NodeIdentity:
        self.asked.append(self.clock())
        self.hurdle()
        await asyncio.sleep(0.1)
        certificate = self.root.sign(
            key.request(), "node1", self.role, cluster_id="c", clock=self.clock, expiry=self.expiry
        )
        return NodeIdentity.from_pem(certificate + self.cross, key.pem, self.trusted)

    def update(self) -> NodeUpdate:
        return NodeUpdate(role=self.role, managers=[], roots=self.trusted, issuer=self.root.digest.hex())

    def rotate(self) -> None:
        """Another root signs from now on; both are trusted."""
        self.root = RootCA.create(self.clock)
        self.cross = self.root.cross_sign(self.old)
        self.trusted = self.old.cert_pem + self.root.cert_pem


class Node:
    """A keeper and what it told."""

    def __init__(self, authority: Authority, folder: Path, first: NodeIdentity, seed: int) -> None:
        self.folder = folder
        self.used: list[NodeIdentity] = []
        self.roles: list[NodeRole] = []
        self.news = asyncio.Event()
        self.keeper = CertificateKeeper(
            first,
            authority.sign,
            lambda identity: identity.save(folder),
            on_identity=self._use,
            on_role=lambda identity: self.roles.append(identity.role),
            clock=authority.clock,
            random=random.Random(seed),
        )

    def _use(self, identity: NodeIdentity) -> None:
        assert self.on_disk() == (identity.certificate_pem, identity.key_pem, identity.root_pem), "used before saved"
        self.used.append(identity)
        self.news.set()

    def on_disk(self) -> tuple[bytes, bytes, bytes]:
        identity = NodeIdentity.load(self.folder)
        return identity.certificate_pem, identity.key_pem, identity.root_pem

    async def until(self, count: int) -> None:
        while len(self.used) < count:
            self.news.clear()
            await self.news.wait()


@contextlib.asynccontextmanager
async def node(authority: Authority, folder: Path, seed: int = 1) -> AsyncIterator[Node]:
    first = await authority.sign(NodeKey.create())
    first.save(folder)
    authority.asked.clear()
    one = Node(authority, folder, first, seed)
    running = asyncio.create_task(one.keeper.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()


@pytest.mark.parametrize("expiry", [HOUR, 90 * DAY])
def test_it_is_renewed_between_half_and_four_fifths_of_its_life(tmp_path: Path, expiry: int) -> None:
    shares: list[float] = []

    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        authority.expiry = expiry
        seed = len(shares)
        async with node(authority, tmp_path / str(seed), seed) as one:
            begun = loop.clock()
            await one.until(1)
            shares.append((authority.asked[0] - begun) / expiry)
            assert len(authority.asked) == 1

    for _ in range(10):
        run_virtual(main)
    assert min(shares) > 0.49
    assert max(shares) < 0.81
    assert max(shares) - min(shares) > 0.15


def test_a_clock_that_is_set_forward_does_not_let_it_expire(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        ahead = 0
        authority = Authority(loop)
        authority.clock = lambda: loop.clock() + ahead
        async with node(authority, tmp_path) as one:
            await asyncio.sleep(10)
            ahead, begun = 81 * DAY, loop.now
            await one.until(1)
            assert loop.now - begun < 3700

    run_virtual(main)


def test_another_role_is_taken_on_at_once(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        async with node(authority, tmp_path) as one:
            one.keeper.update(authority.update())
            await asyncio.sleep(30)
            assert authority.asked == []
            authority.role, begun = NodeRole.MANAGER, loop.now
            one.keeper.update(authority.update())
            await one.until(1)
            assert loop.now - begun < 0.2
            assert one.roles == [NodeRole.MANAGER]
            assert one.keeper.identity.role is NodeRole.MANAGER
            authority.role = NodeRole.WORKER
            one.keeper.update(authority.update())
            await one.until(2)
            assert one.roles == [NodeRole.MANAGER, NodeRole.WORKER]
            # What says nothing new changes nothing.
            for _ in range(10):
                one.keeper.update(authority.update())
                await asyncio.sleep(1)
            assert len(authority.asked) == 2

    run_virtual(main)


def test_a_role_that_the_leader_does_not_give_yet_is_asked_for_less_and_less_often(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        async with node(authority, tmp_path) as one:
            wanted = NodeUpdate(
                role=NodeRole.MANAGER, managers=[], roots=authority.trusted, issuer=authority.root.digest.hex()
            )
            one.keeper.update(wanted)
            await asyncio.sleep(300)
            assert 12 < len(authority.asked) < 30
            authority.role = NodeRole.MANAGER
            await asyncio.sleep(31)
            assert one.roles == [NodeRole.MANAGER]

    run_virtual(main)


def test_another_root_is_trusted_at_once_and_signs_soon_after(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        async with node(authority, tmp_path) as one:
            first = one.keeper.identity
            authority.rotate()
            begun = loop.now
            one.keeper.update(authority.update())
            await one.until(1)
            assert loop.now == begun
            assert one.used[0].certificate_pem == first.certificate_pem
            assert one.used[0].root_pem == authority.trusted
            assert authority.asked == []
            await one.until(2)
            assert loop.now - begun < 3.5
            assert one.used[1].issuer == authority.root.digest.hex()
            # The rotation is over: the old root is trusted no more.
            authority.trusted, authority.cross = authority.root.cert_pem, b""
            one.keeper.update(authority.update())
            await one.until(3)
            assert one.used[2].root_pem == authority.root.cert_pem
            assert len(authority.asked) == 1

    run_virtual(main)


def test_a_node_that_slept_through_a_rotation_gets_certificate_and_roots_together(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        async with node(authority, tmp_path) as one:
            authority.rotate()
            authority.trusted, authority.cross = authority.root.cert_pem, b""
            one.keeper.update(authority.update())
            await one.until(1)
            assert one.used[0].issuer == authority.root.digest.hex()
            assert one.used[0].root_pem == authority.root.cert_pem

    run_virtual(main)


def test_a_thousand_nodes_do_not_renew_in_one_moment(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        first = await authority.sign(NodeKey.create())
        authority.rotate()
        asked: list[float] = []

        async def note(key: NodeKey) -> NodeIdentity:
            asked.append(loop.now)
            return await asyncio.get_running_loop().create_future()

        keepers = [
            CertificateKeeper(
                first,
                note,
                lambda identity: None,
                on_identity=lambda identity: None,
                clock=loop.clock,
                random=random.Random(seed),
            )
            for seed in range(200)
        ]
        running = [asyncio.create_task(keeper.run()) for keeper in keepers]
        begun = loop.now
        for keeper in keepers:
            keeper.update(authority.update())
        await asyncio.sleep(3.1)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        assert len(asked) == 200
        for second in range(3):
            assert 40 < sum(second <= when - begun < second + 1 for when in asked) < 100

    run_virtual(main)


def test_a_leader_that_is_away_is_asked_again_until_it_answers(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)

        def away() -> None:
            raise Unreachable("nobody is there")

        authority.hurdle = away
        async with node_without_hurdle(authority, tmp_path) as one:
            await asyncio.sleep(81 * 86400)
            pauses = [(b - a) / SECOND for a, b in zip(authority.asked, authority.asked[1:], strict=False)]
            assert len(pauses) > 100
            assert pauses[0] <= 1.0
            assert max(pauses) <= 300.0
            authority.hurdle = lambda: None
            await one.until(1)

    run_virtual(main)


@contextlib.asynccontextmanager
async def node_without_hurdle(authority: Authority, folder: Path) -> AsyncIterator[Node]:
    hurdle, authority.hurdle = authority.hurdle, lambda: None
    async with node(authority, folder) as one:
        authority.hurdle = hurdle
        yield one


def test_answers_that_do_not_fit_are_neither_saved_nor_used(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority, other = Authority(loop), Authority(loop)
        async with node(authority, tmp_path) as one:
            before = one.on_disk()

            async def another_cluster(key: NodeKey) -> NodeIdentity:
                authority.asked.append(0)
                certificate = other.root.sign(
                    key.request(), "node1", NodeRole.MANAGER, cluster_id="d", clock=loop.clock
                )
                return NodeIdentity.from_pem(certificate, key.pem, other.root.cert_pem)

            one.keeper._ask = another_cluster
            authority.role = NodeRole.MANAGER
            one.keeper.update(authority.update())
            await asyncio.sleep(60)
            assert len(authority.asked) > 3
            assert one.used == []
            assert one.on_disk() == before

    run_virtual(main)


def test_a_full_disk_keeps_the_old_identity_in_use(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        async with node(authority, tmp_path) as one:
            before, save = one.on_disk(), one.keeper._save
            full = True

            def full_disk(identity: NodeIdentity) -> None:
                if full:
                    raise OSError(28, "No space left on device")
                save(identity)

            one.keeper._save = full_disk
            authority.role = NodeRole.MANAGER
            one.keeper.update(authority.update())
            await asyncio.sleep(20)
            assert one.used == []
            assert one.on_disk() == before
            full = False
            await one.until(1)
            assert one.roles == [NodeRole.MANAGER]

    run_virtual(main)


def test_cancelled_at_any_await_the_file_holds_a_whole_identity(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        authority = Authority(loop)
        for steps in range(40):
            first = await authority.sign(NodeKey.create())
            folder = tmp_path / str(steps)
            first.save(folder)
            one = Node(authority, folder, first, 1)
            authority.role = NodeRole.MANAGER
            one.keeper.update(authority.update())
            running = asyncio.create_task(one.keeper.run())
            for _ in range(steps):
                await asyncio.sleep(0.0)
            if steps > 20:
                await asyncio.sleep(0.1)
            running.cancel()
            await asyncio.wait({running})
            found = NodeIdentity.load(folder)
            assert found.certificate_pem in {first.certificate_pem, *(used.certificate_pem for used in one.used)} or (
                found.role is NodeRole.MANAGER
            )
            authority.role = NodeRole.WORKER

    run_virtual(main)


KILLED = """
import asyncio, random, sys
from pathlib import Path
from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.node.certificates import CertificateKeeper
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.rpc.messages import NodeUpdate

folder, root = Path(sys.argv[1]), RootCA.create(now_ns)

async def sign(key):
    role = NodeRole.MANAGER if keeper.identity.role is NodeRole.WORKER else NodeRole.WORKER
    return NodeIdentity.from_pem(root.sign(key.request(), "node1", role, cluster_id="c", clock=now_ns), key.pem, root.cert_pem)

async def main():
    global keeper
    key = NodeKey.create()
    certificate = root.sign(key.request(), "node1", NodeRole.WORKER, cluster_id="c", clock=now_ns)
    first = NodeIdentity.from_pem(certificate, key.pem, root.cert_pem)
    first.save(folder)

    def again(identity):
        role = NodeRole.MANAGER if identity.role is NodeRole.WORKER else NodeRole.WORKER
        keeper.update(NodeUpdate(role=role, managers=[], roots=root.cert_pem, issuer=root.digest.hex()))

    keeper = CertificateKeeper(first, sign, lambda identity: identity.save(folder), on_identity=again)
    again(first)
    print("renewing", flush=True)
    await keeper.run()

asyncio.run(main())
"""


def test_killed_at_any_moment_key_and_certificate_on_disk_fit(tmp_path: Path) -> None:
    source = random.Random(4)
    for round_ in range(6):
        folder = tmp_path / str(round_)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"renewing\n"
            # The kill comes after a random number of replacements of the file, seen by its inode.
            replaced, last = source.randrange(1, 12), 0
            while replaced:
                inode = (folder / IDENTITY_FILE).stat().st_ino
                replaced, last = (replaced - 1, inode) if inode != last else (replaced, last)
            process.send_signal(signal.SIGKILL)
        assert NodeIdentity.load(folder).node_id == "node1"

"""A session as the console uses it: add, remove, cut power, freeze, warn, end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from swarmtui.playground import kernel
from swarmtui.playground.booting import Step
from swarmtui.playground.changes import Change, ChangeKind
from swarmtui.playground.instance import InstanceState, Role
from swarmtui.playground.places import BASE_VARIABLE
from swarmtui.playground.session import Options, PlaygroundError, PlaygroundSession
from swarmtui.playground.tier import choose, probe

STAND_IN = (sys.executable, str(Path(__file__).with_name("playground_stand_in.py")))
TIERS = ["loopback"] if probe().namespaces_obstacle else ["loopback", "namespaces"]

Open = Callable[..., "asyncio.Future[PlaygroundSession]"]


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens sessions, which end with the test."""
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    monkeypatch.setenv(BASE_VARIABLE, f"{folder}/b")
    async with AsyncExitStack() as stack:

        async def enter(tier: str, nodes: int = 1, **more: object) -> PlaygroundSession:
            options = Options(nodes=nodes, tier=tier, agent=more.pop("agent", STAND_IN), limit=3)  # type: ignore[arg-type]
            return await stack.enter_async_context(PlaygroundSession(options, **more))  # type: ignore[arg-type]

        yield enter  # type: ignore[misc]
    assert not os.path.exists(f"{folder}/b")
    shutil.rmtree(folder)


class Heard:
    """What subscribers are told, and a way to wait for some of it."""

    def __init__(self, session: PlaygroundSession) -> None:
        self.changes: list[tuple[ChangeKind, str, InstanceState | None]] = []
        self._news = asyncio.Event()
        session.subscribe(self._hear)

    def _hear(self, change: Change) -> None:
        one = change.instance
        self.changes.append((change.kind, one.name if one else change.text, one.state if one else None))
        self._news.set()

    async def until(self, kind: ChangeKind, name: str, state: InstanceState | None) -> None:
        while (kind, name, state) not in self.changes:
            self._news.clear()
            await self._news.wait()


@pytest.mark.parametrize("tier", TIERS)
async def test_an_instance_is_added_and_removed_while_it_runs(tier: str, opened: Open) -> None:
    steps: list[tuple[str, Step]] = []
    session = await opened(tier, 2, progress=lambda name, step, seconds: steps.append((name, step)))
    assert steps.count(("node2", Step.READY)) == 1
    heard = Heard(session)
    added = await session.add()
    assert (added.name, added.role, added.state) == ("node3", Role.WORKER, InstanceState.RUNNING)
    pids = [added.pid, added.agent_pid]
    await session.remove("node3")
    assert [one.name for one in session.instances] == ["node1", "node2"]
    assert all(kernel.start_time(pid) is None for pid in pids)
    assert not added.folder.exists()
    assert [kind for kind, _name, _state in heard.changes if kind is not ChangeKind.CHANGED] == [
        ChangeKind.ADDED,
        ChangeKind.REMOVED,
    ]
    again = await session.add()
    assert again.name == "node4", "a new machine is a new machine, with a name of its own"


async def test_a_bare_instance_is_in_no_cluster(opened: Open) -> None:
    session = await opened("loopback")
    bare = await session.add(join=False)
    assert (bare.role, bare.state) == (Role.BARE, InstanceState.RUNNING)


async def test_there_is_a_bound_and_a_clear_text(opened: Open) -> None:
    session = await opened("loopback", 3)
    with pytest.raises(PlaygroundError, match="3 instances at most"):
        await session.add()
    with pytest.raises(PlaygroundError, match=r"no instance node9; there are node1, node2, node3"):
        await session.remove("node9")
    with pytest.raises(PlaygroundError, match="only manager"):
        await session.remove("node1")
    with pytest.raises(PlaygroundError, match="nothing to start"):
        await session.start("node1")


@pytest.mark.parametrize("tier", TIERS)
async def test_power_goes_off_and_on(tier: str, opened: Open) -> None:
    session = await opened(tier, 2)
    heard = Heard(session)
    node2 = session.instances[1]
    before = (node2.pid, node2.agent_pid)
    await session.cut_power("node2")
    assert (node2.state, node2.pid, node2.agent_pid) == (InstanceState.STOPPED, 0, 0)
    await session.cut_power("node2")
    await session.start("node2")
    assert node2.state is InstanceState.RUNNING
    assert node2.pid not in before
    os.kill(node2.pid, signal.SIGKILL)
    heard.changes.clear()
    await heard.until(ChangeKind.CHANGED, "node2", InstanceState.STOPPED)


@pytest.mark.parametrize("tier", TIERS)
async def test_a_killed_agent_is_told_and_can_be_started_again(tier: str, opened: Open) -> None:
    session = await opened(tier, 2)
    heard = Heard(session)
    node2 = session.instances[1]
    machine = node2.pid
    os.kill(node2.agent_pid, signal.SIGKILL)
    await heard.until(ChangeKind.CHANGED, "node2", InstanceState.WITHOUT_AGENT)
    assert node2.agent_pid == 0
    await session.start("node2")
    assert (node2.state, node2.pid) == (InstanceState.RUNNING, machine)
    assert kernel.start_time(node2.agent_pid) is not None


@pytest.mark.root
@pytest.mark.skipif(not choose("auto", probe()).grouped, reason="freezing needs root and control groups")
@pytest.mark.parametrize("tier", TIERS)
async def test_a_frozen_instance_stands_still_and_can_still_be_removed(tier: str, opened: Open) -> None:
    session = await opened(tier, 2)
    node2 = session.instances[1]
    await session.freeze("node2")
    assert node2.state is InstanceState.FROZEN
    frozen_at = cpu_time(node2.agent_pid)
    reader, writer = await asyncio.open_unix_connection(node2.socket)
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: node\r\n\r\n")
    answer = asyncio.ensure_future(reader.readline())
    # Another instance answers meanwhile, which takes longer than this one would have.
    await session.add()
    assert not answer.done()
    assert cpu_time(node2.agent_pid) == frozen_at
    await session.thaw("node2")
    assert node2.state is InstanceState.RUNNING
    assert (await answer).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    await session.freeze("node2")
    await session.remove("node2")
    assert node2 not in session.instances


def cpu_time(pid: int) -> str:
    """User and system time of a process, in ticks."""
    return " ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])


async def test_without_control_groups_freezing_is_refused_with_the_reason(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmtui.playground.cgroups.obstacle", lambda hierarchies: "none are writable")
    session = await opened("loopback")
    with pytest.raises(PlaygroundError, match="no control group"):
        await session.freeze("node1")


async def test_an_agent_that_does_not_start_is_told_with_what_it_said(opened: Open) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('the disk is full')")
    with pytest.raises(PlaygroundError, match=r"the agent of node1 ended with status 1: the disk is full"):
        await opened("loopback", agent=failing)
    with pytest.raises(PlaygroundError, match=r"node1: /nowhere/agent: No such file or directory"):
        await opened("loopback", agent=("/nowhere/agent",))


async def test_it_warns_and_ends_when_its_time_is_up(opened: Open) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    wall = [now]
    session = await opened("loopback", now=lambda: wall[0])
    heard = Heard(session)
    assert session.expires_at == now + timedelta(hours=4)
    wall[0] = session.expires_at - timedelta(minutes=5)
    session.extend(timedelta(0))
    assert (ChangeKind.WARNING, "the playground ends in 5 min, and everything in it is deleted", None) in heard.changes
    session.extend(timedelta(hours=1))
    assert session.remaining == timedelta(minutes=65)
    assert not session.over.is_set()
    wall[0] = session.expires_at
    session.extend(timedelta(0))
    assert session.over.is_set()
    assert heard.changes[-1] == (ChangeKind.OVER, "the session's time is up", None)


async def test_a_killed_keeper_ends_the_session_and_says_so(opened: Open) -> None:
    session = await opened("loopback", 2)
    heard = Heard(session)
    keeper = kernel.parent_of(session.instances[0].pid)
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    await session.over.wait()
    assert heard.changes[-1][1] == "the playground's keeper has ended, and everything with it"
    with pytest.raises(PlaygroundError, match="keeper has ended"):
        await session.add()


async def test_a_keeper_that_hangs_does_not_keep_the_session(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmtui.playground.keeping._LONGEST_CLOSE", 0.5)
    async with PlaygroundSession(Options(nodes=2, tier="loopback", agent=STAND_IN)) as session:
        keeper = kernel.parent_of(session.instances[0].pid)
        assert keeper is not None
        os.kill(keeper, signal.SIGSTOP)
    assert kernel.start_time(keeper) is None
    assert not session.folder.exists()


async def test_cancelled_while_it_starts_it_leaves_nothing(opened: Open) -> None:
    begun = asyncio.Event()
    silent = (sys.executable, "-c", "import time; time.sleep(3600)")
    starting = asyncio.ensure_future(opened("loopback", 2, agent=silent, progress=lambda *step: begun.set()))
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


@pytest.mark.root
@pytest.mark.skipif(choose("auto", probe()).tier != "engine", reason="needs root and an installed engine")
async def test_an_engine_that_does_not_start_is_done_without_and_the_reason_is_shown(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "dockerd"
    broken.write_text("#!/bin/sh\necho the kernel has no overlay >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    session = await opened("auto", 2)
    assert session.tier.tier == "namespaces"
    assert "does not start in an instance" in session.tier.reason
    assert "the kernel has no overlay" in session.tier.reason
    assert [one.state for one in session.instances] == [InstanceState.RUNNING] * 2
    with pytest.raises(PlaygroundError, match="the kernel has no overlay"):
        await opened("engine", 1)

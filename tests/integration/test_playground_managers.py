"""The playground as it comes: three managers and two workers, real agents; the leader is lost and nobody has to care."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playground_tiers import usable_tiers

from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import EngineError
from swarmtui.playground import forming
from swarmtui.playground.instance import Instance
from swarmtui.playground.places import BASE_VARIABLE
from swarmtui.playground.session import Options, PlaygroundError, PlaygroundSession
from swarmtui.ui.app import SwarmApp

# Five nodes start, three of them one after another: seconds each, and more where a machine has other work.
pytestmark = pytest.mark.timeout(150)

TIERS = [tier for tier in usable_tiers() if tier in ("loopback", "namespaces")]


@pytest.fixture(params=TIERS)
async def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlaygroundSession]:
    """The default template."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    monkeypatch.setenv(BASE_VARIABLE, f"{folder}/b")
    async with PlaygroundSession(Options(tier=request.param)) as opened:
        yield opened
    assert list(folder.iterdir()) == []
    shutil.rmtree(folder)


async def leader_of(session: PlaygroundSession, asked: Instance) -> Instance:
    async with forming.client(asked.docker_host) as api:
        name = next(
            node.description.hostname
            for node in await api.nodes()
            if node.manager_status and node.manager_status.leader
        )
    return next(one for one in session.instances if one.name == name)


class Loop:
    """Lists services again and again, as `docker service ls` in a shell's loop does; keeps failures and the longest wait."""

    def __init__(self, docker_host: str) -> None:
        self._docker_host = docker_host
        self.answers = 0
        self.failures: list[str] = []
        self.longest = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            start = loop.time()
            try:
                # A new connection each time, as a command makes one.
                async with forming.client(self._docker_host) as api:
                    await api.services(status=True)
                self.answers += 1
            except EngineError as error:
                self.failures.append(str(error))
            self.longest = max(self.longest, loop.time() - start)
            await asyncio.sleep(0.05)


async def until(holds: Callable[[], Any], pause: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await pause()


async def test_the_leader_is_killed_and_a_loop_elsewhere_goes_on(session: PlaygroundSession) -> None:
    assert [str(one.role) for one in session.instances] == ["manager", "manager", "manager", "worker", "worker"]
    first = session.instances[0]
    leader = await leader_of(session, first)
    others = [one for one in session.instances[:3] if one is not leader]
    app = SwarmApp(playground=session)
    looping = Loop(others[0].docker_host)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        summary = lambda: app.main.header.summary  # noqa: E731

        async def pause() -> None:
            await pilot.pause(0.05)

        await until(lambda: summary() and summary().group and summary().group.term and summary().managers == 3, pause)
        states = {str(summary().connection.state)}
        app.main.session.model.subscribe_summary(lambda s: states.add(str(s.connection.state)))  # type: ignore[union-attr]
        asked = summary().connection.node
        running = asyncio.ensure_future(looping.run())
        await until(lambda: looping.answers > 3, pause)
        os.kill(leader.pid, signal.SIGKILL)
        await until(lambda: summary().leader not in ("", leader.name), pause)
        await until(lambda: summary().managers_reachable == 2, pause)
        answered = looping.answers
        await until(lambda: looping.answers > answered + 3, pause)
        running.cancel()
        assert summary().group.quorum
        if asked == leader.name:
            assert summary().connection.node != leader.name
        assert states <= {"live"}, "the console went on with another manager, and nothing flickered"
    assert len(looping.failures) <= 1, looping.failures
    assert looping.longest < 4.0

    await session.start(leader.name)
    managers = [one.name for one in session.instances[:3]]
    await forming.all_ready(others[0].docker_host, managers, 60, managers=managers)


async def test_a_manager_is_demoted_before_it_is_deleted_and_a_quorum_is_not_given_away(
    session: PlaygroundSession,
) -> None:
    one, two, three, four, _ = session.instances
    await session.remove(two.name)
    async with EngineClient(forming.parse_address(one.docker_host)) as api:
        group = await api.managers()
        assert sorted(member.hostname for member in group.members) == [one.name, three.name]
        assert two.name not in {node.description.hostname for node in await api.nodes()}
    # Of two managers one is cut off: the other may not be taken away as well, and nothing is.
    await session.freeze(three.name)
    with pytest.raises(PlaygroundError, match=f"{one.name} stays"):
        await session.remove(one.name)
    assert one in session.instances
    await session.thaw(three.name)
    await session.remove(four.name)
    assert four not in session.instances

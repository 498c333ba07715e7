"""One playground: its instances, its clock, and the promise that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from swarmtui.docker_api.engine_types import JoinTokens
from swarmtui.docker_api.errors import ApiError, EngineError
from swarmtui.playground import agents, engine, forming
from swarmtui.playground.addresses import LAST_NUMBER, instance_name
from swarmtui.playground.booting import Booting, Step
from swarmtui.playground.changes import Change, ChangeKind
from swarmtui.playground.clock import DEFAULT_LENGTH, Now, SessionClock, utc_now
from swarmtui.playground.expiry import Expiry
from swarmtui.playground.instance import Instance, InstanceState, Role
from swarmtui.playground.keeper import Configuration
from swarmtui.playground.keeping import KeeperFailed, KeeperLink, clean_environment
from swarmtui.playground.places import SESSION_VARIABLE
from swarmtui.playground.preparing import Ground, prepare
from swarmtui.playground.templates import DEFAULT_NODES, managers_for
from swarmtui.playground.tier import AUTO, Choice, Tier, search_path
from swarmtui.playground.wire import Message

_ALL_READY = 60.0


class PlaygroundError(Exception):
    """Something could not be done; the text says what, to which instance, and what to do."""


Progress = Callable[[str, Step, float], None]
"""Called with the instance's name, the step that is done, and seconds since the start."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asked for."""

    nodes: int = DEFAULT_NODES
    managers: int = 0
    """How many of them are managers; 0: as many as suit that number of nodes."""
    tier: str = AUTO
    length: timedelta = DEFAULT_LENGTH
    limit: int = DEFAULT_NODES
    """Instances at once, at most; never less than `nodes`."""
    agent: Sequence[str] = agents.PROGRAM


class PlaygroundSession:
    """`async with PlaygroundSession(options) as session:` starts the instances and forms the cluster; leaving it removes all.

    Everything happens on the loop that entered it, and callbacks of `subscribe` are called there.
    """

    def __init__(self, options: Options, *, progress: Progress | None = None, now: Now = utc_now) -> None:
        self._options = replace(options, limit=max(options.limit, options.nodes))
        self._progress = progress or (lambda instance, step, seconds: None)
        self._clock = SessionClock.starting(options.length, now)
        self._instances: dict[str, Instance] = {}
        self._callbacks: list[Callable[[Change], None]] = []
        self._last_number = 0
        self._ground: Ground | None = None
        self._keeper: KeeperLink | None = None
        self._started_at = 0.0
        self._booting: Booting
        self._expiry = Expiry(self._clock, self._tell)

    # Looking

    @property
    def instances(self) -> list[Instance]:
        """All instances, in the order of their numbers."""
        return list(self._instances.values())

    @property
    def tier(self) -> Choice:
        """The kind of instances, with the reason."""
        return self._entered.choice

    @property
    def name(self) -> str:
        """The session's id, which is in the names of its folder, its links and its control groups."""
        return self._entered.folder.name

    @property
    def folder(self) -> Path:
        """The session's folder; instances' logs are in `<name>/agent.log` and `engine.log` below it."""
        return self._entered.folder

    @property
    def expires_at(self) -> datetime:
        """When it ends by itself, UTC."""
        return self._clock.expires_at

    @property
    def remaining(self) -> timedelta:
        """Time left."""
        return self._clock.remaining

    @property
    def swept(self) -> list[str]:
        """Ids of killed sessions that were cleaned up at the start of this one."""
        return self._entered.swept

    @property
    def over(self) -> asyncio.Event:
        """Set when the time is up or the keeper is gone: leave the session then."""
        return self._expiry.over

    @property
    def ending(self) -> str:
        """Why it is over, for people; "" while it is not."""
        return self._expiry.ending

    @property
    def limit(self) -> int:
        """Instances at once, at most."""
        return self._options.limit

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback` with every change; returns what ends that."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    # Its life

    async def __aenter__(self) -> PlaygroundSession:
        self._started_at = asyncio.get_running_loop().time()
        try:
            await self._open(self._options.tier)
        except engine.EngineFailed as error:
            if self._options.tier != AUTO:
                raise PlaygroundError(str(error)) from error
            # Installed is not the same as usable: its kernel may lack what engines need. There is a tier that needs less.
            await self._open(Tier.NAMESPACES, f"the engine that is installed does not start in an instance: {error}")
        self._expiry.watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def extend(self, by: timedelta) -> None:
        """Move the end of the session."""
        self._clock.extend(by)
        self._tell(Change(ChangeKind.EXTENDED, text=f"the session now ends at {self.expires_at:%H:%M:%S} UTC"))
        self._expiry.watch()

    # Changing instances

    async def add(self, *, join: bool = True) -> Instance:
        """Start one more instance, as a worker of the cluster or bare. Raises PlaygroundError at the limit."""
        if len(self._instances) >= self.limit:
            raise PlaygroundError(
                f"a playground has {self.limit} instances at most; remove one first, or start it with a higher --nodes"
            )
        instance = self._plan(Role.WORKER if join else Role.BARE)
        self._tell(Change(ChangeKind.ADDED, instance))
        try:
            await self._start(instance)
            if join:
                manager = await forming.manager_among(self._running(besides=instance))
                if manager is None:
                    raise PlaygroundError("no manager runs that a new instance could join")
                await self._join(instance, manager, (await forming.tokens(manager.docker_host)).worker)
                await forming.all_ready(manager.docker_host, [instance.name], _ALL_READY)
        except BaseException as error:
            failure = self._explained(error)
            await self._discard(instance)
            raise failure from error
        return instance

    async def remove(self, name: str) -> None:
        """Cut an instance's power, delete all of it, and take it off the cluster's list of nodes."""
        instance = self._named(name)
        others = [one for one in self._instances.values() if one is not instance]
        if instance.role is Role.MANAGER and others and not any(one.role is Role.MANAGER for one in others):
            raise PlaygroundError(
                f"{name} is the only manager, and the others cannot go on without one; close the playground instead"
            )
        manager = await forming.manager_among(self._running(besides=instance))
        if manager is None and others and await forming.manager_among([instance]) is not None:
            raise PlaygroundError(f"{name} stays: it is a manager, and no other one answers that could take over")
        if manager is not None:
            try:
                await forming.demote(manager.docker_host, name, _ALL_READY)
            except (EngineError, TimeoutError) as error:
                raise PlaygroundError(f"{name} stays: the managers do not let it go: {error}") from error
        await self._discard(instance)
        if manager is not None:
            try:
                await forming.forget(manager.docker_host, name)
            except EngineError as error:
                raise PlaygroundError(f"{name} is gone, but the cluster still lists it: {error}") from error

    async def cut_power(self, name: str) -> None:
        """End all processes of an instance at once; its files stay for `start`."""
        instance = self._named(name)
        if instance.pid:
            await self._asked(self._link.stop(name))

    async def start(self, name: str) -> None:
        """Switch a stopped instance on again, or start the agent of one that has none."""
        instance = self._named(name)
        if instance.state not in (InstanceState.STOPPED, InstanceState.WITHOUT_AGENT):
            raise PlaygroundError(f"{name} is {instance.state}, there is nothing to start")
        try:
            if instance.state is InstanceState.STOPPED:
                await self._start(instance)
            else:
                await self._booting.start_agent(instance)
                self._settle(instance)
        except BaseException as error:
            raise self._explained(error) from error

    async def freeze(self, name: str) -> None:
        """Stop all processes of an instance where they are, as a machine that hangs."""
        instance = self._named(name)
        await self._asked(self._link.freeze(name, True))
        self._set_state(instance, InstanceState.FROZEN)

    async def thaw(self, name: str) -> None:
        """Let a frozen instance go on."""
        instance = self._named(name)
        await self._asked(self._link.freeze(name, False))
        self._settle(instance)

    # How it is done

    @property
    def _entered(self) -> Ground:
        if self._ground is None:
            raise RuntimeError("a playground's session is used inside `async with`")
        return self._ground

    @property
    def _link(self) -> KeeperLink:
        if self._keeper is None:
            raise RuntimeError("a playground's session is used inside `async with`")
        return self._keeper

    async def _open(self, tier: str, reason: str = "") -> None:
        """Make the ground and form the cluster on it, or leave nothing."""
        self._ground = await asyncio.to_thread(prepare, tier)
        if reason:
            self._ground.choice = replace(self._ground.choice, reason=reason)
        try:
            environment = {**clean_environment(SESSION_VARIABLE, self.name, os.environ), "PATH": search_path()}
            self._keeper = await self._launch_keeper(self._ground, environment)
            self._booting = Booting(self._keeper, self._ground, environment, self._options.agent, self._done)
            await self._form()
        except BaseException as error:
            failure = first_of(error)
            await self._end()
            raise (failure if isinstance(failure, engine.EngineFailed) else self._explained(failure)) from error

    async def _launch_keeper(self, ground: Ground, environment: Mapping[str, str]) -> KeeperLink:
        host = ground.addressing.host
        return await KeeperLink.launch(
            Configuration(
                folder=str(ground.folder),
                record=asdict(ground.record),
                isolated=ground.choice.tier.isolated,
                grouped=ground.choice.grouped,
                host_address=f"{host}/24" if host else "",
            ),
            ground.lock,
            environment,
            self._hear,
        )

    async def _form(self) -> None:
        """Start the first instances side by side; each joins as soon as it and the first manager are there."""
        self._instances.clear()
        self._last_number = 0
        nodes = self._options.nodes
        managers = self._options.managers or managers_for(nodes)
        first, *others = [self._plan(Role.MANAGER if number < managers else Role.WORKER) for number in range(nodes)]
        tokens: asyncio.Future[JoinTokens] = asyncio.get_running_loop().create_future()

        async def begin() -> None:
            await self._start(first)
            tokens.set_result(await forming.init(first.docker_host, first.address))
            self._done(first, Step.CLUSTER)

        async def follow(instance: Instance) -> None:
            await self._start(instance)
            known = await asyncio.shield(tokens)
            await self._join(instance, first, known.manager if instance.role is Role.MANAGER else known.worker)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(begin())
                for instance in others:
                    group.create_task(follow(instance))
        finally:
            tokens.cancel()
        named = [one.name for one in self._instances.values() if one.role is Role.MANAGER]
        await forming.all_ready(first.docker_host, list(self._instances), _ALL_READY, managers=named)
        for instance in self._instances.values():
            self._done(instance, Step.READY)

    def _plan(self, role: Role) -> Instance:
        if self._last_number >= LAST_NUMBER:
            raise PlaygroundError(f"a playground can make {LAST_NUMBER} instances in its life; start a new one")
        self._last_number += 1
        name = instance_name(self._last_number)
        instance = Instance(
            number=self._last_number,
            name=name,
            role=role,
            address=self._entered.addressing.instance(self._last_number),
            folder=self._entered.folder / name,
        )
        self._instances[name] = instance
        return instance

    async def _start(self, instance: Instance) -> None:
        self._set_state(instance, InstanceState.STARTING)
        await self._booting.start(instance)
        self._settle(instance)

    async def _join(self, instance: Instance, manager: Instance, token: str) -> None:
        await forming.join(instance.docker_host, instance.address, manager.address, token)
        self._done(instance, Step.CLUSTER)

    async def _discard(self, instance: Instance) -> None:
        if instance.pid:
            await self._asked(self._link.stop(instance.name))
        await asyncio.to_thread(shutil.rmtree, instance.folder, True)
        del self._instances[instance.name]
        self._tell(Change(ChangeKind.REMOVED, instance))

    async def _asked(self, request: Awaitable[None]) -> None:
        try:
            await request
        except KeeperFailed as error:
            raise PlaygroundError(str(error)) from error

    def _running(self, *, besides: Instance) -> list[Instance]:
        """The other instances that run, those that began as managers first."""
        found = [one for one in self._instances.values() if one.state is InstanceState.RUNNING and one is not besides]
        return sorted(found, key=lambda one: one.role is not Role.MANAGER)

    def _named(self, name: str) -> Instance:
        if name not in self._instances:
            raise PlaygroundError(f"no instance {name}; there are {', '.join(self._instances)}")
        return self._instances[name]

    # What the keeper tells

    def _hear(self, event: Message) -> None:
        kind = event["event"]
        if kind == "closed":
            for instance in self._instances.values():
                self._has_stopped(instance)
            self._expiry.finish("the playground's keeper has ended, and everything with it")
            return
        heard = self._instances.get(event["instance"])
        if heard is None:
            return
        if kind == "gone":
            self._has_stopped(heard)
        elif kind == "ended":
            self._booting.ended(heard, event["service"], event["status"])
            if event["service"] == agents.SERVICE:
                self._agent_ended(heard)

    def _has_stopped(self, instance: Instance) -> None:
        instance.pid = instance.agent_pid = 0
        self._booting.stopped(instance)
        self._set_state(instance, InstanceState.STOPPED)

    def _agent_ended(self, instance: Instance) -> None:
        instance.agent_pid = 0
        if instance.state is InstanceState.RUNNING:
            self._set_state(instance, InstanceState.WITHOUT_AGENT)

    def _settle(self, instance: Instance) -> None:
        """The state of an instance that is switched on."""
        self._set_state(instance, InstanceState.RUNNING if instance.agent_pid else InstanceState.WITHOUT_AGENT)

    def _set_state(self, instance: Instance, state: InstanceState) -> None:
        if instance.state is not state:
            instance.state = state
            self._tell(Change(ChangeKind.CHANGED, instance))

    def _done(self, instance: Instance, step: Step) -> None:
        self._progress(instance.name, step, asyncio.get_running_loop().time() - self._started_at)

    def _tell(self, change: Change) -> None:
        for callback in list(self._callbacks):
            callback(change)

    # Its end

    async def _end(self) -> None:
        # Nobody needs to hear of every instance that stops now.
        self._callbacks.clear()
        self._expiry.stop()
        ground = self._entered
        try:
            if self._keeper is not None:
                keeper, self._keeper = self._keeper, None
                await self._booting.close()
                # Cancelled or not, what was started is ended.
                await self._asked(asyncio.shield(asyncio.ensure_future(keeper.close())))
        finally:
            await asyncio.to_thread(ground.leave)

    def _explained(self, error: BaseException) -> BaseException:
        """The error that a person should read: the first real one of a group, in our own kind."""
        error = first_of(error)
        if isinstance(error, KeeperFailed | engine.EngineFailed | EngineError | TimeoutError | OSError):
            return PlaygroundError(error.message if isinstance(error, ApiError) else str(error))
        return error


def first_of(error: BaseException) -> BaseException:
    """What went wrong first in a group of tasks; an error of another kind is its own first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

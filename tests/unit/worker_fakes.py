"""An executor, streams and a clock in memory, for the worker's tests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from agent.api_types.container import ContainerSpec
from agent.api_types.node import NodeDescription
from agent.api_types.task import (
    ContainerStatus,
    PortStatus,
    ServiceAnnotations,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from agent.rpc.errors import StreamEnded, StreamFailed
from agent.rpc.messages import Message
from agent.worker.interface import (
    Dependencies,
    ExitStatus,
    LogLine,
    RejectedByExecutor,
    Stream,
    TemporaryFailure,
)

NODE = "node1node1node1node1node1"


def make_task(task_id: str, desired: TaskState = TaskState.RUNNING, **changes: object) -> Task:
    """A task that the scheduler has just given to this node."""
    fields: dict[str, object] = {
        "spec": TaskSpec(container_spec=ContainerSpec(image="bb:1")),
        "service_id": "service1",
        "slot": 1,
        "node_id": NODE,
        "service_annotations": ServiceAnnotations(name="web"),
        "status": TaskStatus(state=TaskState.ASSIGNED, message="scheduler assigned task to node"),
    }
    return Task(id=task_id, desired_state=desired, **{**fields, **changes})


# -- time


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the loop's clock to it."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.loop.threads:
            return super().select(timeout if timeout is None else 0.001)
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which time passes only when there is nothing else to do, and then at once."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.threads = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: object, func: Callable[..., object], *args: object) -> asyncio.Future[object]:
        """Threads are real: while one works, time stands still."""
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self._thread_ended())
        return future

    def _thread_ended(self) -> None:
        self.threads -= 1

    def clock(self) -> int:
        """Nanoseconds since the epoch."""
        return 1_700_000_000_000_000_000 + int(self.now * 1e9)


def run_virtual(main: Callable[[VirtualLoop], Awaitable[None]]) -> None:
    """Run `main(loop)` in virtual time; everything it started must have ended."""

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await main(loop)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(whole())


# -- the executor


class Container(Enum):
    """What is on the host of a task."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass
class FakeHost:
    """The host: survives a restart of the agent. `hurdles` decides what goes wrong: (operation, task id) to an error."""

    containers: dict[str, Container] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    ended: dict[str, asyncio.Event] = field(default_factory=dict)
    lines: dict[str, list[LogLine]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    delay: Callable[[], float] = lambda: 0.0
    hurdle: Callable[[str, str], Exception | None] = lambda operation, task_id: None
    busy: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    secrets: dict[str, Dependencies] = field(default_factory=dict)

    def end(self, task_id: str, code: int = 0) -> None:
        """The process ends by itself."""
        if self.containers.get(task_id) is Container.RUNNING:
            self.containers[task_id] = Container.EXITED
            self.codes[task_id] = code
            self.ended.setdefault(task_id, asyncio.Event()).set()


class FakeExecutor:
    """`Executor` on a `FakeHost`; one a life of the agent."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.made: dict[str, int] = {}

    async def describe(self) -> NodeDescription:
        return NodeDescription(hostname="host")

    async def controller(self, task: Task, dependencies: Dependencies) -> FakeController:
        error = self.host.hurdle("controller", task.id)
        if error is not None:
            raise error
        self.made[task.id] = self.made.get(task.id, 0) + 1
        return FakeController(self.host, task, dependencies)

    async def known_tasks(self) -> list[str]:
        return list(self.host.containers)

    async def close(self) -> None: ...


class FakeController:
    """`Controller`: keeps to the protocol and notes who does not."""

    def __init__(self, host: FakeHost, task: Task, dependencies: Dependencies) -> None:
        self.host = host
        self.id = task.id
        host.secrets[task.id] = dependencies

    @contextlib.asynccontextmanager
    async def _doing(self, operation: str) -> AsyncIterator[None]:
        host = self.host
        if self.id in host.busy:
            host.violations.append(f"{operation} of {self.id} during {host.busy[self.id]}")
        host.busy[self.id] = operation
        host.calls.append((operation, self.id))
        try:
            await asyncio.sleep(host.delay())
            error = host.hurdle(operation, self.id)
            if error is not None:
                raise error
            yield
        finally:
            host.busy.pop(self.id, None)

    async def prepare(self) -> None:
        async with self._doing("prepare"):
            self.host.containers.setdefault(self.id, Container.CREATED)

    async def start(self) -> None:
        async with self._doing("start"):
            state = self.host.containers.get(self.id)
            if state is None:
                raise RejectedByExecutor(f"No such container: {self.id}")
            if state is Container.CREATED:
                self.host.containers[self.id] = Container.RUNNING
                self.host.codes.pop(self.id, None)
                if self.host.ended.setdefault(self.id, asyncio.Event()).is_set():
                    # An earlier container of the task ended.
                    self.host.ended[self.id] = asyncio.Event()
                self.host.started.append(self.id)

    async def wait(self) -> ExitStatus:
        async with self._doing("wait"):
            state = self.host.containers.get(self.id)
            if state is None:
                raise RejectedByExecutor(f"No such container: {self.id}")
            if state is Container.RUNNING:
                await self.host.ended.setdefault(self.id, asyncio.Event()).wait()
            code = self.host.codes.get(self.id, 0)
            return ExitStatus(code, f"task: non-zero exit ({code})" if code else "")

    async def shutdown(self) -> None:
        async with self._doing("shutdown"):
            self.host.end(self.id, 143)

    async def terminate(self) -> None:
        async with self._doing("terminate"):
            self.host.end(self.id, 137)

    async def remove(self) -> None:
        async with self._doing("remove"):
            self.host.end(self.id, 137)
            self.host.containers.pop(self.id, None)

    async def logs(self, since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
        lines = [line for line in self.host.lines.get(self.id, []) if line.timestamp >= since]
        for line in lines if tail < 0 else lines[len(lines) - tail :]:
            yield line
        if follow:
            await self.host.ended.setdefault(self.id, asyncio.Event()).wait()

    async def status(self) -> tuple[ContainerStatus | None, PortStatus]:
        if self.id not in self.host.containers:
            return None, PortStatus()
        return ContainerStatus(container_id=f"c-{self.id}", exit_code=self.host.codes.get(self.id, 0)), PortStatus()

    def address(self, port: int, protocol: str) -> tuple[str, int] | None:
        return ("127.0.0.1", port) if self.host.containers.get(self.id) is Container.RUNNING else None


def random_hurdles(source: random.Random, share: float) -> Callable[[str, str], Exception | None]:
    """Errors of each kind, for a share of the calls."""

    def hurdle(operation: str, task_id: str) -> Exception | None:
        if source.random() >= share:
            return None
        kind = source.randrange(4)
        if kind == 0 and operation not in ("shutdown", "remove"):
            return RejectedByExecutor(f"{operation} refused")
        if kind == 1 and operation not in ("shutdown", "remove"):
            return KeyError(operation)
        return TemporaryFailure(f"{operation} not now")

    return hurdle


class FakeAttacher:
    """`NetworkAttacher` that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def attach(self, task: Task) -> list[object]:
        self.calls.append(("attach", task.id))
        return []

    async def activate(self, task: Task) -> None:
        self.calls.append(("activate", task.id))

    async def deactivate(self, task: Task) -> None:
        self.calls.append(("deactivate", task.id))

    async def detach(self, task: Task) -> None:
        self.calls.append(("detach", task.id))


def out(timestamp: int, text: str, stream: Stream = Stream.STDOUT) -> LogLine:
    """A line of output."""
    return LogLine(timestamp, stream, text.encode())


# -- streams


class _Pipe:
    """One direction of a stream."""

    def __init__(self) -> None:
        self.items: deque[Message | bytes] = deque()
        self.ended = False
        self.failure: str | None = None
        self.changed = asyncio.Event()


class FakeStream:
    """`agent.rpc.stream.Stream` in memory; `FakeStream.pair()` gives both ends."""

    def __init__(self, inward: _Pipe, outward: _Pipe) -> None:
        self._in = inward
        self._out = outward

    @classmethod
    def pair(cls) -> tuple[FakeStream, FakeStream]:
        one, other = _Pipe(), _Pipe()
        return cls(one, other), cls(other, one)

    def put(self, message: Message) -> None:
        if self._out.failure is not None:
            raise StreamFailed(self._out.failure)
        self._out.items.append(message)
        self._out.changed.set()

    async def send(self, message: Message) -> None:
        self.put(message)
        await asyncio.sleep(0)

    async def _next(self) -> Message | bytes | None:
        while True:
            if self._in.failure is not None:
                raise StreamFailed(self._in.failure)
            if self._in.items:
                return self._in.items.popleft()
            if self._in.ended:
                return None
            self._in.changed.clear()
            await self._in.changed.wait()

    async def receive(self) -> Message:
        item = await self._next()
        if item is None:
            raise StreamEnded("the other side is done")
        assert isinstance(item, Message)
        return item

    async def send_bytes(self, data: bytes) -> None:
        if self._out.failure is not None:
            raise StreamFailed(self._out.failure)
        self._out.items.append(bytes(data))
        self._out.changed.set()
        await asyncio.sleep(0)

    async def receive_bytes(self) -> bytes:
        item = await self._next()
        assert item is None or isinstance(item, bytes)
        return item or b""

    async def end(self) -> None:
        self._out.ended = True
        self._out.changed.set()

    def fail_now(self, text: str) -> None:
        self.break_off(text)

    def break_off(self, text: str) -> None:
        for pipe in (self._in, self._out):
            if pipe.failure is None:
                pipe.failure = text
            pipe.changed.set()

    async def fail(self, text: str) -> None:
        # What was sent before the failure has arrived.
        while self._out.items and self._out.failure is None:
            await asyncio.sleep(0)
        self.break_off(text)

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        yield

    @property
    def failed(self) -> bool:
        return self._in.failure is not None

"""Connections to the managers that do not lead, kept for the day when one of them does.

After the loss of a leader a thousand nodes ask the others at once. A question on a connection that stands costs a manager a
tenth of a handshake; so the handshakes are made long before, one after the other, and the questions are all that is left.
"""

from __future__ import annotations

import asyncio
import logging
import random as randomness
from collections.abc import Awaitable, Callable

from agent.rpc.connection import Connection
from agent.rpc.errors import RpcError
from agent.worker.task_runner import Sleep

log = logging.getLogger(__name__)

ASKED_PATIENCE = 1.5
"""Seconds until a connection is given up whose host acknowledges no question. The agent there may be as busy as it likes."""

KEPT_PATIENCE = 10.0
"""The same while nothing is asked and only the kernel looks after it: one lost packet is no reason for a handshake."""

FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds from one attempt at a manager that is away to the next. A search for a leader does not wait for these."""


class Standing:
    """Control connections by address. `close` ends one; `dial` makes one."""

    def __init__(
        self,
        dial: Callable[[str], Awaitable[Connection]],
        close: Callable[[Connection, str], None],
        *,
        sleep: Sleep,
        random: randomness.Random,
    ) -> None:
        self._dial = dial
        self._close = close
        self._sleep = sleep
        self._random = random
        self._of: dict[str, Connection] = {}
        self._generation = 0
        self._is_shut = False

    @property
    def generation(self) -> int:
        """Changes with every `let_go`: connections of an earlier one are not taken back."""
        return self._generation

    def take(self, address: str) -> Connection | None:
        """The connection to this manager, to ask something on it; it is the caller's until it is `put` back."""
        connection = self._of.pop(address, None)
        if connection is None or connection.closed:
            return None
        connection.give_up_after(ASKED_PATIENCE)
        return connection

    def put(self, address: str, connection: Connection, generation: int) -> None:
        """Keep it, if it stands and was made since the last `let_go`."""
        before = self._of.get(address)
        if self._is_shut or generation != self._generation or (before is not None and not before.closed):
            self._close(connection, "the node has another connection")
        elif not connection.closed:
            self._of[address] = connection

    def let_go(self, reason: str) -> None:
        """Close all of them; what is being made or asked on is closed when it is `put` back."""
        self._generation += 1
        while self._of:
            self._close(self._of.popitem()[1], reason)

    def shut(self, reason: str) -> None:
        """As `let_go`, for good."""
        self._is_shut = True
        self.let_go(reason)

    async def keep(
        self, managers: Callable[[], set[str]], changed: Callable[[], Awaitable[None]], spread: float
    ) -> None:
        """Hold a connection to each of `managers()` and to nobody else until cancelled; the connections stay then.

        `changed` returns when there may be others. A connection that has to be made first is made within `spread` seconds
        from now, at a moment drawn at random: all nodes begin this together.
        """
        holding: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = managers()
                for address in [address for address in holding if address not in wanted]:
                    holding.pop(address).cancel()
                for address in [address for address in self._of if address not in wanted]:
                    self._close(self._of.pop(address), "this node needs no connection to it")
                for address in wanted - holding.keys():
                    holding[address] = group.create_task(self._hold(address, spread))
                await changed()

    async def _hold(self, address: str, spread: float) -> None:
        pause, retry = self._random.uniform(0, spread), FIRST_RETRY
        while True:
            connection = self._of.get(address)
            if connection is not None and not connection.closed:
                connection.give_up_after(KEPT_PATIENCE)
                await connection.wait_closed()
                pause = self._random.uniform(0, spread + FIRST_RETRY)
            await self._sleep(pause)
            generation = self._generation
            try:
                made = await self._dial(address)
            except RpcError as error:
                log.debug("no connection to the manager at %s: %s", address, error)
                pause, retry = retry * self._random.uniform(0.5, 1.0), min(LAST_RETRY, retry * 2)
            else:
                pause, retry = 0.0, FIRST_RETRY
                self.put(address, made, generation)

"""The search for a manager: all that are known are asked at once, each again after a pause, until one says yes.

There is never more than one question on its way to an address, however slow its answer is: a thousand nodes that lose their
manager together must not bury the next one under questions that nobody waits for any more. For the same reason the time
that an answer may take doubles with every one that did not come.
"""

from __future__ import annotations

import asyncio
import random as randomness
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, Generic, TypeVar

from agent.worker.task_runner import Sleep, retry_delay

ATTEMPT_PERIOD = 0.5
"""Seconds at most between two questions to an address that does not answer. Short: a node that was cut off has old copies to
stop within a second of coming back."""

ATTEMPT_LIFE = 5.0
"""Seconds until the first question to an address is given up, and the next one is put on a new connection."""

LONGEST_LIFE = 20.0

HINT_PAUSE = 0.1
"""Seconds at least from one question to the next that another manager's answer asks for."""

T = TypeVar("T")


class Answer(Enum):
    """Why an address did not say yes; the pauses differ."""

    NONE = "nobody is there"
    LATE = "no answer in time"
    NOT_NOW = "not now, and asking costs little"
    NO = "no, and asking costs a handshake"


_LONGEST_PAUSE = {Answer.NONE: ATTEMPT_PERIOD, Answer.LATE: ATTEMPT_PERIOD, Answer.NOT_NOW: 1.0, Answer.NO: 5.0}


def pause_after(answer: Answer, times: int) -> float:
    """Seconds until the address is asked again, that has answered so `times` times in a row. Without jitter.

    Those who answer are left in peace more and more; those who do not may come back at any moment.
    """
    return min(_LONGEST_PAUSE[answer], max(ATTEMPT_PERIOD, retry_delay(times - 1) if times > 1 else 0.0))


def jittered(random: randomness.Random, seconds: float) -> float:
    """Half of it to all of it, so that nodes that lost the same manager do not stay in step."""
    return seconds * random.uniform(0.5, 1.0)


class Search(Generic[T]):
    """`run()` once. `ask` puts one question to an address and returns what it gained, or raises; `judge` says what such an
    error means, and which address to ask at once instead; it raises to end the search. What `ask` gained too late is given
    to `discard`.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[T]],
        judge: Callable[[str, Exception], tuple[Answer, str | None]],
        discard: Callable[[T], None],
        *,
        sleep: Sleep,
        random: randomness.Random,
    ) -> None:
        self._ask = ask
        self._judge = judge
        self._discard = discard
        self._sleep = sleep
        self._random = random
        self._asking: dict[str, asyncio.Task[T]] = {}
        self._hinted: dict[str, asyncio.Event] = {}
        self._added: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False
        """Whether what is still asked is asked in vain: it is cancelled for no fault of who is asked."""

    async def run(self, addresses: Iterable[str]) -> T:
        """What the first address that says yes gave. `addresses` in the order in which they are asked."""
        found: asyncio.Task[T] | None = None
        try:
            for address in addresses:
                self._begin(address)
            while found is None:
                # A hint may add an address to those that are asked.
                waiting: set[asyncio.Future[Any]] = {self._added, *self._asking.values()}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                self._added = asyncio.get_running_loop().create_future()
                found = next((asking for asking in self._asking.values() if asking.done()), None)
        finally:
            await self._give_up(found)
        return found.result()

    def _begin(self, address: str) -> None:
        if address not in self._asking:
            self._hinted[address] = asyncio.Event()
            self._asking[address] = asyncio.ensure_future(self._keep_asking(address))

    async def _keep_asking(self, address: str) -> T:
        """Ask one address until it says yes."""
        hinted, loop = self._hinted[address], asyncio.get_running_loop()
        life = ATTEMPT_LIFE
        last: Answer | None = None
        times = 0
        while True:
            hinted.clear()
            begun = loop.time()
            try:
                async with asyncio.timeout(life):
                    return await self._ask(address)
            except Exception as error:
                answer, elsewhere = self._judge(address, error)
            life = min(LONGEST_LIFE, life * 2) if answer is Answer.LATE else ATTEMPT_LIFE
            last, times = answer, times + 1 if answer is last else 1
            if elsewhere is not None and elsewhere != address:
                self._hint(elsewhere)
            await self._rest(jittered(self._random, pause_after(answer, times)), hinted, begun + HINT_PAUSE)

    async def _rest(self, seconds: float, hinted: asyncio.Event, earliest: float) -> None:
        """Wait for so long; a hint ends that early, but not before `earliest` on the loop's clock."""
        resting = asyncio.ensure_future(self._sleep(seconds))
        hint = asyncio.ensure_future(hinted.wait())
        try:
            await asyncio.wait({resting, hint}, return_when=asyncio.FIRST_COMPLETED)
            if not resting.done():
                wait = min(seconds, earliest - asyncio.get_running_loop().time())
                if wait > 0:
                    await self._sleep(jittered(self._random, wait))
        finally:
            resting.cancel()
            hint.cancel()
            await asyncio.wait({resting, hint})

    def _hint(self, address: str) -> None:
        """Another manager says that this one leads."""
        if address in self._hinted:
            self._hinted[address].set()
        else:
            self._begin(address)
            if not self._added.done():
                self._added.set_result(None)

    async def _give_up(self, found: asyncio.Task[T] | None) -> None:
        """End what is still being asked. What was gained all the same is given back; cancelled, so is what was `found`."""
        self.over = True
        others = {asking for asking in self._asking.values() if asking is not found}
        for asking in others:
            asking.cancel()
        try:
            if others:
                await asyncio.wait(others)
        except asyncio.CancelledError:
            found = None
            raise
        finally:
            for asking in self._asking.values():
                if asking is found:
                    continue
                if not asking.done():
                    asking.add_done_callback(self._give_back)
                else:
                    self._give_back(asking)

    def _give_back(self, asking: asyncio.Task[T]) -> None:
        if not asking.cancelled() and asking.exception() is None:
            self._discard(asking.result())

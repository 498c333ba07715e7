"""What a manager that does not lead answers: where the leader is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.api_types.errors import Unavailable
from agent.api_types.times import Clock
from agent.manager.group import ELSEWHERE, elsewhere, leader_of
from agent.raft.interface import GroupStatus
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import Message
from agent.rpc.stream import Stream

ONLY_THE_LEADER = ("renew", "depart", "join")


def following_handlers(status: Callable[[], GroupStatus], monotonic: Clock) -> Mapping[str, Handler]:
    """Handlers for as long as this manager does not lead. `monotonic` is the clock of `status().leaderless_since`."""

    async def session(stream: Stream, opening: Message, connection: Connection) -> None:
        await stream.send(elsewhere(status(), monotonic()))

    async def refuse(stream: Stream, opening: Message, connection: Connection) -> None:
        leader = leader_of(status())
        raise Unavailable(f"{ELSEWHERE}; " + (f"ask {leader.address}" if leader else "no leader is known, try again"))

    return {"session": session, **dict.fromkeys(ONLY_THE_LEADER, refuse)}

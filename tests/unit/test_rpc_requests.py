"""What a node asks of the leader: a certificate, to be let go, its API; and every answer that is not the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from rpc_cluster import Heartbeat, TestCluster, connected, listening

from agent.api_types.errors import PermissionDenied, Unavailable
from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.pki.identity import NodeKey
from agent.pki.root import RootCA
from agent.rpc.client import depart, dial, open_api, renew
from agent.rpc.connection import Connection, Handler
from agent.rpc.errors import Refused, RpcError, Unreachable
from agent.rpc.messages import (
    ApiOpen,
    ApiReady,
    DepartAnswer,
    DepartOpen,
    Message,
    RenewAnswer,
    RenewOpen,
)
from agent.rpc.peer import Purpose
from agent.rpc.stream import Stream

Ask = Callable[[Connection], Awaitable[object]]


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


def signer(cluster: TestCluster, *, node_id: str = "", role: NodeRole = NodeRole.WORKER) -> Handler:
    async def handler(stream: Stream, opening: Message, connection: Connection) -> None:
        assert isinstance(opening, RenewOpen)
        certificate = cluster.root.sign(
            opening.request,
            node_id or connection.peer.node_id,
            role,
            cluster_id=cluster.cluster_id,
            clock=now_ns,
        )
        await stream.send(RenewAnswer(certificate=certificate, roots=cluster.root.cert_pem))

    return handler


async def test_a_renewed_certificate_is_in_the_role_that_the_cluster_wants(cluster: TestCluster) -> None:
    async with connected(cluster, {"renew": signer(cluster, role=NodeRole.MANAGER)}) as (dialled, _):
        key = NodeKey.create()
        identity = await renew(dialled, key)
        assert (identity.node_id, identity.role, identity.key_pem) == ("worker1", NodeRole.MANAGER, key.pem)
        async with (
            listening(cluster, identity=identity) as listener,
            await dial(
                listener.address, cluster.identity("worker2"), purpose=Purpose.CONTROL, expect_role=NodeRole.MANAGER
            ),
        ):
            pass


async def test_a_certificate_that_does_not_fit(cluster: TestCluster) -> None:
    other = TestCluster(root=RootCA.create(now_ns))

    async def wrong_roots(stream: Stream, opening: Message, connection: Connection) -> None:
        identity = other.identity(connection.peer.node_id)
        await stream.send(RenewAnswer(certificate=identity.certificate_pem, roots=cluster.root.cert_pem))

    for handler, text in (
        (signer(cluster, node_id="worker2"), "is for node worker2, not worker1"),
        (wrong_roots, "does not fit"),
    ):
        async with connected(cluster, {"renew": handler}) as (dialled, _):
            with pytest.raises(Refused, match=text):
                await renew(dialled, NodeKey.create())


async def test_departing(cluster: TestCluster) -> None:
    answers = [DepartAnswer(), DepartAnswer("this is the last manager")]

    async def handler(stream: Stream, opening: Message, connection: Connection) -> None:
        assert opening == DepartOpen()
        await stream.send(answers.pop(0))

    async with connected(cluster, {"depart": handler}) as (dialled, _):
        await depart(dialled)
        with pytest.raises(Refused, match="the last manager"):
            await depart(dialled)


async def test_an_exchange_with_the_leaders_api(cluster: TestCluster) -> None:
    async def handler(stream: Stream, opening: Message, connection: Connection) -> None:
        assert isinstance(opening, ApiOpen)
        if opening.term != 7:
            await stream.send(ApiReady(f"term {opening.term} is over"))
            return
        await stream.send(ApiReady())
        asked = b""
        while data := await stream.receive_bytes():
            asked += data
        await stream.send_bytes(asked[::-1] + opening.caller.encode())

    async with connected(cluster, {"api": handler}) as (dialled, _):
        async with await open_api(dialled, 7, "someone") as stream:
            await stream.send_bytes(b"abc" * 100_000)
            await stream.end()
            answer = b""
            while data := await stream.receive_bytes():
                answer += data
        assert answer == (b"abc" * 100_000)[::-1] + b"someone"
        with pytest.raises(Refused, match="term 6 is over"):
            await open_api(dialled, 6, "someone")
        assert dialled.stream_count == 0


async def _wrong_type(stream: Stream, opening: Message, connection: Connection) -> None:
    await stream.send(Heartbeat())


async def _no_answer(stream: Stream, opening: Message, connection: Connection) -> None:
    return


async def _denied(stream: Stream, opening: Message, connection: Connection) -> None:
    raise PermissionDenied("node worker1 was removed")


async def _elsewhere(stream: Stream, opening: Message, connection: Connection) -> None:
    raise Unavailable("this manager does not lead")


async def _lost(stream: Stream, opening: Message, connection: Connection) -> None:
    connection.abort("the power went")
    await asyncio.Event().wait()


async def _silent(stream: Stream, opening: Message, connection: Connection) -> None:
    async with stream.guard():
        await asyncio.Event().wait()


ASKS: Mapping[str, Ask] = {
    "renew": lambda connection: renew(connection, NodeKey.create(), timeout=0.05),
    "depart": lambda connection: depart(connection, timeout=0.05),
    "api": lambda connection: open_api(connection, 1, "someone", timeout=0.05),
}


@pytest.mark.parametrize("method", ASKS)
@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (_wrong_type, Refused, "answered a Heartbeat"),
        (_no_answer, Unreachable, "without an answer"),
        (_denied, Refused, "node worker1 was removed"),
        (_elsewhere, Refused, "does not lead"),
        (_lost, Unreachable, "closed the connection|broke off"),
        (_silent, Unreachable, r"no answer from manager manager1 at .* within 0.05 s"),
    ],
)
async def test_every_other_answer(
    cluster: TestCluster, method: str, handler: Handler, kind: type[RpcError], text: str
) -> None:
    async with connected(cluster, {method: handler}) as (dialled, accepted):
        with pytest.raises(kind, match=text):
            await ASKS[method](dialled)
        assert dialled.stream_count == 0
        dialled.close("enough")
        with pytest.raises(Unreachable):
            await ASKS[method](dialled)
        await accepted.wait_closed()


@pytest.mark.parametrize("method", ASKS)
async def test_a_manager_that_does_not_know_the_method(cluster: TestCluster, method: str) -> None:
    async with connected(cluster) as (dialled, _):
        with pytest.raises(Refused, match="does not answer"):
            await ASKS[method](dialled)


@pytest.mark.parametrize("method", ASKS)
async def test_cancelled_at_every_turn(cluster: TestCluster, method: str) -> None:
    async with connected(cluster, {method: _silent}) as (dialled, accepted):
        for turns in range(8):
            asking = asyncio.ensure_future(ASKS[method](dialled))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert dialled.stream_count == 0
        while accepted.stream_count:
            await asyncio.sleep(0)

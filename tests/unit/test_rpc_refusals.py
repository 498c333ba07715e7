"""Who is not let in, and that both ends are told why in plain words; the listener goes on each time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from rpc_cluster import HOUR, MINUTE, Heartbeat, Limits, TestCluster, listening, moved, until

from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.tokens import InvalidJoinToken, join_token, make_secret, parse_token
from agent.rpc import listener as listener_module
from agent.rpc import pace as pace_module
from agent.rpc.addresses import split_address
from agent.rpc.client import _dial, dial, fetch_root, join
from agent.rpc.errors import ListenFailed, Refused, Removed, StreamFailed, Unreachable
from agent.rpc.frames import HEADER, MAX_BODY, FrameType
from agent.rpc.listener import Listener
from agent.rpc.messages import JoinOpen
from agent.rpc.pace import Pace
from agent.rpc.peer import Purpose
from agent.rpc.protocols import Protocols
from agent.rpc.tls import client_context, joining_context


@pytest.fixture
def cluster() -> TestCluster:
    return TestCluster()


@asynccontextmanager
async def still_serving(cluster: TestCluster, listener: Listener) -> AsyncIterator[None]:
    """After the body, a good node is served as ever."""
    yield
    async with await dial(listener.address, cluster.identity("worker9"), purpose=Purpose.CONTROL) as connection:
        stream = await connection.open("echo", Heartbeat())
        assert await stream.receive() == Heartbeat()


async def logged(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """Wait for a line of the listener's log that has all the words."""
    await until(lambda: any(all(word in line for word in words) for line in caplog.messages))


async def refused(listener: Listener, identity: NodeIdentity, **options: object) -> str:
    with pytest.raises(Refused) as caught:
        await dial(listener.address, identity, purpose=Purpose.CONTROL, handlers={}, **options)  # type: ignore[arg-type]
    return str(caught.value)


async def test_a_node_of_another_cluster_is_refused(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, TestCluster().identity("stranger"))
        assert listener.address in text
        assert "belongs to another cluster" in text
        await logged(caplog, "refused 127.0.0.1", "does not know who signed this node's certificate")


async def test_a_foreign_certificate_with_the_right_root_is_refused(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The client trusts the listener; only the listener sees what is wrong, after the client's handshake is done."""
    foreign = TestCluster().identity("stranger")
    half = object.__new__(NodeIdentity)
    half.__dict__.update(foreign.__dict__, root_pem=cluster.root.cert_pem)
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, half)
        assert "does not know who signed this node's certificate" in text
        await logged(caplog, "refused 127.0.0.1", "not signed by this cluster's certificate authority")


async def test_the_same_root_but_another_cluster_id(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    other = TestCluster(cluster_id="cluster2", root=cluster.root)
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, other.identity("worker1"))
        assert "node worker1 is part of cluster cluster2, node manager1 of cluster cluster1" in text
        await logged(caplog, "node worker1 is part of cluster cluster2")


async def test_an_expired_client_certificate(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    expired = cluster.identity("worker1", clock=moved(-10 * DAY), expiry=7 * DAY)
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, expired)
        assert "the certificate of node worker1 expired on " in text
        assert "3 d ago by the clock of node manager1: let node worker1 leave the cluster and join again" in text
        await logged(caplog, "the certificate of node worker1 expired on ")


async def test_an_expired_listener_certificate(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    expired = cluster.identity("manager1", NodeRole.MANAGER, clock=moved(-10 * DAY), expiry=7 * DAY)
    async with listening(cluster, identity=expired) as listener:
        text = await refused(listener, cluster.identity("worker1"))
        assert "the certificate of node manager1 expired on " in text
        await logged(caplog, "refused the connection: the certificate of node manager1 expired on ")


async def test_a_certificate_of_the_future(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    future = cluster.identity("worker1", clock=moved(2 * HOUR))
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, future)
        assert "the certificate of node worker1 is valid from " in text
        assert "set the clocks (NTP)" in text
        await logged(caplog, "the certificate of node worker1 is valid from ")


_HOUR_OFF = ("1 h", "59 min 59 s")
_DAY_OFF = ("1 d", "23 h 59 min")
_OFF = [(HOUR, _HOUR_OFF), (-HOUR, _HOUR_OFF), (DAY, _DAY_OFF), (-DAY, _DAY_OFF)]


@pytest.mark.parametrize(("by", "words"), _OFF)
async def test_a_clock_that_is_off(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture, by: int, words: tuple[str, ...]
) -> None:
    identity = cluster.identity("worker1", clock=moved(by))
    async with listening(cluster) as listener, still_serving(cluster, listener):
        text = await refused(listener, identity, clock=moved(by))
        # The hello is under way for less than a second, so the figure may be just below.
        assert any(f"the clocks differ by {text_of}" in text for text_of in words)
        assert "node worker1 says " in text
        assert "node manager1 says " in text
        await logged(caplog, "the clocks differ by ", "node worker1 says ")


@pytest.mark.parametrize("by", [50 * MINUTE, -50 * MINUTE])
async def test_a_clock_that_is_a_little_off_is_measured(cluster: TestCluster, by: int) -> None:
    """Fifty minutes behind, a certificate signed just now is still good: it was backdated by an hour."""
    async with listening(cluster) as listener:
        connection = await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL, clock=moved(by))
        async with connection:
            assert connection.peer.clock_difference == pytest.approx(-by, abs=MINUTE / 60)
            await until(lambda: bool(listener.connections))
            (accepted,) = listener.connections
            assert accepted.peer.clock_difference == pytest.approx(by, abs=MINUTE / 60)


async def test_a_removed_node_is_told(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    def accept(peer: object) -> str | None:
        return "node worker1 was removed from the cluster" if getattr(peer, "node_id") == "worker1" else None  # noqa: B009

    async with listening(cluster, accept=accept) as listener, still_serving(cluster, listener):
        text = await refused(listener, cluster.identity("worker1"))
        assert text.endswith("refused the connection: node worker1 was removed from the cluster")
        await logged(caplog, "refused 127.0.0.1", "node worker1 was removed from the cluster")


@pytest.mark.parametrize(
    ("mine", "theirs", "common"),
    [
        (Protocols(2, 2), Protocols(2, 2), 2),
        (Protocols(2, 3), Protocols(2, 9), 3),
        (Protocols(2, 9), Protocols(1, 3), 3),
        (Protocols(1, 4), Protocols(4, 6), 4),
    ],
)
async def test_versions_that_share_a_protocol_talk_the_highest(
    cluster: TestCluster, mine: Protocols, theirs: Protocols, common: int
) -> None:
    async with (
        listening(cluster, spoken=theirs) as listener,
        await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL, spoken=mine) as connection,
    ):
        stream = await connection.open("echo", Heartbeat())
        assert await stream.receive() == Heartbeat()
        (accepted,) = listener.connections
        assert (connection.peer.protocol, accepted.peer.protocol) == (common, common)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (Protocols(1, 1), "one speaks protocol 1, the other protocols 3 to 4"),
        (Protocols(7, 9), "one speaks protocols 3 to 4, the other protocols 7 to 9"),
    ],
)
async def test_versions_that_share_none_are_told(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture, mine: Protocols, words: str
) -> None:
    async with listening(cluster, spoken=Protocols(3, 4)) as listener:
        text = await refused(listener, cluster.identity("worker1"), spoken=mine)
        assert words in text
        assert "upgrade the agent that speaks the older" in text
        await logged(caplog, "refused 127.0.0.1", words)
        identity = cluster.identity("worker1")
        async with await dial(listener.address, identity, purpose=Purpose.CONTROL, spoken=Protocols(4, 5)) as good:
            assert good.peer.protocol == 4


async def test_a_worker_where_a_manager_is_expected(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(cluster, identity=cluster.identity("worker2")) as listener:
        text = await refused(listener, cluster.identity("worker1"), expect_role=NodeRole.MANAGER)
        assert "node worker2 is a worker, and only a manager will do" in text
        text = await refused(listener, cluster.identity("worker1"), expect_node="worker3")
        assert "node worker2 answers where node worker3 was expected" in text
        await logged(caplog, "refused the connection: node worker2 is a worker")


async def test_without_a_certificate_only_join_and_ca(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    """A stranger that calls itself a node is refused; one that joins gets no other method."""
    context = joining_context(cluster.root.cert_pem)
    async with listening(cluster, join=cluster) as listener, still_serving(cluster, listener):
        options = {"expect_node": None, "expect_role": None, "source": None, "clock": now_ns, "timeout": 10.0}
        with pytest.raises(Refused, match="this needs a node certificate: join the cluster first"):
            await _dial(listener.address, context, None, Purpose.CONTROL, handlers={}, **options)  # type: ignore[arg-type]
        await logged(caplog, "refused", "this needs a node certificate")
        async with await _dial(listener.address, context, None, Purpose.JOIN, handlers={}, **options) as connection:  # type: ignore[arg-type]
            stream = await connection.open("echo", Heartbeat())
            with pytest.raises(StreamFailed, match="this needs a node certificate: join the cluster first"):
                await stream.receive()


async def test_a_removed_node_cannot_pose_as_a_newcomer(cluster: TestCluster) -> None:
    async with listening(cluster, accept=lambda peer: "removed") as listener:
        with pytest.raises(Removed, match="refused the connection: removed"):
            await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.JOIN)


async def test_a_stranger_cannot_fill_the_memory(cluster: TestCluster) -> None:
    context = joining_context(cluster.root.cert_pem)
    options = {"expect_node": None, "expect_role": None, "source": None, "clock": now_ns, "timeout": 10.0}
    async with listening(cluster, join=cluster) as listener, still_serving(cluster, listener):
        connection = await _dial(listener.address, context, None, Purpose.JOIN, handlers={}, **options)  # type: ignore[arg-type]
        async with connection:
            connection._max_message = 1 << 20
            stream = await connection.open("join", JoinOpen(secret="s", request=b"x" * 200_000))
            with pytest.raises(StreamFailed, match="a message of more than 65536 bytes"):
                await stream.receive()
            await until(lambda: connection.stream_count == 0)


# -- joining


async def test_join(cluster: TestCluster) -> None:
    key = NodeKey.create()
    async with listening(cluster, join=cluster) as listener:
        answer = await join(listener.address, cluster.token, key)
        identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
        assert (identity.node_id, identity.role) == ("joined1", NodeRole.WORKER)
        async with await dial(listener.address, identity, purpose=Purpose.CONTROL) as connection:
            assert connection.peer.node_id == "manager1"


async def test_join_with_a_wrong_secret(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    secret = make_secret()
    async with listening(cluster, join=cluster) as listener, still_serving(cluster, listener):
        with pytest.raises(InvalidJoinToken, match=r"^invalid join token$"):
            await join(listener.address, join_token(cluster.root.digest, secret), NodeKey.create())
        await logged(caplog, "refused to let the client at 127.0.0.1", "invalid join token")
        assert secret not in caplog.text


async def test_join_with_a_token_of_another_cluster(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    """The secret never leaves: the root is compared first."""
    asked: list[object] = []

    class Watching(TestCluster):
        async def issue(self, request, peer):  # type: ignore[no-untyped-def]
            asked.append(request)

    async with listening(cluster, join=Watching()) as listener, still_serving(cluster, listener):
        with pytest.raises(InvalidJoinToken, match=r"root certificate of the cluster at .* is not the one"):
            await join(listener.address, TestCluster().token, NodeKey.create())
        assert not asked
        await logged(caplog, "the client at 127.0.0.1", "invalid join token: it names another root certificate")


async def test_join_with_no_token(cluster: TestCluster) -> None:
    with pytest.raises(InvalidJoinToken, match=r"^invalid join token$"):
        await join("127.0.0.1:1", "SWMTKN-1-bad", NodeKey.create())


async def test_join_at_a_worker(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(cluster, identity=cluster.identity("worker1")) as listener:
        with pytest.raises(Refused, match="node worker1 is not a manager: give the address of one"):
            await join(listener.address, cluster.token, NodeKey.create())


async def test_a_worker_cannot_steal_a_token(cluster: TestCluster) -> None:
    """A worker has a certificate of the right root and could offer to admit nodes; the secret is not for it."""
    async with listening(cluster, identity=cluster.identity("worker1"), join=cluster) as listener:
        with pytest.raises(Refused, match="node worker1 is a worker, and only a manager will do"):
            await join(listener.address, cluster.token, NodeKey.create())


async def test_a_second_root_beside_the_real_one_is_not_trusted(cluster: TestCluster) -> None:
    """Who sits in between may show the real root, which is no secret, together with its own."""
    thief = TestCluster(cluster_id=cluster.cluster_id)
    both = object.__new__(NodeIdentity)
    both.__dict__.update(
        thief.identity("manager1", NodeRole.MANAGER).__dict__, root_pem=cluster.root.cert_pem + thief.root.cert_pem
    )
    async with listening(thief, identity=both, join=thief) as listener:
        assert await fetch_root(listener.address, parse_token(cluster.token)[0]) == cluster.root.cert_pem
        with pytest.raises(Refused, match="belongs to another cluster"):
            await join(listener.address, cluster.token, NodeKey.create())


@pytest.mark.parametrize(("by", "words"), _OFF)
async def test_join_says_by_how_much_the_clocks_differ(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture, by: int, words: tuple[str, ...]
) -> None:
    async with listening(cluster, join=cluster) as listener, still_serving(cluster, listener):
        differ = "|".join(words)
        with pytest.raises(
            Refused, match=rf"the clocks differ by ({differ}): the joining node says .*set them \(NTP\)"
        ):
            await join(listener.address, cluster.token, NodeKey.create(), clock=moved(by))
        await logged(caplog, "refused 127.0.0.1", "the clocks differ by ")


async def test_a_join_that_takes_too_long(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    class Slow(TestCluster):
        async def issue(self, request, peer):  # type: ignore[no-untyped-def]
            await asyncio.Event().wait()

    limits = Limits(joining=0.2)
    async with listening(cluster, join=Slow(), limits=limits) as listener, still_serving(cluster, listener):
        with pytest.raises(Unreachable, match="time is up"):
            await join(listener.address, cluster.token, NodeKey.create())
        await logged(caplog, "closed the client at 127.0.0.1", "not done within 0.2 s")


# -- on the wire


async def raw(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*split_address(listener.address))


async def answer_of(listener: Listener, data: bytes) -> bytes:
    """What a plain socket that sends `data` is answered until the end."""
    reader, writer = await raw(listener)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_plain_text(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(cluster) as listener, still_serving(cluster, listener):
        assert b"This port speaks TLS 1.3" in await answer_of(listener, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await logged(caplog, "refused 127.0.0.1", "plain text")


async def test_garbage_that_looks_like_tls(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(cluster) as listener, still_serving(cluster, listener):
        await answer_of(listener, b"\x16\x03\x01\x00\x05hello" + b"\x00" * 100)
        await logged(caplog, "refused 127.0.0.1", "TLS")


async def test_tls_1_2(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(cluster) as listener, still_serving(cluster, listener):
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await asyncio.open_connection(*split_address(listener.address), ssl=context)
        await logged(caplog, "refused 127.0.0.1", "does not speak TLS 1.3")


async def test_a_half_open_connection(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        listening(cluster, limits=Limits(handshake=0.2)) as listener,
        still_serving(cluster, listener),
    ):
        reader, writer = await raw(listener)
        assert await reader.read() == b""
        writer.close()
        await logged(caplog, "refused 127.0.0.1", "no hello within 0.2 s")


async def test_tls_without_a_hello_is_told(cluster: TestCluster, caplog: pytest.LogCaptureFixture) -> None:
    context = client_context(cluster.identity("worker1"))
    async with listening(cluster, limits=Limits(handshake=0.2)) as listener:
        reader, writer = await asyncio.open_connection(*split_address(listener.address), ssl=context)
        assert b"no hello within 0.2 s" in await reader.read()
        writer.close()


async def speak(listener: Listener, identity: NodeIdentity, data: bytes) -> bytes:
    """A node with a good certificate that does not keep to the protocol; returns what it is answered."""
    context = client_context(identity)
    reader, writer = await asyncio.open_connection(*split_address(listener.address), ssl=context)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (HEADER.pack(MAX_BODY + 1, 0, FrameType.HELLO), f"a frame of {MAX_BODY + 1} bytes"),
        (HEADER.pack(4_000_000_000, 0, FrameType.HELLO), "a frame of 4000000000 bytes"),
        (HEADER.pack(0, 0, 99), "a frame of unknown type 99"),
        (HEADER.pack(0, 1, FrameType.OPEN), "a frame of type OPEN before the hello"),
        (HEADER.pack(3, 0, FrameType.HELLO) + b"abc", "a hello that cannot be read"),
        (HEADER.pack(0, 0, FrameType.HELLO), "a hello that cannot be read"),
    ],
)
async def test_garbage_inside_tls(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture, data: bytes, text: str
) -> None:
    async with listening(cluster) as listener, still_serving(cluster, listener):
        assert text.encode() in await speak(listener, cluster.identity("worker1"), data)
        await logged(caplog, "127.0.0.1", text)


async def test_dialling_something_else(cluster: TestCluster) -> None:
    """A port that speaks no TLS, one that never answers, and one where nobody listens."""
    identity = cluster.identity("worker1")

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(Refused, match=rf"{host}:{port}: it does not speak TLS"):
            await dial(f"{host}:{port}", identity, purpose=Purpose.CONTROL)
    with pytest.raises(Unreachable, match=r"cannot connect to .*: Connection refused; is the agent running there"):
        await dial(f"{host}:{port}", identity, purpose=Purpose.CONTROL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with pytest.raises(Unreachable, match=r"no answer from .* within 0.2 s"):
            await dial(f"{host}:{port}", identity, purpose=Purpose.CONTROL, timeout=0.2)
    with pytest.raises(Unreachable, match="is not an address"):
        await dial("nonsense", identity, purpose=Purpose.CONTROL)


async def test_strangers_are_bounded_and_the_oldest_gives_way(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(strangers=3, patience=0.1, handshake=30)
    async with listening(cluster, limits=limits) as listener:
        async with still_serving(cluster, listener):
            silent = [await raw(listener) for _ in range(6)]
            await until(lambda: listener.strangers == 3)
        assert listener.strangers <= 3
        await logged(caplog, "gave way to others")
        for _, writer in silent:
            writer.close()


async def test_an_address_that_is_taken(cluster: TestCluster) -> None:
    async with listening(cluster) as listener:
        identity = cluster.identity("worker1")
        with pytest.raises(
            ListenFailed, match=rf"cannot listen on {listener.address}: Address already in use \(is another"
        ):
            async with Listener(listener.address, lambda: identity, handlers={}):
                pass


async def test_out_of_file_descriptors(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections wait in the kernel's queue until there are some again; those that stand go on."""
    monkeypatch.setattr(listener_module, "_ACCEPT_PAUSE", 0.05)
    async with listening(cluster) as listener, still_serving(cluster, listener):
        standing = await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL)
        async with standing:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.create_connection(split_address(listener.address)) as waiting:
                resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
                try:
                    await logged(caplog, "cannot accept connections: Too many open files")
                    stream = await standing.open("echo", Heartbeat())
                    assert await stream.receive() == Heartbeat()
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_handshakes_leave_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "HELPING", 0.0)
    pace, order = Pace(), list[str]()
    for name in "abc":
        pace(partial(order.append, name))
    for _ in range(3):
        await asyncio.sleep(0)
        order.append("other")
    assert order == ["a", "other", "b", "other", "c", "other"]


async def test_tasks_go_on_a_few_at_a_time_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "TASKS", 2)
    pace, order = Pace(), list[str]()

    async def go(name: str) -> None:
        await pace.turn()
        order.append(name)

    tasks = {name: asyncio.create_task(go(name)) for name in "abcde"}
    await asyncio.sleep(0)
    tasks["b"].cancel()
    seen = []
    while len(order) < 4:
        await asyncio.sleep(0)
        seen.append("".join(order))
    assert order == list("acde")
    assert all(len(after) - len(before) <= 2 for before, after in itertools.pairwise(["", *seen]))


async def test_a_step_that_fails_takes_no_other_with_it() -> None:
    pace, order = Pace(), list[str]()
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context["exception"]))

    def fail() -> None:
        raise ValueError("a mistake")

    pace(fail)
    pace(partial(order.append, "next"))
    await pace.turn()
    await until(lambda: order == ["next"])
    assert [type(problem) for problem in problems] == [ValueError]


async def test_a_renewed_certificate_is_used_for_the_next_handshake(cluster: TestCluster) -> None:
    old = cluster.identity("manager1", NodeRole.MANAGER, clock=moved(-10 * DAY), expiry=7 * DAY)
    current = [old]
    async with listening(cluster, identity=lambda: current[0]) as listener:
        await refused(listener, cluster.identity("worker1"))
        current[0] = cluster.identity("manager1", NodeRole.MANAGER)
        async with await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL) as connection:
            assert connection.peer.node_id == "manager1"


async def test_a_callback_that_fails_ends_one_connection(
    cluster: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [True]

    def told(connection: object) -> None:
        if failing.pop() if failing else False:
            raise ZeroDivisionError

    async with listening(cluster, on_connection=told) as listener:
        async with still_serving(cluster, listener):
            connection = await dial(listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL)
            assert "127.0.0.1" in await connection.wait_closed()
        await logged(caplog, "serving 127.0.0.1", "failed")


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

"""Dialling another node, and joining a cluster; with what is asked of it then (`requests`)."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.api_types.node import NodeRole
from agent.api_types.times import Clock, now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import root_digest
from agent.pki.tokens import InvalidJoinToken, parse_token
from agent.rpc.addresses import split_address
from agent.rpc.admission import CA, JOIN
from agent.rpc.channel import Channel, attach_socket
from agent.rpc.connecting import connect_tcp
from agent.rpc.connection import Connection, Handler
from agent.rpc.errors import Refused, StreamEnded, StreamFailed, Unreachable, kernel_words
from agent.rpc.greeting import greet_as_client
from agent.rpc.messages import JoinAnswer, JoinOpen, JoinRefused, Message, RootAnswer, RootOpen
from agent.rpc.peer import Purpose
from agent.rpc.protocols import SPOKEN, Protocols
from agent.rpc.requests import depart, open_api, renew
from agent.rpc.stream import MAX_MESSAGE, MAX_MESSAGE_OF_STRANGER
from agent.rpc.tls import client_context, joining_context

__all__ = ["depart", "dial", "fetch_root", "join", "open_api", "renew"]


async def dial(
    address: str,
    identity: NodeIdentity,
    *,
    purpose: Purpose,
    handlers: Mapping[str, Handler] | None = None,
    expect_node: str | None = None,
    expect_role: NodeRole | None = None,
    source: str | None = None,
    clock: Clock = now_ns,
    timeout: float = 10.0,
    host_timeout: float | None = None,
    spoken: Protocols = SPOKEN,
) -> Connection:
    """Connect to the listener at `address` (`host:port`). Raises Unreachable or Refused.

    `expect_role` and `expect_node` refuse a peer that is another: a session wants a manager. `source` is the local
    address to connect from. `timeout` in seconds, for all of it. `handlers` answer what the other side opens.
    `host_timeout`, in seconds, is for the other host alone, be the agent on it as busy as it may: to take the connection,
    and from then on (`Connection.give_up_after`) to acknowledge what is sent.
    """
    return await _dial(
        address,
        client_context(identity),
        identity,
        purpose,
        handlers=handlers or {},
        expect_node=expect_node,
        expect_role=expect_role,
        source=source,
        clock=clock,
        timeout=timeout,
        host_timeout=host_timeout,
        spoken=spoken,
    )


async def fetch_root(
    address: str, digest: bytes, *, source: str | None = None, clock: Clock = now_ns, timeout: float = 10.0
) -> bytes:
    """The cluster's root certificate (PEM), which must have the token's `digest`. Raises Unreachable or Refused;
    InvalidJoinToken when the digest is another one.
    """
    async with _newcomer(address, joining_context(None), None, source, clock, timeout) as connection:
        answer = await _ask(connection, CA, RootOpen())
        root = _with_digest(answer.root, digest) if isinstance(answer, RootAnswer) else None
        if root is None:
            connection.refuse("invalid join token: it names another root certificate, so it is for another cluster")
    if not isinstance(answer, RootAnswer):
        raise Refused(
            f"{address} answered a {type(answer).__name__} where a root certificate was expected", by_peer=False
        )
    if root is None:
        raise InvalidJoinToken(
            f"invalid join token: the root certificate of the cluster at {address} is not the one that the token names"
        )
    return root


async def join(
    address: str,
    token: str,
    key: NodeKey,
    *,
    listen_address: str = "",
    hostname: str = "",
    availability: str = "",
    source: str | None = None,
    clock: Clock = now_ns,
    timeout: float = 30.0,
) -> JoinAnswer:
    """Ask the manager at `address` for a certificate. Raises InvalidJoinToken, Unreachable or Refused.

    The token's secret leaves only for a manager whose certificate is signed by the root that the token names. The answer
    has been checked: `NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)` works.
    """
    digest, secret = parse_token(token)
    root = await fetch_root(address, digest, source=source, clock=clock, timeout=timeout)
    request = JoinOpen(
        secret=secret, request=key.request(), hostname=hostname, address=listen_address, availability=availability
    )
    context = joining_context(root)
    async with _newcomer(address, context, NodeRole.MANAGER, source, clock, timeout) as connection:
        answer = await _ask(connection, JOIN, request)
    if isinstance(answer, JoinRefused):
        if answer.wrong_token:
            raise InvalidJoinToken(answer.text)
        raise Refused(answer.text, by_peer=True)
    if not isinstance(answer, JoinAnswer):
        raise Refused(f"{address} answered a {type(answer).__name__} where a certificate was expected", by_peer=False)
    try:
        identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
    except ValueError as error:
        raise Refused(f"the certificate that {address} gave does not fit: {error}", by_peer=False) from None
    if (identity.node_id, identity.role, identity.cluster_id) != (answer.node_id, answer.role, answer.cluster_id):
        raise Refused(f"the certificate that {address} gave is {identity!r}: that is not what it says", by_peer=False)
    return answer


async def _dial(
    address: str,
    context: ssl.SSLContext,
    identity: NodeIdentity | None,
    purpose: Purpose,
    *,
    handlers: Mapping[str, Handler],
    expect_node: str | None,
    expect_role: NodeRole | None,
    source: str | None,
    clock: Clock,
    timeout: float,
    host_timeout: float | None = None,
    spoken: Protocols = SPOKEN,
) -> Connection:
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise Unreachable(str(error)) from None
    channel = Channel(context, server_side=False)
    try:
        async with asyncio.timeout(timeout):
            await _connect(channel, address, host, port, source, host_timeout)
            await channel.handshake()
            peer = await greet_as_client(
                channel,
                identity,
                purpose,
                clock=clock,
                expect_node=expect_node,
                expect_role=expect_role,
                spoken=spoken,
            )
    except TimeoutError:
        failure = Unreachable(
            f"no answer from {address} within {timeout:g} s: is the agent running there, and the port open?"
        )
        channel.abort(failure)
        raise failure from None
    except Refused:
        # The other side reads why, for a second at most.
        try:
            await channel.wait_closed()
        finally:
            channel.abort(Unreachable("refused"))
        raise
    except BaseException:
        channel.abort(Unreachable("dialling was given up"))
        raise
    local_id = identity.node_id if identity else ""
    connection = Connection(
        channel,
        peer,
        purpose,
        local_id=local_id,
        dialled=True,
        handlers=handlers,
        max_message=MAX_MESSAGE if identity else MAX_MESSAGE_OF_STRANGER,
    )
    connection.begin()
    return connection


async def _connect(
    channel: Channel, address: str, host: str, port: int, source: str | None, host_timeout: float | None
) -> None:
    try:
        async with asyncio.timeout(host_timeout):
            connected = await connect_tcp(host, port, source)
            await attach_socket(asyncio.get_running_loop(), connected, channel)
    except TimeoutError:
        # The kernel's own is of the same class as that of asyncio.timeout.
        raise Unreachable(f"cannot connect to {address}: no answer; is the host up, and the port open?") from None
    except OSError as error:
        raise Unreachable(f"cannot connect to {address}: {kernel_words(error)}; is the agent running there?") from None
    if host_timeout is not None:
        channel.give_up_after(host_timeout)


@asynccontextmanager
async def _newcomer(
    address: str,
    context: ssl.SSLContext,
    expect_role: NodeRole | None,
    source: str | None,
    clock: Clock,
    timeout: float,
) -> AsyncIterator[Connection]:
    """A connection without a certificate, for one question; all of it within `timeout` seconds."""
    try:
        async with (
            asyncio.timeout(timeout),
            await _dial(
                address,
                context,
                None,
                Purpose.JOIN,
                handlers={},
                expect_node=None,
                expect_role=expect_role,
                source=source,
                clock=clock,
                timeout=timeout,
            ) as connection,
        ):
            yield connection
    except TimeoutError:
        raise Unreachable(f"no answer from {address} within {timeout:g} s") from None


async def _ask(connection: Connection, method: str, question: Message) -> Message:
    try:
        async with await connection.open(method, question) as stream:
            return await stream.receive()
    except (StreamFailed, StreamEnded) as error:
        if connection.closed:
            raise Unreachable(str(error)) from None
        raise Refused(str(error), by_peer=True) from None


def _with_digest(root_pem: bytes, digest: bytes) -> bytes | None:
    """The one certificate that has this digest, alone: what else a stranger put beside it is not to be trusted."""
    try:
        roots = x509.load_pem_x509_certificates(root_pem)
    except ValueError:
        return None
    for root in roots:
        if hmac.compare_digest(root_digest(root), digest):
            return root.public_bytes(Encoding.PEM)
    return None

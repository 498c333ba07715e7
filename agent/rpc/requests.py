"""What a node asks of the leader over a connection that stands: a new certificate, to be let go, its API."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from agent.pki.identity import NodeIdentity, NodeKey
from agent.rpc.connection import Connection
from agent.rpc.errors import ConnectionLost, Refused, RpcError, StreamEnded, StreamFailed, Unreachable
from agent.rpc.messages import ApiOpen, ApiReady, DepartAnswer, DepartOpen, Message, RenewAnswer, RenewOpen
from agent.rpc.stream import Stream

RENEW, DEPART, API = "renew", "depart", "api"

_Answer = TypeVar("_Answer", bound=Message)


async def renew(connection: Connection, key: NodeKey, *, timeout: float = 10.0) -> NodeIdentity:
    """A certificate for `key`, a new one, with the roots to trust now. Its role is what the cluster wants the node to be.

    Refused with the manager's text: it does not lead, or the node was removed. Unreachable when no answer came. What is
    returned was checked: it is this node's, and goes with `key`.
    """
    answer = await _ask(connection, RENEW, RenewOpen(request=key.request()), RenewAnswer, timeout)
    try:
        identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.roots)
    except ValueError as error:
        raise Refused(f"the certificate that {connection.peer} gave does not fit: {error}", by_peer=False) from None
    if identity.node_id != connection.local_id:
        text = f"the certificate that {connection.peer} gave is for node {identity.node_id}, not {connection.local_id}"
        raise Refused(text, by_peer=False)
    return identity


async def depart(connection: Connection, *, timeout: float = 30.0) -> None:
    """Returns once this manager is out of the group. Refused with the leader's reason, Unreachable without an answer."""
    answer = await _ask(connection, DEPART, DepartOpen(), DepartAnswer, timeout)
    if answer.error:
        raise Refused(answer.error, by_peer=True)


async def open_api(connection: Connection, term: int, caller: str, *, timeout: float = 10.0) -> Stream:
    """One exchange with the API of the leader of `term`, as raw bytes (`send_bytes`, `receive_bytes`); the caller ends it.

    Refused and Unreachable mean that nothing was done. What comes later is the caller's to judge.
    """
    stream: Stream | None = None
    try:
        async with asyncio.timeout(timeout):
            stream = await connection.open(API, ApiOpen(term=term, caller=caller))
            answer = await stream.receive()
        if not isinstance(answer, ApiReady):
            raise Refused(f"{connection.peer} answered a {type(answer).__name__}", by_peer=False)
        if answer.error:
            raise Refused(answer.error, by_peer=True)
    except BaseException as error:
        if stream is not None:
            stream.fail_now("the exchange was given up before it began")
        raise _translated(connection, error, timeout) from None
    return stream


async def _ask(
    connection: Connection, method: str, question: Message, answer_type: type[_Answer], timeout: float
) -> _Answer:
    try:
        async with asyncio.timeout(timeout), await connection.open(method, question) as stream:
            answer = await stream.receive()
    except (RpcError, TimeoutError) as error:
        raise _translated(connection, error, timeout) from None
    if not isinstance(answer, answer_type):
        text = f"{connection.peer} answered a {type(answer).__name__} where a {answer_type.__name__} was expected"
        raise Refused(text, by_peer=False)
    return answer


def _translated(connection: Connection, error: BaseException, timeout: float) -> BaseException:
    """What a caller is to know: whether somebody said no, or nobody said anything."""
    if isinstance(error, TimeoutError):
        return Unreachable(f"no answer from {connection.peer} within {timeout:g} s")
    if isinstance(error, ConnectionLost):
        return Unreachable(str(error))
    if isinstance(error, StreamEnded):
        return Unreachable(f"{connection.peer} ended the conversation without an answer")
    if isinstance(error, StreamFailed):
        return Refused(str(error), by_peer=True)
    return error

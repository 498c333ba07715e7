"""Writes that this manager asks of the leader for itself, with everything that a client's request is given."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, cast

import msgspec
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from agent.api.attempts import Attempt
from agent.api.call import BODY, ApiState, Call
from agent.api.forwarding import Handler, by_the_leader
from agent.api_types.codec import encode_json
from agent.api_types.errors import (
    AlreadyExists,
    ApiError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unknown,
)

_ERRORS: dict[int, type[ApiError]] = {
    error.status: error for error in (InvalidArgument, PermissionDenied, NotFound, AlreadyExists, Unknown)
}
"""What the leader's refusal is here."""


class _OwnRequest(MutableMapping[Any, Any]):
    """As much of a request as `by_the_leader` looks at."""

    version = HttpVersion11
    transport = None

    def __init__(self, method: str, target: str, body: bytes) -> None:
        self.method = method
        self.raw_path = target
        self.headers = CIMultiDictProxy(CIMultiDict({"Host": "docker", "Content-Type": "application/json"}))
        self._kept: dict[Any, Any] = {BODY: body}

    def __getitem__(self, key: Any) -> Any:
        return self._kept[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._kept[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._kept[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


async def ask_for(
    state: ApiState, method: str, path: str, handler: Handler, *, caller: str, object_id: str, body: object = None
) -> web.StreamResponse:
    """The answer to a write of this manager's own; `handler` runs here while this one leads. ApiError when it cannot be.

    `object_id` is the id of what is made or removed, which makes a repeat recognisable.
    """
    request = cast(web.BaseRequest, _OwnRequest(method, path, b"" if body is None else encode_json(body)))
    attempt = Attempt(caller, object_id=object_id)
    call = Call(request, state, path, None, {"id": object_id}, {}, attempt)
    answer = await by_the_leader(call, handler, lambda call: object_id)
    if answer.status >= 400:
        text = _message(bytes(answer.body)) if isinstance(answer, web.Response) and answer.body else ""  # type: ignore[arg-type]
        raise _ERRORS.get(answer.status, Unavailable)(text)
    return answer


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("message", ""))
    except msgspec.DecodeError:
        return body.decode(errors="replace")

"""`POST /networks/prune`: unused overlays of the swarm and unused networks of the host's engine, in one answer."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from agent.api.call import AUDITED, Call, raw_reply, reply
from agent.api.engine import end_to_end
from agent.api.filters import Filters, parse_filters
from agent.api.forwarding import by_the_leader
from agent.api.lookup import manager_store
from agent.api.moments import parse_moment
from agent.api.network_views import OVERLAY_LABEL
from agent.api.networks import user_of
from agent.api_types.codec import encode_json
from agent.api_types.errors import InvalidArgument, Unimplemented
from agent.api_types.network import Network
from agent.api_types.times import MILLISECOND, SECOND, parse_time
from agent.store.transactions import WriteTx

AT_ONCE = 100
"""Networks that go in one transaction."""

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 1000, "ms": MILLISECOND, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


async def prune(call: Call) -> web.StreamResponse:
    """The names of what was removed. A manager prunes the swarm's networks, every node its engine's."""
    filters = parse_filters(call.query.get("filters", ""), ("label", "label!", "until"))
    if call.attempt.forwarded:
        return await by_the_leader(call, _prune_overlays)
    removed: list[str] = []
    if call.backend.is_manager and call.backend.store is not None:
        answer = await by_the_leader(call, _prune_overlays)
        removed += _names(answer)
    if call.state.engine is not None:
        status, body = await _prune_engine(call, filters)
        if status != 200:
            return raw_reply(body, status)
        removed += msgspec.json.decode(body, type=dict[str, Any]).get("NetworksDeleted") or []
    elif not call.backend.is_manager:
        raise Unimplemented("this node has no Docker Engine: its networks are those of the host")
    response = reply({"NetworksDeleted": removed or None}, subject=f"networks {', '.join(removed)}")
    if call.state.engine is None:
        response[AUDITED] = True
    return response


def _names(answer: web.StreamResponse) -> list[str]:
    assert isinstance(answer, web.Response)
    return msgspec.json.decode(bytes(answer.body), type=dict[str, list[str] | None])["NetworksDeleted"] or []  # type: ignore[arg-type]


async def _prune_engine(call: Call, filters: Filters) -> tuple[int, bytes]:
    """The engine's part; the bridges that carry overlays are not its to prune."""
    assert call.state.engine is not None
    told = {name: list(values) for name, values in filters.values.items()}
    told["label!"] = [*told.get("label!", []), OVERLAY_LABEL]
    version = "" if call.version is None else "/v" + ".".join(str(part) for part in call.version)
    target = f"{version}/networks/prune?filters={quote(encode_json(told).decode())}"
    async with call.state.engine.request("POST", target, headers=end_to_end(call.request.headers)) as answer:
        return answer.status, await answer.read()


async def _prune_overlays(call: Call) -> web.StreamResponse:
    store = manager_store(call.backend)
    filters = parse_filters(call.query.get("filters", ""), ("label", "label!", "until"))
    until = _until(filters, call.backend.clock())
    removed: list[str] = []

    def change(tx: WriteTx) -> None:
        for network in sorted(tx.all(Network), key=lambda network: network.spec.name):
            full = len(tx.changes) >= AT_ONCE
            if full or network.spec.ingress or not _matches(filters, network, until) or user_of(tx, network):
                continue
            tx.delete(Network, network.id)
            removed.append(network.spec.name)

    before = -1
    while len(removed) > before:
        before = len(removed)
        await store.update(change)
    return reply({"NetworksDeleted": removed or None}, subject=f"networks {', '.join(removed)}")


def _until(filters: Filters, now: int) -> int | None:
    """Before which moment a network has to be made: a time, or for how long ago a duration as Go writes it."""
    asked = filters.get("until")
    if len(asked) > 1:
        raise InvalidArgument("more than one until filter specified")
    text = asked[0] if asked else ""
    if not _DURATION.fullmatch(text):
        return parse_moment(text, "until")
    return now - sum(int(float(number) * _UNITS[unit]) for number, unit in _PART.findall(text))


def _matches(filters: Filters, network: Network, until: int | None) -> bool:
    if until is not None and parse_time(network.created_at) > until:
        return False
    if filters.get("label!") and Filters({"label": filters.get("label!")}).labels("label", network.spec.labels):
        return False
    return filters.labels("label", network.spec.labels)

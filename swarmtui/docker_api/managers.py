"""The managers' group as our agents tell it at `/swarmtui/v1/managers`: who belongs to it, who leads, who lags."""

from __future__ import annotations

from typing import Any

import msgspec


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One manager. `role` is leader, follower, candidate or learner; an index or a lag of -1 is not known."""

    id: str = ""
    hostname: str = ""
    address: str = ""
    role: str = ""
    voter: bool = True
    reachable: bool = False
    index: int = -1
    """The last entry of the log that is known to be on its disk (of the member itself: that it has applied)."""
    lag: int = -1
    """Entries that it lacks."""
    since: int = 0
    """Since when it has not answered, nanoseconds since the epoch; 0 when nobody says."""


class Managers(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The group. `leader` is an id, "" while nobody leads."""

    term: int = 0
    leader: str = ""
    quorum: bool = True
    """Whether changes can be made."""
    stale: bool = False
    """The answering manager does not know whether what it shows is the newest."""
    members: list[Member] = []
    missing: list[str] = []
    """Ids of members that do not answer."""


def read_managers(answer: Any) -> Managers:
    """The agent's answer; ValueError (msgspec's) when it is of another shape.

    An entry of `missing` may be an id, a name or an object with one; a member's position may be called `match`, `applied`
    or `index`: the first that is known counts.
    """
    if not isinstance(answer, dict):
        raise msgspec.ValidationError("expected an object")
    members = [_member(each) for each in answer.get("members") or ()]
    names = {name: member.id for member in members for name in (member.hostname, member.address, member.id) if name}
    missing = []
    for each in answer.get("missing") or ():
        named = (each.get("id") or each.get("hostname") or each.get("address")) if isinstance(each, dict) else each
        missing.append(names.get(str(named), str(named)))
        if isinstance(each, dict) and each.get("since"):
            since = each["since"]
            members = [
                msgspec.structs.replace(member, since=int(since)) if member.id == missing[-1] else member
                for member in members
            ]
    leader = str(answer.get("leader") or "")
    return Managers(
        term=msgspec.convert(answer.get("term") or 0, int),
        leader=names.get(leader, leader),
        quorum=bool(answer.get("quorum", True)),
        stale=bool(answer.get("stale", False)),
        members=members,
        missing=missing,
    )


def _member(raw: Any) -> Member:
    known = {key: value for key, value in raw.items() if value is not None}
    positions = (known.get(key, -1) for key in ("match", "applied", "index"))
    known["index"] = next((each for each in positions if isinstance(each, int) and each >= 0), -1)
    return msgspec.convert(known, Member)

"""`swarmtui managers`: who decides, who leads, who lags."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from swarmtui.commands.output import ago, table
from swarmtui.commands.session import print_json, with_client
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import NotFound, NotImplementedHere
from swarmtui.model.managers import GroupHistory, ManagerGroup, MemberRow, group_of_nodes, majority, survived

UNKNOWN = "-"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_client
async def managers(client: EngineClient, as_json: bool) -> None:
    """The managers' group: roles, the log's positions, and how many failures are survived."""
    try:
        answer = await client.managers()
    except (NotFound, NotImplementedHere):
        # A real Docker Swarm says who there is and who leads, and no more.
        group = group_of_nodes(await client.nodes())
    else:
        known = {node.id: node for node in await client.nodes()} if not all(m.hostname for m in answer.members) else {}
        group = GroupHistory().take(answer, known, 0, 0.0, stale=client.stale)
        if not answer.quorum:
            # One look does not tell an election from a loss: it is said as it is.
            members = [replace(member, reachable=member.id not in answer.missing) for member in group.members]
            group = replace(group, quorum=False, members=tuple(members))
        group = replace(group, stale=answer.stale or client.stale)
    if group is None:
        group = ManagerGroup(0, "", True, False, ())
    if as_json:
        print_json(_as_json(group))
        return
    now = time.time_ns()
    rows = [_cells(member, group, now) for member in group.members]
    click.echo(table(("MEMBER", "ADDRESS", "ROLE", "TERM", "INDEX", "LAG", "REACHABLE"), rows))
    click.echo(f"\n{summary(group)}")


def _cells(member: MemberRow, group: ManagerGroup, now: int) -> tuple[str, ...]:
    reachable = "yes" if member.reachable else "no"
    if not member.reachable and member.since:
        reachable += f", last heard of {ago(member.since, now)}"
    return (
        member.hostname,
        member.address or UNKNOWN,
        member.role if member.voter else "learner",
        str(group.term) if group.term else UNKNOWN,
        str(member.index) if member.index >= 0 else UNKNOWN,
        str(member.lag) if member.lag >= 0 else UNKNOWN,
        reachable,
    )


def summary(group: ManagerGroup) -> str:
    """One line: what the group can bear, or what it lacks."""
    count = len(group.voters)
    if not group.quorum:
        missing = ", ".join(f"{member.hostname} ({member.address})" for member in group.missing)
        return (
            f"no quorum: {majority(count)} of {count} managers must answer; missing: {missing or 'nobody knows which'}"
        )
    text = f"{count} manager{'' if count == 1 else 's'}, {majority(count)} must answer, {survived(count)} may fail"
    return text if not group.missing else f"{text}; {len(group.missing)} missing, {group.spare} more may fail"


def _as_json(group: ManagerGroup) -> dict[str, object]:
    return {
        "term": group.term,
        "leader": group.leader,
        "quorum": group.quorum,
        "stale": group.stale,
        "members": [
            {
                "id": member.id,
                "hostname": member.hostname,
                "address": member.address,
                "role": member.role,
                "voter": member.voter,
                "reachable": member.reachable,
                "index": member.index if member.index >= 0 else None,
                "lag": member.lag if member.lag >= 0 else None,
            }
            for member in group.members
        ],
    }

"""`/swarmtui/v1/metrics`: what this agent does, in Prometheus' text format."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aiohttp import web

from agent.api_types.network import Network
from agent.api_types.node import Node, NodeState
from agent.api_types.secret import Config, Secret
from agent.api_types.service import Service
from agent.api_types.task import Task
from agent.manager.group import voters
from agent.raft.interface import GroupStatus
from agent.store.commit_times import BUCKETS, CommitTimes
from agent.store.transactions import ReadTx

if TYPE_CHECKING:
    from agent.api.call import Call

LAG_PERIOD = 0.5
"""Seconds between two measurements of the loop's lag."""
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """Counters of one server, and how late its loop runs."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.requests: Counter[tuple[str, int]] = Counter()
        """Answers by kind of route and status."""
        self.streams: set[asyncio.Task[object]] = set()
        """Who writes the watches, events and logs that are being read."""
        self.forwarded = 0
        """Requests that were sent on to the leader, repeats included."""
        self._lags: Counter[float] = Counter()
        self._lag_sum = 0.0
        self._lag_count = 0
        self.worst_lag = 0.0
        """Seconds, since the last time somebody read the metrics."""

    async def measure_lag(self) -> None:
        """Measure until cancelled: a timer that comes late says by how much the loop was held."""
        while True:
            due = self._monotonic() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            self.note_lag(max(0.0, self._monotonic() - due))

    def note_lag(self, lag: float) -> None:
        """Count one measurement, in seconds."""
        self._lag_sum += lag
        self._lag_count += 1
        self.worst_lag = max(self.worst_lag, lag)
        for bound in LAG_BUCKETS:
            if lag <= bound:
                self._lags[bound] += 1

    def lines(self) -> Iterator[str]:
        """The metrics of the server itself."""
        yield "# HELP swarmtui_loop_lag_seconds How late timers of the agent's main loop fire."
        yield "# TYPE swarmtui_loop_lag_seconds histogram"
        for bound in LAG_BUCKETS:
            yield f'swarmtui_loop_lag_seconds_bucket{{le="{bound}"}} {self._lags[bound]}'
        yield f'swarmtui_loop_lag_seconds_bucket{{le="+Inf"}} {self._lag_count}'
        yield f"swarmtui_loop_lag_seconds_sum {self._lag_sum:.6f}"
        yield f"swarmtui_loop_lag_seconds_count {self._lag_count}"
        yield "# HELP swarmtui_loop_lag_worst_seconds The worst lag since these metrics were last read."
        yield "# TYPE swarmtui_loop_lag_worst_seconds gauge"
        yield f"swarmtui_loop_lag_worst_seconds {self.worst_lag:.6f}"
        yield "# HELP swarmtui_api_requests_total Answers of the API by kind of route and status."
        yield "# TYPE swarmtui_api_requests_total counter"
        for (kind, status), count in sorted(self.requests.items()):
            yield f'swarmtui_api_requests_total{{kind="{kind}",status="{status}"}} {count}'
        yield "# HELP swarmtui_api_forwarded_total Requests sent on to the leader, repeats included."
        yield "# TYPE swarmtui_api_forwarded_total counter"
        yield f"swarmtui_api_forwarded_total {self.forwarded}"
        yield "# HELP swarmtui_api_open_streams Watches, events and logs that are being read."
        yield "# TYPE swarmtui_api_open_streams gauge"
        yield f"swarmtui_api_open_streams {len(self.streams)}"


def store_lines(tx: ReadTx) -> Iterator[str]:
    """What the store holds, by kind; nodes and tasks by state too."""
    yield "# HELP swarmtui_objects Objects of the cluster by table."
    yield "# TYPE swarmtui_objects gauge"
    counts = {
        "node": tx.count(Node),
        "service": tx.count(Service),
        "task": tx.count(Task),
        "network": tx.count(Network),
        "secret": tx.count(Secret),
        "config": tx.count(Config),
    }
    for name, count in counts.items():
        yield f'swarmtui_objects{{table="{name}"}} {count}'
    yield "# HELP swarmtui_nodes Nodes by state."
    yield "# TYPE swarmtui_nodes gauge"
    nodes = Counter(node.status.state for node in tx.all(Node))
    for node_state in NodeState:
        yield f'swarmtui_nodes{{state="{node_state}"}} {nodes[node_state]}'
    yield "# HELP swarmtui_tasks Tasks by observed state."
    yield "# TYPE swarmtui_tasks gauge"
    tasks = Counter(task.status.state for task in tx.all(Task))
    for task_state, amount in sorted(tasks.items()):
        yield f'swarmtui_tasks{{state="{task_state}"}} {amount}'


def commit_lines(times: CommitTimes) -> Iterator[str]:
    """How long this manager's transactions took until they were committed."""
    yield "# HELP swarmtui_raft_proposals_total Transactions that this manager proposed."
    yield "# TYPE swarmtui_raft_proposals_total counter"
    yield f"swarmtui_raft_proposals_total {times.proposed}"
    yield "# HELP swarmtui_raft_proposals_failed_total Those that were refused, or of which nobody knows what became."
    yield "# TYPE swarmtui_raft_proposals_failed_total counter"
    yield f"swarmtui_raft_proposals_failed_total {times.failed}"
    yield "# HELP swarmtui_raft_commit_seconds Time from the proposal of a transaction until it is applied."
    yield "# TYPE swarmtui_raft_commit_seconds histogram"
    for bound in BUCKETS:
        yield f'swarmtui_raft_commit_seconds_bucket{{le="{bound}"}} {times.up_to[bound]}'
    yield f'swarmtui_raft_commit_seconds_bucket{{le="+Inf"}} {times.count}'
    yield f"swarmtui_raft_commit_seconds_sum {times.sum:.6f}"
    yield f"swarmtui_raft_commit_seconds_count {times.count}"


def group_lines(group: GroupStatus, leader_changes: int) -> Iterator[str]:
    """The managers' group as this one sees it."""
    figures = {
        "term": (group.term, "The term that this manager is in."),
        "leading": (int(group.leading), "Whether this manager leads."),
        "has_leader": (int(bool(group.leader)), "Whether this manager knows a leader."),
        "last_index": (group.last_index, "The last entry of the log here."),
        "committed_index": (group.committed, "The last entry that is known to be committed."),
        "applied_index": (group.applied, "The last entry that is applied here."),
        "voters": (len(voters(group)), "Managers that vote."),
        "learners": (len(group.members) - len(voters(group)), "Managers that only follow the log."),
    }
    for name, (value, text) in figures.items():
        yield f"# HELP swarmtui_raft_{name} {text}"
        yield f"# TYPE swarmtui_raft_{name} gauge"
        yield f"swarmtui_raft_{name} {value}"
    yield "# HELP swarmtui_raft_leader_changes_total How often another leader than the last one was seen."
    yield "# TYPE swarmtui_raft_leader_changes_total counter"
    yield f"swarmtui_raft_leader_changes_total {leader_changes}"
    if group.leading:
        yield "# HELP swarmtui_raft_member_lag Entries that a member's disk lacks."
        yield "# TYPE swarmtui_raft_member_lag gauge"
        for member in group.members:
            if member.match >= 0:
                yield f'swarmtui_raft_member_lag{{member="{member.id}"}} {max(0, group.last_index - member.match)}'
        yield "# HELP swarmtui_raft_member_active Whether a member was heard of within the time of an election."
        yield "# TYPE swarmtui_raft_member_active gauge"
        for member in group.members:
            yield f'swarmtui_raft_member_active{{member="{member.id}"}} {int(member.active)}'


async def show(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/metrics`; on a worker without the part about the store."""
    metrics = call.state.metrics
    lines = list(metrics.lines())
    metrics.worst_lag = 0.0
    store = call.backend.store
    if store is not None:
        lines += [
            "# HELP swarmtui_store_index The last log entry that is applied here.",
            "# TYPE swarmtui_store_index gauge",
        ]
        lines.append(f"swarmtui_store_index {store.index}")
        lines += store.view(lambda tx: list(store_lines(tx)))
        lines += commit_lines(store.commit_times)
    group = call.backend.group
    if group is not None:
        lines += group_lines(group, call.state.leadership.changes)
    return web.Response(
        body=("\n".join(lines) + "\n").encode(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )

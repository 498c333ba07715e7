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
    return web.Response(
        body=("\n".join(lines) + "\n").encode(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )

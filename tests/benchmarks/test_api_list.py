"""How long lists take: what `docker service ls` and a console ask for all the time. Figures are printed with -s."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from api_scripted import ScriptedBackend, init_body, served

from agent.api_types.container import ContainerSpec
from agent.api_types.service import ReplicatedService, Service, ServiceMode, ServiceSpec
from agent.api_types.task import ServiceAnnotations, Task, TaskSpec, TaskState, TaskStatus
from agent.store.transactions import WriteTx

SERVICES, TASKS_EACH, ROUNDS = 1000, 5, 15
REACH_MS = 150.0


async def test_listing_a_thousand_services_with_their_status(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    async with served(backend, tmp_path) as client:
        await client.call("POST", "/swarm/init", init_body())
        assert backend.store is not None
        for start in range(0, SERVICES, 30):
            numbers = range(start, min(start + 30, SERVICES))
            await backend.store.update(lambda tx, numbers=numbers: fill(tx, numbers))
        figures = {}
        for target in ("/services?status=true", "/services", "/tasks", "/services/s500"):
            times = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                async with client.session.get(f"http://d{target}") as answer:
                    size = len(await answer.read())
                times.append((time.perf_counter() - begin) * 1000)
            figures[target] = statistics.median(times)
            print(f"bench: GET {target}: {figures[target]:.1f} ms for {size / 1000:.0f} kB, worst {max(times):.1f} ms")
    print(f"bench: {SERVICES} services with status in {figures['/services?status=true']:.0f} ms (reach {REACH_MS:.0f})")
    assert figures["/services?status=true"] < 2 * REACH_MS


def fill(tx: WriteTx, numbers: range) -> None:
    for number in numbers:
        spec = ServiceSpec(
            name=f"s{number}",
            labels={"com.example.tier": "web"},
            task_template=TaskSpec(container_spec=ContainerSpec(image="busybox:latest", args=["sleep", "1000"])),
            mode=ServiceMode(replicated=ReplicatedService(replicas=TASKS_EACH)),
        )
        service = tx.create(Service(spec=spec))
        for slot in range(1, TASKS_EACH + 1):
            tx.create(
                Task(
                    service_id=service.id,
                    slot=slot,
                    node_id="n" * 25,
                    spec=spec.task_template,
                    status=TaskStatus(state=TaskState.RUNNING, message="started"),
                    desired_state=TaskState.RUNNING,
                    service_annotations=ServiceAnnotations(name=spec.name, labels=spec.labels),
                )
            )

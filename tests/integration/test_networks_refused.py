"""Hosts that cannot have overlays say so on the task, in words; everything else is as if there were none."""

from __future__ import annotations

import asyncio
import time

import pytest
from cluster import running_cluster

pytestmark = pytest.mark.timeout(90)


async def test_a_task_that_asks_for_an_overlay_on_the_loopback_is_rejected_in_words() -> None:
    async with running_cluster(1) as cluster:
        await cluster.manager.docker("network", "create", "-d", "overlay", "net")
        await cluster.manager.docker(
            "service", "create", "--detach", "--network", "net", "--name", "web", "--restart-condition", "none",
            "swarmtui/whoami",
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            tasks = await cluster.tasks("web", running=False)
            ended = [task for task in tasks if task["Status"]["State"] == "rejected"]
            if ended:
                break
            assert time.monotonic() < deadline, tasks
            await asyncio.sleep(0.05)
        assert ended[0]["Status"]["Err"].startswith("network net cannot be had on this node: ")
        # Tasks without networks run beside it.
        await cluster.manager.docker("service", "create", "--detach", "--name", "plain", "swarmtui/whoami")
        await cluster.until_running("plain", 1)

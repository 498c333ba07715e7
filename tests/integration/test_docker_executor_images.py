"""Where images come from: a registry with a password, what is here already, and what the task is told when neither helps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from engine import IMAGE, PrivateEngine
from registry import registry

from agent.api_types.container import ContainerSpec, PullOptions
from agent.api_types.identity import new_id
from agent.api_types.task import Task, TaskSpec
from agent.worker.executors.docker import DockerExecutor
from agent.worker.executors.docker.controller import DockerController
from agent.worker.interface import Dependencies, RejectedByExecutor

pytestmark = [pytest.mark.engine, pytest.mark.root]


@asynccontextmanager
async def executor_on(
    engine: PrivateEngine, credentials: Callable[[str], str | None] = lambda image: None, *, prefer_local: bool = False
) -> AsyncIterator[DockerExecutor]:
    one = DockerExecutor(
        engine.address, secrets_root=Path("/dev/shm/none"), credentials=credentials, prefer_local_images=prefer_local
    )
    try:
        yield one
    finally:
        await one.close()


async def prepared(executor: DockerExecutor, image: str, registry_auth: str = "") -> DockerController:
    pull = PullOptions(registry_auth=registry_auth) if registry_auth else None
    spec = TaskSpec(container_spec=ContainerSpec(image=image, args=["sh", "-c", "echo ran"], pull_options=pull))
    controller = await executor.controller(Task(id=new_id(), slot=1, service_id="s", spec=spec), Dependencies())
    await controller.prepare()
    return controller


def forget(engine: PrivateEngine, image: str) -> None:
    engine.clean()
    engine.call("DELETE", f"/images/{image}", force="1")


async def test_an_image_is_pulled_with_credentials_and_only_with_them(engine: PrivateEngine) -> None:
    async with registry("private/app:2", password="secret") as served:
        image = served.image("private/app:2")
        async with executor_on(engine) as without:
            with pytest.raises(RejectedByExecutor) as refused:
                await prepared(without, image)
            assert str(refused.value).startswith(f"No such image: {image} (")
            assert "no basic auth credentials" in str(refused.value)
        asked: list[str] = []

        def credentials(name: str) -> str:
            asked.append(name)
            return served.credentials

        async with executor_on(engine, credentials) as with_password:
            controller = await prepared(with_password, image)
            await controller.start()
            assert (await controller.wait()).code == 0
            assert asked == [image]
            shown = json.loads(engine.call("GET", f"/images/{image}/json"))
            assert shown["Config"]["Labels"] == {"from": "registry"}
        forget(engine, image)
        async with executor_on(engine) as with_service_credentials:
            await prepared(with_service_credentials, image, served.credentials)
        forget(engine, image)


async def test_tasks_that_ask_at_once_share_a_pull(engine: PrivateEngine) -> None:
    async with registry("app:1") as served, executor_on(engine) as executor:
        image = served.image("app:1")
        await asyncio.gather(*(prepared(executor, image) for _ in range(6)))
        manifests = [request for request in served.requests if request.endswith("/manifests/1")]
        assert len(manifests) == 1
        assert len(engine.containers()) == 6
        forget(engine, image)


async def test_a_registry_that_fails_is_no_obstacle_for_an_image_that_is_here(engine: PrivateEngine) -> None:
    async with registry("app:3") as served, executor_on(engine) as executor:
        image = served.image("app:3")
        await prepared(executor, image)
        served.broken = True
        await prepared(executor, image)
        assert len(engine.containers()) == 2
        forget(engine, image)
        with pytest.raises(RejectedByExecutor, match=f"^No such image: {image} "):
            await prepared(executor, image)


async def test_an_image_named_by_its_content_is_not_asked_for_twice(engine: PrivateEngine) -> None:
    async with registry("app:1") as served, executor_on(engine) as executor:
        image = f"{served.image('app')}@{served.digest}"
        await prepared(executor, image)
        asked = len(served.requests)
        await prepared(executor, image)
        assert len(served.requests) == asked
        forget(engine, image)


async def test_an_image_named_by_its_id_is_not_asked_for(engine: PrivateEngine) -> None:
    image_id = json.loads(engine.call("GET", f"/images/{IMAGE}/json"))["Id"]
    async with executor_on(engine) as executor:
        await prepared(executor, image_id)


async def test_an_image_nobody_has(engine: PrivateEngine) -> None:
    async with registry() as served, executor_on(engine) as executor:
        image = served.image("nobody/has:this")
        with pytest.raises(RejectedByExecutor) as refused:
            await prepared(executor, image)
        assert str(refused.value).startswith(f"No such image: {image}")
        assert "manifest unknown" in str(refused.value)


async def test_local_images_can_be_preferred(engine: PrivateEngine) -> None:
    async with registry("app:1") as served, executor_on(engine, prefer_local=True) as executor:
        image = served.image("app:1")
        await prepared(executor, image)
        asked = len(served.requests)
        await prepared(executor, image)
        assert len(served.requests) == asked
        forget(engine, image)


@pytest.mark.parametrize("image", ["UPPER/case", "a b", "x:y:z", "../../etc", "?q=1", ""])
async def test_a_name_that_is_none_is_refused_in_words(engine: PrivateEngine, image: str) -> None:
    async with executor_on(engine) as executor:
        with pytest.raises(RejectedByExecutor) as refused:
            await prepared(executor, image)
        assert str(refused.value)
        assert engine.containers() == []


async def test_a_pull_that_nobody_waits_for_any_more_is_broken_off(engine: PrivateEngine) -> None:
    async with registry("app:1") as served, executor_on(engine) as executor:
        served.blobs_open.clear()
        pulls = [asyncio.create_task(prepared(executor, served.image("app:1"))) for _ in range(2)]
        try:
            await served.blob_asked.wait()
            pulls[0].cancel()
            await asyncio.wait({pulls[0]})
            assert not pulls[1].done()
            pulls[1].cancel()
            await asyncio.wait(pulls)
        finally:
            served.blobs_open.set()
        assert all(pull.cancelled() for pull in pulls)
        assert engine.containers() == []

"""Tasks as containers of a real engine: made, started, watched, stopped, removed, found again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine import HEALTHY_IMAGE, IMAGE, PrivateEngine

from agent.api_types.common import Driver, Limits, Resources
from agent.api_types.container import (
    BindOptions,
    ConfigReference,
    ContainerSpec,
    DNSConfig,
    HealthConfig,
    Mount,
    Privileges,
    ReferenceFileTarget,
    SecretReference,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from agent.api_types.identity import new_id
from agent.api_types.task import (
    Endpoint,
    EndpointSpec,
    PortConfig,
    ResourceRequirements,
    ServiceAnnotations,
    Task,
    TaskSpec,
)
from agent.api_types.times import SECOND
from agent.worker.executors.docker import DockerExecutor
from agent.worker.executors.docker.controller import DockerController
from agent.worker.executors.docker.files import filesystem
from agent.worker.interface import Dependencies, RejectedByExecutor, TemporaryFailure

pytestmark = [pytest.mark.engine, pytest.mark.root]

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def secrets_root(tmp_path: Path) -> Path:
    return Path("/dev/shm") / f"swt-test-{tmp_path.name}-{new_id()[:8]}"


@pytest.fixture
async def executor(engine: PrivateEngine, secrets_root: Path) -> AsyncIterator[DockerExecutor]:
    one = DockerExecutor(engine.address, owner="test", secrets_root=secrets_root, prefer_local_images=True)
    yield one
    await one.close()
    assert not secrets_root.exists()


def shell(script: str, *, image: str = IMAGE, task: dict[str, object] | None = None, **container: object) -> Task:
    """A task that runs a script."""
    spec = ContainerSpec(image=image, args=["sh", "-c", script], **container)
    fields: dict[str, object] = {
        "spec": TaskSpec(container_spec=spec),
        "service_id": "serviceserviceservice0001",
        "slot": 3,
        "node_id": "nodenodenodenodenodenode1",
        "service_annotations": ServiceAnnotations(name="web", labels={"tier": "front"}),
    }
    return Task(id=new_id(), **{**fields, **(task or {})})


async def started(executor: DockerExecutor, task: Task, dependencies: Dependencies | None = None) -> DockerController:
    controller = await executor.controller(task, dependencies or Dependencies())
    await controller.prepare()
    await controller.start()
    return controller


async def lines(controller: DockerController, **options: object) -> list[tuple[str, str]]:
    asked: dict[str, object] = {"since": 0, "follow": False, "tail": -1, **options}
    return [(line.stream.value, line.data.decode()) async for line in controller.logs(**asked)]


async def output(executor: DockerExecutor, task: Task, dependencies: Dependencies | None = None) -> list[str]:
    """Run a task to its end; its lines."""
    controller = await started(executor, task, dependencies)
    end = await controller.wait()
    printed = [text for _, text in await lines(controller)]
    await controller.remove()
    assert end.error == "", (end, printed)
    return printed


async def test_the_node_is_described_as_docker_describes_it(executor: DockerExecutor, engine: PrivateEngine) -> None:
    described = await executor.describe()
    info = json.loads(engine.call("GET", "/info"))
    assert described.hostname == socket.gethostname() == info["Name"]
    assert (described.platform.architecture, described.platform.os) == (info["Architecture"], "linux")
    assert described.resources.nano_cpus == info["NCPU"] * SECOND
    assert described.resources.memory_bytes == info["MemTotal"]
    assert described.engine.engine_version == info["ServerVersion"]
    assert described.engine.labels == {"swarmtui.test": "yes"}
    plugins = [(plugin.type, plugin.name) for plugin in described.engine.plugins]
    assert plugins == sorted(plugins)
    assert ("Log", "json-file") in plugins
    assert ("Network", "overlay") in plugins
    assert ("Volume", "local") in plugins


async def test_a_container_has_swarms_name_and_labels(executor: DockerExecutor, engine: PrivateEngine) -> None:
    task = shell(FOREVER, labels={"mine": "1"})
    controller = await started(executor, task)
    shown = engine.inspect(f"web.3.{task.id}")
    assert shown["State"]["Status"] == "running"
    assert shown["HostConfig"]["RestartPolicy"]["Name"] == "no"
    labels = shown["Config"]["Labels"]
    assert {key: value for key, value in labels.items() if key.startswith("com.docker.swarm")} == {
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": task.id,
        "com.docker.swarm.task.name": f"web.3.{task.id}",
        "com.docker.swarm.node.id": "nodenodenodenodenodenode1",
        "com.docker.swarm.service.id": "serviceserviceservice0001",
        "com.docker.swarm.service.name": "web",
    }
    assert labels["mine"] == "1"
    container, ports = await controller.status()
    assert container is not None
    assert container.container_id == shown["Id"]
    assert container.pid > 0
    assert ports.ports == []


async def test_a_global_task_is_named_after_its_node(executor: DockerExecutor, engine: PrivateEngine) -> None:
    task = shell("true", task={"slot": 0})
    await started(executor, task)
    assert engine.inspect(f"web.nodenodenodenodenodenode1.{task.id}")


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("exit 0", 0, ""),
        ("exit 1", 1, "task: non-zero exit (1)"),
        ("exit 137", 137, "task: non-zero exit (137)"),
    ],
)
async def test_the_exit_code_is_told_in_swarms_words(
    executor: DockerExecutor, script: str, code: int, error: str
) -> None:
    controller = await started(executor, shell(script))
    end = await controller.wait()
    assert (end.code, end.error) == (code, error)
    assert await controller.wait() == end
    container, _ = await controller.status()
    assert container is not None
    assert container.exit_code == code


async def test_a_container_that_ran_out_of_memory_says_so(executor: DockerExecutor) -> None:
    task = shell("tail /dev/zero")
    limited = ResourceRequirements(limits=Limits(memory_bytes=8 << 20))
    task = Task(**{**_fields(task), "spec": TaskSpec(container_spec=task.spec.container_spec, resources=limited)})
    end = await (await started(executor, task)).wait()
    assert (end.code, end.error) == (137, "task: non-zero exit (137): out of memory")


async def test_a_command_that_is_not_there_has_dockers_text(executor: DockerExecutor) -> None:
    task = Task(
        id=new_id(), slot=1, spec=TaskSpec(container_spec=ContainerSpec(image=IMAGE, command=["nonexistent-program"]))
    )
    controller = await executor.controller(task, Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor) as refused:
        await controller.start()
    text = str(refused.value)
    assert text.startswith("starting container failed: ")
    assert 'exec: "nonexistent-program": executable file not found in $PATH' in text
    # The same again: nobody may take the container for a started one.
    with pytest.raises(RejectedByExecutor, match="starting container failed"):
        await controller.start()
    await controller.shutdown()
    await controller.remove()


async def test_preparing_and_starting_twice_makes_one_container(
    executor: DockerExecutor, engine: PrivateEngine
) -> None:
    task = shell(FOREVER)
    controller = await executor.controller(task, Dependencies())
    await controller.prepare()
    await controller.prepare()
    await controller.start()
    before = engine.inspect(f"web.3.{task.id}")["State"]["StartedAt"]
    await controller.start()
    assert engine.inspect(f"web.3.{task.id}")["State"]["StartedAt"] == before
    assert len(engine.containers()) == 1


async def test_a_name_that_others_hold_is_a_refusal(executor: DockerExecutor, engine: PrivateEngine) -> None:
    task = shell("true")
    engine.call("POST", "/containers/create", json.dumps({"Image": IMAGE}).encode(), name=f"web.3.{task.id}")
    controller = await executor.controller(task, Dependencies())
    with pytest.raises(RejectedByExecutor, match="is already in use by container"):
        await controller.prepare()
    await controller.remove()
    assert len(engine.containers()) == 1
    assert await executor.known_tasks() == []


async def test_every_field_of_the_container_reaches_the_engine(executor: DockerExecutor, engine: PrivateEngine) -> None:
    spec = ContainerSpec(
        image=IMAGE,
        command=["sh", "-c"],
        args=[FOREVER],
        env=["A=1", "B=two words"],
        dir="/data",
        user="65534",
        groups=["1234"],
        hostname="named",
        tty=True,
        open_stdin=True,
        read_only=True,
        init=True,
        stop_signal="SIGUSR1",
        stop_grace_period=1_500_000_000,
        hosts=["10.1.2.3 somehost alias"],
        dns_config=DNSConfig(nameservers=["10.9.9.9"], search=["example.org"], options=["ndots:2"]),
        sysctls={"net.ipv4.ip_unprivileged_port_start": "80"},
        capability_add=["CAP_NET_ADMIN"],
        capability_drop=["CAP_CHOWN"],
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        oom_score_adj=500,
        privileges=Privileges(no_new_privileges=True),
        healthcheck=HealthConfig(test=["NONE"]),
    )
    resources = ResourceRequirements(
        limits=Limits(nano_cpus=500_000_000, memory_bytes=64 << 20, pids=50),
        reservations=Resources(memory_bytes=32 << 20),
    )
    driver = Driver(name="json-file", options={"max-size": "1m"})
    task = Task(
        id=new_id(), slot=1, spec=TaskSpec(container_spec=spec, resources=resources, log_driver=driver), service_id="s"
    )
    await started(executor, task)
    shown = engine.inspect(f"s.1.{task.id}")
    config, host = shown["Config"], shown["HostConfig"]
    assert (config["Entrypoint"], config["Cmd"]) == (["sh", "-c"], [FOREVER])
    assert {"A=1", "B=two words"} <= set(config["Env"])
    assert (config["WorkingDir"], config["User"], config["Hostname"]) == ("/data", "65534", "named")
    assert (config["Tty"], config["OpenStdin"], config["StopSignal"], config["StopTimeout"]) == (
        True,
        True,
        "SIGUSR1",
        2,
    )
    assert (host["ReadonlyRootfs"], host["Init"], host["GroupAdd"]) == (True, True, ["1234"])
    assert host["ExtraHosts"] == ["somehost:10.1.2.3", "alias:10.1.2.3"]
    assert (host["Dns"], host["DnsSearch"], host["DnsOptions"]) == (["10.9.9.9"], ["example.org"], ["ndots:2"])
    assert host["Sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "80"}
    assert (host["CapAdd"], host["CapDrop"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"])
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert (host["OomScoreAdj"], host["SecurityOpt"]) == (500, ["no-new-privileges:true"])
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 50_000)
    assert (host["Memory"], host["MemoryReservation"], host["PidsLimit"]) == (64 << 20, 32 << 20, 50)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    container = shown["Id"]
    assert "groups=1234(extra)" in engine.execute(container, "id")
    assert engine.execute(container, "sh", "-c", "ulimit -n").strip() == "100"
    assert "10.1.2.3\talias" in engine.execute(container, "cat", "/etc/hosts")


async def test_mounts_of_every_kind(executor: DockerExecutor, engine: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    mounts = [
        Mount(
            type="bind",
            source=str(tmp_path),
            target="/bound",
            read_only=True,
            bind_options=BindOptions(propagation="rslave"),
        ),
        Mount(
            type="volume",
            source="keep-{{.Task.Slot}}",
            target="/data",
            volume_options=VolumeOptions(labels={"of": "{{.Service.Name}}"}),
        ),
        Mount(type="volume", target="/anonymous"),
        Mount(type="tmpfs", target="/scratch", tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o700)),
    ]
    script = "cat /bound/file /data/inside; touch /bound/x 2>&1; stat -c %a /scratch; df -k /scratch | tail -1"
    printed = await output(executor, shell(script, mounts=mounts))
    assert printed[:2] == ["of the host", "from the image"]
    assert "Read-only file system" in printed[2]
    assert printed[3] == "700"
    assert printed[4].split()[1] == "1024"
    volumes = json.loads(engine.call("GET", "/volumes"))["Volumes"]
    assert [(volume["Name"], volume["Labels"]) for volume in volumes] == [("keep-3", {"of": "web"})]
    engine.call("DELETE", "/volumes/keep-3")


async def test_a_bind_of_what_is_not_there_is_refused(executor: DockerExecutor) -> None:
    task = shell("true", mounts=[Mount(type="bind", source="/no/such/folder", target="/x")])
    with pytest.raises(RejectedByExecutor, match="bind source path does not exist: /no/such/folder"):
        await started(executor, task)


async def test_templates_know_service_task_and_node(executor: DockerExecutor) -> None:
    task = shell(
        "hostname; env | grep ^T",
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        env=["T1={{.Node.Hostname}}/{{.Task.Name}}", 'T2={{index .Service.Labels "tier"}} {{.Node.Platform.OS}}'],
    )
    printed = await output(executor, task)
    assert sorted(printed) == sorted(["web-3", f"T1={socket.gethostname()}/web.3.{task.id}", "T2=front linux"])


async def test_secrets_and_configs_are_files_in_memory_only(
    executor: DockerExecutor, engine: PrivateEngine, secrets_root: Path
) -> None:
    canary, setting = f"canary-{new_id()}", f"setting-{new_id()}"
    task = shell(
        "stat -c '%n %a %u:%g' /run/secrets/password /elsewhere /settings; cat /run/secrets/password /elsewhere /settings; "
        "touch /run/secrets/password 2>&1; " + FOREVER,
        user="65534",
        secrets=[
            SecretReference(
                secret_id="s1",
                secret_name="s",
                file=ReferenceFileTarget(name="password", uid="65534", gid="1234", mode=0o440),
            ),
            SecretReference(
                secret_id="s1",
                secret_name="s",
                file=ReferenceFileTarget(name="/elsewhere", uid="0", gid="0", mode=0o444),
            ),
        ],
        configs=[
            ConfigReference(
                config_id="c1", config_name="c", file=ReferenceFileTarget(name="settings", uid="0", gid="0", mode=0o444)
            )
        ],
    )
    dependencies = Dependencies({"s1": canary.encode()}, {"c1": setting.encode()})
    controller = await started(executor, task, dependencies)
    assert filesystem(secrets_root) == "tmpfs"
    printed: list[str] = []
    async for line in controller.logs(0, True, -1):
        printed.append(line.data.decode())
        if "Read-only" in printed[-1]:
            break
    assert printed[0] == "/run/secrets/password 440 65534:1234"
    assert printed[1:3] == ["/elsewhere 444 0:0", "/settings 444 0:0"]
    assert printed[3].startswith(canary + canary + setting)
    shown = json.dumps(engine.inspect(f"web.3.{task.id}"))
    assert canary not in shown
    # Nothing but what the task itself printed is on the engine's disk.
    log_file = Path(engine.inspect(f"web.3.{task.id}")["LogPath"])
    for path in engine.folder.rglob("*"):
        if path.is_file() and path != log_file and path.stat().st_size < 1 << 20:
            assert canary.encode() not in path.read_bytes(), path
    assert list(secrets_root.rglob("*-secret"))
    await controller.shutdown()
    assert not list(secrets_root.rglob("*-secret"))
    await controller.remove()


async def test_secrets_outside_of_memory_are_refused(engine: PrivateEngine, tmp_path: Path) -> None:
    one = DockerExecutor(engine.address, owner="test", secrets_root=tmp_path / "disk", prefer_local_images=True)
    reference = SecretReference(secret_id="s", secret_name="s", file=ReferenceFileTarget(name="s", mode=0o444))
    try:
        with pytest.raises(RejectedByExecutor, match="secrets need a tmpfs"):
            await started(one, shell("true", secrets=[reference]), Dependencies({"s": b"x"}))
    finally:
        await one.close()
    assert not list(tmp_path.iterdir())


async def test_host_ports_are_published_and_reported(executor: DockerExecutor, engine: PrivateEngine) -> None:
    ports = [
        PortConfig(protocol="tcp", target_port=80, publish_mode="host"),
        PortConfig(protocol="udp", target_port=53, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=81, published_port=8081, publish_mode="ingress"),
    ]
    controller = await started(executor, shell(FOREVER, task={"endpoint": Endpoint(spec=EndpointSpec(ports=ports))}))
    _, status = await controller.status()
    assert [(port.protocol, port.target_port, port.publish_mode) for port in status.ports] == [
        ("tcp", 80, "host"),
        ("udp", 53, "host"),
    ]
    assert all(port.published_port > 1024 for port in status.ports)


async def test_a_host_port_that_is_taken_is_a_final_error(executor: DockerExecutor) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        ports = [PortConfig(target_port=80, published_port=holder.getsockname()[1], publish_mode="host")]
        task = shell(FOREVER, task={"endpoint": Endpoint(spec=EndpointSpec(ports=ports))})
        with pytest.raises(RejectedByExecutor, match=r"starting container failed: .*address already in use"):
            await started(executor, task)


async def test_a_task_is_reached_at_its_address(executor: DockerExecutor) -> None:
    task = shell("mkdir /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -v -p 8000 -h /tmp/www")
    controller = await executor.controller(task, Dependencies())
    assert controller.address(8000, "tcp") is None
    await controller.prepare()
    assert controller.address(8000, "tcp") is None
    await controller.start()
    address = controller.address(8000, "tcp")
    assert address is not None
    reader = None
    while reader is None:
        try:
            reader, writer = await asyncio.open_connection(*address)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"hello\n")
    writer.close()
    await writer.wait_closed()
    await controller.terminate()
    assert controller.address(8000, "tcp") is None


async def test_a_start_waits_until_the_container_is_healthy(executor: DockerExecutor, engine: PrivateEngine) -> None:
    health = HealthConfig(test=["CMD-SHELL", "test -e /tmp/up"], interval=SECOND // 5, retries=100)
    task = shell(f"sleep 0.5; touch /tmp/up; {FOREVER}", healthcheck=health)
    await started(executor, task)
    assert engine.inspect(f"web.3.{task.id}")["State"]["Health"]["Status"] == "healthy"


async def test_an_unhealthy_container_is_stopped_and_fails(executor: DockerExecutor, engine: PrivateEngine) -> None:
    task = Task(id=new_id(), slot=1, service_id="s", spec=TaskSpec(container_spec=ContainerSpec(image=HEALTHY_IMAGE)))
    controller = await started(executor, task)
    watching = asyncio.create_task(controller.wait())
    engine.execute(f"s.1.{task.id}", "rm", "/tmp/healthy")
    end = await watching
    assert end.error.endswith("dockerexec: unhealthy container")
    assert engine.inspect(f"s.1.{task.id}")["State"]["Status"] == "exited"


async def test_a_container_that_never_gets_healthy_fails_its_start(executor: DockerExecutor) -> None:
    health = HealthConfig(test=["CMD", "false"], interval=SECOND // 10, retries=1)
    with pytest.raises(RejectedByExecutor, match=r"task: non-zero exit \(143\): dockerexec: unhealthy container"):
        await started(executor, shell("trap 'exit 143' TERM; while :; do sleep 0.1; done", healthcheck=health))


async def test_a_container_that_ends_before_it_is_healthy(executor: DockerExecutor) -> None:
    health = HealthConfig(test=["CMD", "false"], interval=60 * SECOND)
    with pytest.raises(RejectedByExecutor, match=r"^task: non-zero exit \(4\)$"):
        await started(executor, shell("exit 4", healthcheck=health))


async def test_a_stop_lets_the_process_end_in_its_own_way(executor: DockerExecutor) -> None:
    controller = await started(
        executor,
        shell("trap 'echo bye; exit 7' USR1; echo ready; while :; do sleep 0.1; done", stop_signal="SIGUSR1"),
    )
    # Before its first line the shell may not have set its trap.
    async for _ in controller.logs(since=0, follow=True, tail=-1):
        break
    await controller.shutdown()
    assert await lines(controller) == [("stdout", "ready"), ("stdout", "bye")]
    assert (await controller.wait()).code == 7
    await controller.shutdown()
    await controller.terminate()


async def test_a_process_that_does_not_listen_is_killed_after_its_grace(executor: DockerExecutor) -> None:
    controller = await started(executor, shell("trap '' TERM; while :; do sleep 0.1; done", stop_grace_period=SECOND))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await controller.shutdown()
    assert 0.9 < loop.time() - begun < 5
    assert (await controller.wait()).code == 137


async def test_what_never_came_to_be_can_be_stopped_and_removed(executor: DockerExecutor) -> None:
    controller = await executor.controller(shell("true"), Dependencies())
    await controller.shutdown()
    await controller.terminate()
    await controller.remove()
    await controller.remove()
    assert await controller.status() == (None, (await controller.status())[1])
    with pytest.raises(RejectedByExecutor, match="No such container"):
        await controller.start()


async def test_a_container_removed_by_others_ends_the_task(executor: DockerExecutor, engine: PrivateEngine) -> None:
    task = shell(FOREVER)
    controller = await started(executor, task)
    watching = asyncio.create_task(controller.wait())
    await asyncio.sleep(0)
    engine.call("DELETE", f"/containers/web.3.{task.id}", force="1")
    end = await watching
    assert end.error in ("task: non-zero exit (137): dockerexec: container destroyed", "task: non-zero exit (137)")


async def test_a_new_agent_finds_the_containers_of_the_old_one(
    executor: DockerExecutor, engine: PrivateEngine, secrets_root: Path
) -> None:
    task = shell(FOREVER)
    await started(executor, task)
    before = engine.inspect(f"web.3.{task.id}")["State"]["StartedAt"]
    second = DockerExecutor(engine.address, owner="test", secrets_root=secrets_root)
    other = DockerExecutor(engine.address, owner="another", secrets_root=secrets_root)
    try:
        assert await second.known_tasks() == [task.id]
        assert await other.known_tasks() == []
        controller = await second.controller(task, Dependencies())
        await controller.prepare()
        await controller.start()
        assert controller.address(80, "tcp") is not None
        assert engine.inspect(f"web.3.{task.id}")["State"]["StartedAt"] == before
        watching = asyncio.create_task(controller.wait())
        engine.call("POST", f"/containers/web.3.{task.id}/kill")
        assert (await watching).error == "task: non-zero exit (137)"
        # A forgotten task is all but its id.
        forgotten = await second.controller(Task(id=task.id), Dependencies())
        await forgotten.shutdown()
        await forgotten.remove()
        assert engine.containers() == []
    finally:
        await second.close()
        await other.close()


async def test_an_engine_that_restarts_is_waited_for(executor: DockerExecutor, engine: PrivateEngine) -> None:
    watched = await started(executor, shell("trap 'exit 3' TERM; while :; do sleep 0.1; done"))
    described = asyncio.create_task(executor.description_changed())
    watching = asyncio.create_task(watched.wait())
    late = await executor.controller(shell("true"), Dependencies())
    await asyncio.to_thread(engine.stop, kill=True)
    try:
        with pytest.raises(TemporaryFailure, match="Docker Engine"):
            await late.prepare()
        with pytest.raises(TemporaryFailure):
            await executor.describe()
        with pytest.raises(TemporaryFailure):
            await executor.known_tasks()
        assert not watching.done()
    finally:
        await asyncio.to_thread(engine.start)
    # Without live restore the engine takes its containers down when it comes back: the task learns how it ended.
    end = await watching
    assert end.error.startswith("task: non-zero exit (")
    await described
    await late.prepare()
    await late.start()
    assert (await late.wait()).code == 0
    container, _ = await watched.status()
    assert container is not None


async def test_a_task_cut_off_while_it_is_prepared_leaves_nothing_after_removal(
    executor: DockerExecutor, engine: PrivateEngine
) -> None:
    loop = asyncio.get_running_loop()
    whole = shell("true")
    begun = loop.time()
    await started(executor, whole)
    duration = loop.time() - begun
    for part in range(12):
        controller = await executor.controller(shell(FOREVER), Dependencies())

        async def come_up(controller: DockerController = controller) -> None:
            await controller.prepare()
            await controller.start()

        coming = asyncio.create_task(come_up())
        await asyncio.wait({coming}, timeout=duration * part / 10)
        coming.cancel()
        await asyncio.wait({coming})
        await controller.terminate()
        await controller.remove()
        assert len(engine.containers()) == 1, part
    assert len(await executor.known_tasks()) == 1


def _fields(task: Task) -> dict[str, object]:
    return {name: getattr(task, name) for name in task.__struct_fields__}

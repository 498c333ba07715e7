"""How a task becomes processes on this host: pure decisions, refusals with Docker's texts."""

from __future__ import annotations

import posixpath
import re
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.api_types.container import ContainerSpec, DNSConfig, HealthConfig, Mount, Ulimit
from agent.api_types.task import PortConfig, Task
from agent.api_types.times import SECOND
from agent.worker.executors.docker.names import PREFIX, slot_of, task_name
from agent.worker.executors.images.catalog import Image, UnknownImage, find_image, program_of
from agent.worker.executors.process.health import Check
from agent.worker.executors.process.host import LOW_PORT, PORT_SHIFT, Account, Host, UnknownAccount
from agent.worker.executors.process.records import ContainerRecord, FileRecord, MountRecord, container_id
from agent.worker.interface import RejectedByExecutor
from agent.worker.overlay_places import OverlayPlace, overlay_places

DEFAULT_GRACE = 10 * SECOND
DEFAULT_LOG_BYTES = 2 * 1024 * 1024
DEFAULT_LOG_FILES = 8
LEAST_LOG_BYTES = 64 * 1024
ROOT_SIZE = 256 * 1024 * 1024
"""Bytes that a container may write to its own root."""

_CAPABILITY_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT_NAMES = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""
CAPABILITIES: Mapping[str, int] = {name: number for number, name in enumerate(_CAPABILITY_NAMES.split())}
"""Numbers of the capabilities (include/uapi/linux/capability.h)."""
DEFAULT_CAPABILITIES = frozenset(_DEFAULT_NAMES.split())
"""What root in a container may do (moby oci/caps/defaults.go)."""
FORBIDDEN_CAPABILITIES = frozenset(
    {"SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_BOOT", "DAC_READ_SEARCH", "BPF"}
)
"""Capabilities that would let a task out of its sandbox; who needs them needs a real engine."""

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_SIZE = re.compile(r"(\d+)\s*([kmg]?)b?\Z", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}

Accounts = Callable[[str, tuple[str, ...]], Account]
"""Finds the account of a `user` and further groups. UnknownAccount when there is none."""


def plan_container(
    task: Task,
    spec: ContainerSpec,
    host: Host,
    accounts: Accounts,
    address: str,
    volumes: Path,
    now: int,
    network: str = "",
) -> ContainerRecord:
    """The container of a task whose templates are expanded already. RejectedByExecutor when it can never run here.

    `network` is the file of the network namespace that the task gets when it asks for overlays; its addresses are theirs.
    """
    try:
        image = find_image(spec.image)
        account = accounts(spec.user, tuple(spec.groups))
    except (UnknownImage, UnknownAccount) as error:
        raise RejectedByExecutor(str(error)) from None
    identity = container_id(task.id)
    notices = [image.notice] if image.notice else []
    entrypoint, command = _command(image, spec)
    places = overlay_places(task)
    if places:
        address = places[0].address(4) or places[0].address(6)
    low_ports = bool(places) or (host.low_ports and account.uid == 0)
    hostname = spec.hostname or identity[:12]
    # In a namespace of its own a task listens on all of its networks.
    listens = "0.0.0.0" if places else address
    environment = _environment(task, spec, image, host, account, hostname, listens, 0 if low_ports else PORT_SHIFT)
    log_driver, log_bytes, log_files = _logging(task)
    limits = task.spec.resources.limits if task.spec.resources is not None else None
    notices += _unsupported(spec, host, limits is not None and (limits.memory_bytes, limits.nano_cpus, limits.pids))
    if account.uid != accounts("", ()).uid and not host.root:
        raise RejectedByExecutor(f"running as user {spec.user} needs root, and the agent does not run as root")
    return ContainerRecord(
        container_id=identity,
        name=task_name(task),
        task_id=task.id,
        created_at=now,
        image=spec.image,
        image_id=image.id,
        labels={**image.labels, **spec.labels, **task.labels, **_labels(task)},
        entrypoint=entrypoint,
        command=command,
        argv=_argv(image, host, [*entrypoint, *command]),
        announces=bool(image.ports) and program_of(image, [*entrypoint, *command]) is not None,
        env=[f"{key}={value}" for key, value in environment.items()],
        cwd=_absolute(spec.dir),
        user=spec.user,
        uid=account.uid,
        gid=account.gid,
        groups=list(account.groups) if account.groups is not None else None,
        hostname=hostname,
        address=address,
        exposed=list(image.ports),
        port_shift=0 if low_ports else PORT_SHIFT,
        published=_published(task, host),
        stop_signal=parse_signal(spec.stop_signal or "SIGTERM"),
        stop_grace=DEFAULT_GRACE if spec.stop_grace_period is None else spec.stop_grace_period,
        health=_health(spec),
        tty=spec.tty,
        nano_cpus=limits.nano_cpus if limits is not None else 0,
        memory_bytes=limits.memory_bytes if limits is not None else 0,
        pids=limits.pids if limits is not None else 0,
        log_driver=log_driver,
        log_bytes=log_bytes,
        log_files=log_files,
        isolated=host.isolated,
        mounts=[_mount(mount, host, identity, volumes) for mount in spec.mounts],
        files=_files(spec),
        host_files=_host_files(spec, hostname, address, places) if host.isolated else {},
        read_only=spec.read_only,
        no_new_privileges=spec.privileges is not None and spec.privileges.no_new_privileges,
        capabilities=_capabilities(spec) if host.root and host.isolated else None,
        rlimits=[_rlimit(ulimit) for ulimit in spec.ulimits],
        oom_score_adj=spec.oom_score_adj or None,
        notices=notices,
        network=network if places else "",
    )


def parse_signal(text: str) -> int:
    """The number of SIGTERM, TERM or 15. RejectedByExecutor with Docker's text for anything else."""
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except KeyError:
        raise RejectedByExecutor(f"invalid signal: {text}") from None


def parse_size(text: str) -> int | None:
    """Bytes in `10m`, `64k`, `1g` or `4096`; None for anything else."""
    match = _SIZE.match(text.strip())
    return int(match[1]) * _FACTORS[match[2].lower()] if match else None


def _command(image: Image, spec: ContainerSpec) -> tuple[list[str], list[str]]:
    """Entrypoint and command; a service's `command` replaces both of the image's, as in Docker."""
    if spec.command:
        return list(spec.command), list(spec.args)
    command = list(spec.args or image.command)
    if not image.entrypoint and not command:
        raise RejectedByExecutor("No command specified")
    return list(image.entrypoint), command


def _argv(image: Image, host: Host, words: list[str]) -> list[str]:
    program = program_of(image, words)
    return words if program is None else [*host.interpreter, host.programs, *program]


def _environment(
    task: Task,
    spec: ContainerSpec,
    image: Image,
    host: Host,
    account: Account,
    hostname: str,
    address: str,
    port_shift: int,
) -> dict[str, str]:
    """Docker's defaults, then what we tell each task, then the image's, then the service's; a name without = removes."""
    service = task.service_annotations.name if task.service_annotations is not None else ""
    environment = {"HOSTNAME": hostname, "HOME": account.home}
    environment |= dict(_pair(item) for item in image.env)
    environment |= {
        "NODE_HOSTNAME": host.hostname,
        "SERVICE_NAME": service,
        "TASK_ADDRESS": address,
        "TASK_ID": task.id,
        "TASK_NAME": task_name(task),
        "TASK_SLOT": slot_of(task),
    }
    if port_shift:
        environment["TASK_PORT_SHIFT"] = str(port_shift)
    for item in spec.env:
        key, value = _pair(item)
        if "=" in item:
            environment[key] = value
        else:
            environment.pop(key, None)
    # What tells whose process it is, and how its address is found, is not for a service to change.
    return environment | dict(_pair(mark) for mark in host.marks) | {"TASK_ID": task.id, "TASK_ADDRESS": address}


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    if not key or "\0" in item:
        raise RejectedByExecutor(f"invalid environment variable: {item!r}")
    return key, value


def _labels(task: Task) -> dict[str, str]:
    return {
        f"{PREFIX}.task": "",
        f"{PREFIX}.task.id": task.id,
        f"{PREFIX}.task.name": task_name(task),
        f"{PREFIX}.node.id": task.node_id,
        f"{PREFIX}.service.id": task.service_id,
        f"{PREFIX}.service.name": task.service_annotations.name if task.service_annotations is not None else "",
    }


def _logging(task: Task) -> tuple[str, int, int]:
    driver = task.spec.log_driver
    name = (driver.name if driver is not None else "") or "json-file"
    options = driver.options if driver is not None else {}
    if name == "none":
        return name, 0, 0
    if name not in ("json-file", "local"):
        raise RejectedByExecutor(
            f"logger: no log driver named '{name}' is registered; this node has json-file, local and none"
        )
    size = parse_size(options["max-size"]) if "max-size" in options else DEFAULT_LOG_BYTES
    files = options.get("max-file", str(DEFAULT_LOG_FILES))
    if size is None or size < 1:
        raise RejectedByExecutor(f"invalid value for max-size: {options['max-size']!r}")
    if not files.isdigit() or int(files) < 1:
        raise RejectedByExecutor(f"max-file cannot be less than 1: {files!r}")
    return name, max(size, LEAST_LOG_BYTES), int(files)


def _unsupported(spec: ContainerSpec, host: Host, limits: tuple[int, int, int] | bool) -> list[str]:
    """What the service asks for and does not get, for the head of its log."""
    notices = []
    if spec.tty:
        notices.append("a service's process has no terminal here: tty is ignored")
    if spec.sysctls:
        notices.append("sysctls are ignored: containers share the host's network here")
    if spec.read_only and not host.isolated:
        notices.append(f"a read-only root is not to be had here ({host.no_isolation})")
    if isinstance(limits, tuple):
        names = zip(("memory", "cpu", "pids"), limits, strict=True)
        missing = [name for name, limit in names if limit and name not in host.controllers]
        if missing:
            notices.append(
                f"limits of {', '.join(missing)} are not enforced: this host has no writable control groups for them"
            )
    if (spec.secrets or spec.configs) and not host.isolated:
        notices.append("secrets and configs lie below the folder in TASK_FILES, as the root folder is the host's")
    return notices


def _published(task: Task, host: Host) -> list[PortConfig]:
    """Ports of mode host. The agent's relay holds them; a port that it cannot have is refused here, before anything runs."""
    endpoint = task.endpoint
    ports = (endpoint.ports or endpoint.spec.ports) if endpoint is not None else []
    published = [port for port in ports if port.publish_mode == "host" and port.published_port]
    for port in published:
        if port.published_port < LOW_PORT and not host.low_ports:
            raise RejectedByExecutor(
                f"driver failed programming external connectivity: listen {port.protocol or 'tcp'} "
                f"0.0.0.0:{port.published_port}: bind: permission denied (ports under 1024 need root on this host)"
            )
    return published


def _health(spec: ContainerSpec) -> HealthConfig | None:
    try:
        Check.of(spec.healthcheck)
    except ValueError as error:
        raise RejectedByExecutor(str(error)) from None
    return spec.healthcheck


def _mount(mount: Mount, host: Host, identity: str, volumes: Path) -> MountRecord:
    kind, target = mount.type or "volume", mount.target
    if not posixpath.isabs(target) or posixpath.normpath(target) == "/":
        raise RejectedByExecutor(f"invalid mount target, must be an absolute path: {target}")
    if kind not in ("bind", "volume", "tmpfs"):
        raise RejectedByExecutor(f'mount type "{kind}" is not supported by the process executor')
    if not host.isolated:
        raise RejectedByExecutor(f"mounts are not to be had here: {host.no_isolation}")
    target = posixpath.normpath(target)
    if kind == "tmpfs":
        options = mount.tmpfs_options
        return MountRecord(kind, target, size=options.size_bytes if options else 0, mode=options.mode if options else 0)
    if kind == "bind":
        if not posixpath.isabs(mount.source):
            raise RejectedByExecutor(f"invalid bind mount source, must be an absolute path: {mount.source}")
        return MountRecord(kind, target, source=mount.source, read_only=mount.read_only)
    driver = mount.volume_options.driver_config if mount.volume_options is not None else None
    if driver is not None and driver.name not in ("", "local"):
        raise RejectedByExecutor(f'error looking up volume plugin {driver.name}: plugin "{driver.name}" not found')
    name = mount.source or f"{identity[:16]}-{posixpath.basename(target)}"
    if not _VOLUME_NAME.match(name):
        raise RejectedByExecutor(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed'
        )
    return MountRecord(kind, target, source=str(volumes / name), name=name, read_only=mount.read_only)


def _files(spec: ContainerSpec) -> list[FileRecord]:
    found = []
    for secret in spec.secrets:
        if secret.file is None:
            raise RejectedByExecutor(f"secret target type is not supported: {secret.secret_name}")
        path = posixpath.join("/run/secrets", secret.file.name)
        found.append(_file(path, secret.secret_id, True, secret.file.uid, secret.file.gid, secret.file.mode))
    for config in spec.configs:
        if config.file is None:
            raise RejectedByExecutor(f"config target type is not supported: {config.config_name}")
        path = posixpath.join("/", config.file.name)
        found.append(_file(path, config.config_id, False, config.file.uid, config.file.gid, config.file.mode))
    return found


def _file(path: str, object_id: str, secret: bool, uid: str, gid: str, mode: int) -> FileRecord:
    for number in (uid, gid):
        if number and not number.isdigit():
            raise RejectedByExecutor(f"owner of {path}: {number!r} is no number")
    # Of `..` only what stays below the root is left: without a root of its own a file must not land outside of its folder.
    return FileRecord(_absolute(path), object_id, secret, int(uid or 0), int(gid or 0), mode & 0o777)


def _absolute(path: str) -> str:
    """`path` below the root, without `..`. (normpath keeps two slashes at the beginning, as POSIX allows.)"""
    return posixpath.normpath("/" + path.lstrip("/"))


def _host_files(spec: ContainerSpec, hostname: str, address: str, places: Sequence[OverlayPlace]) -> dict[str, str]:
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts += ["\t".join(line.split()) for line in spec.hosts]
    if address:
        hosts.append(f"{address}\t{hostname}")
    files = {"/etc/hosts": "\n".join(hosts) + "\n", "/etc/hostname": f"{hostname}\n"}
    dns = spec.dns_config or DNSConfig()
    # The resolver on the first network knows the names of all of them, and asks the host's for the rest.
    servers = [*(gateway for place in places for gateway in place.gateways[:1]), *dns.nameservers]
    if servers:
        lines = [f"nameserver {server}" for server in servers]
        lines += [f"search {' '.join(dns.search)}"] if dns.search else []
        lines += [f"options {' '.join(dns.options)}"] if dns.options else []
        files["/etc/resolv.conf"] = "\n".join(lines) + "\n"
    return files


def _capabilities(spec: ContainerSpec) -> list[int]:
    kept = set(DEFAULT_CAPABILITIES)
    for name in spec.capability_drop:
        kept = set() if name.upper() == "ALL" else kept - {_capability(name)}
    for name in spec.capability_add:
        kept |= set(CAPABILITIES) - FORBIDDEN_CAPABILITIES if name.upper() == "ALL" else {_capability(name)}
    forbidden = sorted(kept & FORBIDDEN_CAPABILITIES)
    if forbidden:
        raise RejectedByExecutor(
            f"capability {forbidden[0]} would let a task out of its sandbox; it needs a Docker Engine"
        )
    return sorted(CAPABILITIES[name] for name in kept)


def _capability(name: str) -> str:
    bare = name.upper().removeprefix("CAP_")
    if bare not in CAPABILITIES:
        raise RejectedByExecutor(f'invalid CapAdd or CapDrop: unknown capability: "{name}"')
    return bare


def _rlimit(ulimit: Ulimit) -> tuple[int, int, int]:
    number = getattr(resource, f"RLIMIT_{ulimit.name.upper()}", None)
    if not isinstance(number, int):
        raise RejectedByExecutor(f"invalid ulimit type: {ulimit.name}")
    return number, ulimit.soft, ulimit.hard

"""What a task runs: image, command, environment, mounts, health (moby api/types/swarm/container.go)."""

from __future__ import annotations

from agent.api_types.common import Driver
from agent.api_types.fields import ApiObject, omitempty, present


class DNSConfig(ApiObject, frozen=True):
    """The resolver settings inside the container."""

    nameservers: list[str] = omitempty("Nameservers", [])
    search: list[str] = omitempty("Search", [])
    options: list[str] = omitempty("Options", [])


class HealthConfig(ApiObject, frozen=True):
    """A health check: `test` is [], ["NONE"], ["CMD", ...] or ["CMD-SHELL", command]; nanoseconds, 0 inherits."""

    test: list[str] = omitempty("Test", [])
    interval: int = omitempty("Interval", 0)
    timeout: int = omitempty("Timeout", 0)
    start_period: int = omitempty("StartPeriod", 0)
    start_interval: int = omitempty("StartInterval", 0)
    retries: int = omitempty("Retries", 0)


class BindOptions(ApiObject, frozen=True):
    """Options of a bind mount."""

    propagation: str = omitempty("Propagation", "")
    non_recursive: bool = omitempty("NonRecursive", False)
    create_mountpoint: bool = omitempty("CreateMountpoint", False)
    read_only_non_recursive: bool = omitempty("ReadOnlyNonRecursive", False)
    read_only_force_recursive: bool = omitempty("ReadOnlyForceRecursive", False)


class VolumeOptions(ApiObject, frozen=True):
    """Options of a volume mount; the volume is made with them when it is missing."""

    no_copy: bool = omitempty("NoCopy", False)
    labels: dict[str, str] = omitempty("Labels", {})
    subpath: str = omitempty("Subpath", "")
    driver_config: Driver | None = omitempty("DriverConfig", None)


class TmpfsOptions(ApiObject, frozen=True):
    """Options of a tmpfs mount: size in bytes, mode bits."""

    size_bytes: int = omitempty("SizeBytes", 0)
    mode: int = omitempty("Mode", 0)


class Mount(ApiObject, frozen=True):
    """A mount; `type` is bind, volume, tmpfs, npipe or cluster."""

    type: str = omitempty("Type", "")
    source: str = omitempty("Source", "")
    target: str = omitempty("Target", "")
    read_only: bool = omitempty("ReadOnly", False)
    consistency: str = omitempty("Consistency", "")
    bind_options: BindOptions | None = omitempty("BindOptions", None)
    volume_options: VolumeOptions | None = omitempty("VolumeOptions", None)
    tmpfs_options: TmpfsOptions | None = omitempty("TmpfsOptions", None)


class ReferenceFileTarget(ApiObject, frozen=True):
    """Where a secret or config shows up in the container; `mode` is the file's mode bits."""

    name: str = present("Name", "")
    uid: str = present("UID", "")
    gid: str = present("GID", "")
    mode: int = present("Mode", 0)


class SecretReference(ApiObject, frozen=True):
    """A secret that the task may read."""

    file: ReferenceFileTarget | None = omitempty("File", None)
    secret_id: str = present("SecretID", "")
    secret_name: str = present("SecretName", "")


class ConfigReference(ApiObject, frozen=True):
    """A config that the task may read."""

    file: ReferenceFileTarget | None = omitempty("File", None)
    config_id: str = present("ConfigID", "")
    config_name: str = present("ConfigName", "")


class Ulimit(ApiObject, frozen=True):
    """A resource limit of the process."""

    name: str = present("Name", "")
    hard: int = present("Hard", 0)
    soft: int = present("Soft", 0)


class CredentialSpec(ApiObject, frozen=True):
    """Windows credentials; refused on Linux nodes, kept so that the refusal can say so."""

    config: str = omitempty("Config", "")
    file: str = omitempty("File", "")
    registry: str = omitempty("Registry", "")


class SELinuxContext(ApiObject, frozen=True):
    """SELinux labels of the container."""

    disable: bool = present("Disable", False)
    user: str = present("User", "")
    role: str = present("Role", "")
    type: str = present("Type", "")
    level: str = present("Level", "")


class Privileges(ApiObject, frozen=True):
    """Security options; null members stay in the JSON, as in the recorded traffic."""

    credential_spec: CredentialSpec | None = present("CredentialSpec", None)
    selinux_context: SELinuxContext | None = present("SELinuxContext", None)
    no_new_privileges: bool = omitempty("NoNewPrivileges", False)


class PullOptions(ApiObject, frozen=True):
    """How nodes get the image: `registry_auth` is the value of X-Registry-Auth that the client sent. Never shown again."""

    registry_auth: str = omitempty("RegistryAuth", "")


class ContainerSpec(ApiObject, frozen=True):
    """The container of a task. `command` replaces the image's entrypoint, `args` its command."""

    image: str = omitempty("Image", "")
    pull_options: PullOptions | None = omitempty("PullOptions", None)
    labels: dict[str, str] = omitempty("Labels", {})
    command: list[str] = omitempty("Command", [])
    args: list[str] = omitempty("Args", [])
    hostname: str = omitempty("Hostname", "")
    env: list[str] = omitempty("Env", [])
    dir: str = omitempty("Dir", "")
    user: str = omitempty("User", "")
    groups: list[str] = omitempty("Groups", [])
    privileges: Privileges | None = omitempty("Privileges", None)
    init: bool | None = omitempty("Init", None)
    stop_signal: str = omitempty("StopSignal", "")
    tty: bool = omitempty("TTY", False)
    open_stdin: bool = omitempty("OpenStdin", False)
    read_only: bool = omitempty("ReadOnly", False)
    mounts: list[Mount] = omitempty("Mounts", [])
    stop_grace_period: int | None = omitempty("StopGracePeriod", None)
    healthcheck: HealthConfig | None = omitempty("Healthcheck", None)
    hosts: list[str] = omitempty("Hosts", [])
    dns_config: DNSConfig | None = omitempty("DNSConfig", None)
    secrets: list[SecretReference] = omitempty("Secrets", [])
    configs: list[ConfigReference] = omitempty("Configs", [])
    isolation: str = omitempty("Isolation", "")
    sysctls: dict[str, str] = omitempty("Sysctls", {})
    capability_add: list[str] = omitempty("CapabilityAdd", [])
    capability_drop: list[str] = omitempty("CapabilityDrop", [])
    ulimits: list[Ulimit] = omitempty("Ulimits", [])
    oom_score_adj: int = omitempty("OomScoreAdj", 0)

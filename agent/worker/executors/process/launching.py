"""What the spawner is told of a container: the shim's settings, and those of programs beside it. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.worker.executors.process.host import Host
from agent.worker.executors.process.plan import ROOT_SIZE
from agent.worker.executors.process.records import ContainerRecord, RunRecord
from agent.worker.interface import Dependencies, RejectedByExecutor


def shim_settings(
    record: ContainerRecord, folder: Path, host: Host, contents: Mapping[str, bytes], entries: Sequence[str]
) -> dict[str, object]:
    """Settings of `supervise.launch`. `contents` are the secrets and configs by path, `entries` the control groups."""
    root = None
    if record.isolated:
        files = [(path, text.encode(), 0, 0, 0o644) for path, text in record.host_files.items()]
        files += [(file.path, contents[file.path], file.uid, file.gid, file.mode) for file in record.files]
        root = sandbox_settings(host, files, record.cwd, record.read_only)
        root["binds"] = [
            (mount.source, mount.target, mount.read_only) for mount in record.mounts if mount.kind != "tmpfs"
        ]
        root["tmpfs"] = [(mount.target, mount.size, mount.mode) for mount in record.mounts if mount.kind == "tmpfs"]
    return {
        "folder": str(folder),
        "hostname": record.hostname,
        "root": root,
        "program": program_settings(record, record.argv, files_folder(record)),
        "cgroups": list(entries),
        "log_bytes": record.log_bytes,
        "log_files": record.log_files,
        "notices": list(record.notices),
        "announces": record.announces,
        "memory": files_folder(record),
        "network": record.network,
    }


def sandbox_settings(
    host: Host, files: list[tuple[str, bytes, int, int, int]], cwd: str = "/", read_only: bool = False
) -> dict[str, object]:
    """Settings of `sandbox.build` without mounts of the container's own."""
    return {
        "size": ROOT_SIZE,
        "visible": list(host.visible),
        "binds": [],
        "tmpfs": [],
        "files": files,
        "cwd": cwd,
        "read_only": read_only,
    }


def program_settings(
    record: ContainerRecord,
    argv: Sequence[str],
    files: str,
    env: Sequence[str] = (),
    cwd: str = "",
    account: object = None,
) -> dict[str, object]:
    """Settings of `program.become` for a program of the container; `account` is (uid, gid, groups) where not its own."""
    uid, gid, groups = account if isinstance(account, tuple) else (record.uid, record.gid, record.groups)
    extra = [f"TASK_FILES={files}"] if files else []
    return {
        "argv": list(argv),
        "env": [*record.env, *extra, *env],
        "cwd": cwd or record.cwd,
        "uid": uid,
        "gid": gid,
        "groups": groups,
        "capabilities": record.capabilities,
        "no_new_privileges": record.no_new_privileges,
        "rlimits": [tuple(limit) for limit in record.rlimits],
        "oom_score_adj": record.oom_score_adj or 0,
    }


def exec_settings(
    record: ContainerRecord, run: RunRecord, program: Mapping[str, object], terminal: bool, entries: Sequence[str]
) -> dict[str, object]:
    """Settings of `execute.launch`."""
    return {
        "shim": run.shim,
        "shim_start": run.shim_start,
        "isolated": record.isolated,
        "network": bool(record.network),
        "terminal": terminal,
        "program": dict(program),
        "cgroups": list(entries),
    }


def contents_of(record: ContainerRecord, dependencies: Dependencies) -> dict[str, bytes]:
    """Secrets and configs by the path that the container reads them at. RejectedByExecutor names one that is missing."""
    found = {}
    for file in record.files:
        source = dependencies.secrets if file.secret else dependencies.configs
        if file.object_id not in source:
            raise RejectedByExecutor(f"{'secret' if file.secret else 'config'} of {file.path} is not here")
        found[file.path] = source[file.object_id]
    return found


def files_folder(record: ContainerRecord) -> str:
    """Where secrets and configs lie in memory for a container without a root of its own; empty for one without any."""
    if record.isolated or not record.files:
        return ""
    return posixpath.join("/dev/shm", f"swarmtui-{record.container_id[:32]}")

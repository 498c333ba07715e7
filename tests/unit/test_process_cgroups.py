"""Control groups: where they are mounted and where ours may lie; the files are a copy in a folder."""

from __future__ import annotations

from pathlib import Path

from agent.worker.executors.process.cgroups import (
    Bounds,
    Group,
    Hierarchy,
    Parents,
    create,
    entries,
    members,
    parse_hierarchies,
    remove,
    usage,
)

V1 = """\
24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
28 24 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
"""
V1_OWN = "4:cpu,cpuacct:/user\n3:memory:/user/me\n2:freezer:/\n1:name=systemd:/user\n"


def test_version_1() -> None:
    assert parse_hierarchies(V1, V1_OWN) == [
        Hierarchy(
            1,
            Path("/sys/fs/cgroup/cpu,cpuacct/user"),
            Path("/sys/fs/cgroup/cpu,cpuacct"),
            frozenset({"cpu", "cpuacct"}),
        ),
        Hierarchy(1, Path("/sys/fs/cgroup/memory/user/me"), Path("/sys/fs/cgroup/memory"), frozenset({"memory"})),
    ]


def test_version_2_and_a_container_that_is_shown_a_part_only() -> None:
    mounts = "30 24 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (found,) = parse_hierarchies(mounts, "0::/docker/abc/x\n")
    assert (found.version, found.base, found.root) == (2, Path("/sys/fs/cgroup/x"), Path("/sys/fs/cgroup"))
    (found,) = parse_hierarchies(mounts, "0::/elsewhere\n")
    assert found.base == Path("/sys/fs/cgroup")


def test_nothing_mounted_or_nothing_known() -> None:
    assert parse_hierarchies("", "") == []
    assert parse_hierarchies(V1, "0::/\n") == []
    assert Parents([]).controllers == frozenset()
    assert (
        Parents([Hierarchy(1, Path("/proc/nowhere"), Path("/proc"), frozenset({"memory"}))]).controllers == frozenset()
    )


def test_bounds_are_written_where_the_kernel_has_the_file(tmp_path: Path) -> None:
    group = Group(1, str(tmp_path / "g"), ["cpu", "memory", "pids"])
    folder = Path(group.path)
    folder.mkdir()
    for name in ("memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us", "pids.max", "cgroup.procs"):
        (folder / name).write_text("")
    paths = create([group], Bounds(memory_bytes=5000, nano_cpus=1_500_000_000, pids=7))
    assert paths == [f"{folder}/cgroup.procs"] == entries([group])
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert texts["memory.limit_in_bytes"] == "5000"
    assert (texts["cpu.cfs_period_us"], texts["cpu.cfs_quota_us"]) == ("100000", "150000")
    assert texts["pids.max"] == "7"
    assert "memory.memsw.limit_in_bytes" not in texts
    create([group], Bounds(nano_cpus=1))
    assert (folder / "cpu.cfs_quota_us").read_text() == "1000"
    assert (folder / "memory.limit_in_bytes").read_text() == "-1"


def test_bounds_in_version_2(tmp_path: Path) -> None:
    group = Group(2, str(tmp_path / "g"), ["cpu", "memory", "pids"])
    folder = Path(group.path)
    folder.mkdir()
    for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
        (folder / name).write_text("")
    create([group], Bounds(memory_bytes=5000, nano_cpus=500_000_000))
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert texts == {"memory.max": "5000", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "max"}


def test_accounts_of_both_versions_are_put_together(tmp_path: Path) -> None:
    first, second = Group(1, str(tmp_path / "1"), ["memory", "pids"]), Group(2, str(tmp_path / "2"), [])
    for group in (first, second):
        Path(group.path).mkdir()
    (tmp_path / "1" / "memory.usage_in_bytes").write_text("4096\n")
    (tmp_path / "1" / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    (tmp_path / "1" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "1" / "pids.max").write_text("max\n")
    (tmp_path / "1" / "cgroup.procs").write_text("12\n7\n")
    (tmp_path / "2" / "cgroup.procs").write_text("12\n")
    (tmp_path / "2" / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\nsystem_usec 2\n")
    found = usage([first, second])
    assert (found.memory_bytes, found.memory_limit, found.out_of_memory_kills, found.pids_limit) == (4096, 0, 2, 0)
    assert (found.cpu_total, found.cpu_user, found.cpu_system) == (5000, 3000, 2000)
    assert members([first, second]) == [7, 12]


def test_what_is_gone_is_no_error(tmp_path: Path) -> None:
    group = Group(1, str(tmp_path / "gone"), ["memory", "pids"])
    assert members([group]) == []
    assert remove([group]) is True
    assert entries([group]) == []
    assert usage([group]).memory_bytes == 0

"""Control group hierarchies as /proc/self/mountinfo lists them."""

from swarmtui.playground.cgroups import Hierarchy, parse_mountinfo

VERSION_1 = """\
31 24 0:27 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
34 31 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:12 - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
35 31 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:13 - cgroup2 cgroup2 rw,nsdelegate
"""

VERSION_2 = """\
24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw
31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""


def test_version_1_gives_one_hierarchy_a_mount_with_what_mounting_it_again_needs() -> None:
    assert parse_mountinfo(VERSION_1) == [
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", 1, "cpu,cpuacct"),
        Hierarchy("/sys/fs/cgroup/memory", 1, "memory"),
        Hierarchy("/sys/fs/cgroup/systemd", 1, "none,name=systemd"),
        Hierarchy("/sys/fs/cgroup/unified", 2),
    ]


def test_version_2_gives_one() -> None:
    assert parse_mountinfo(VERSION_2) == [Hierarchy("/sys/fs/cgroup", 2)]


def test_a_hierarchy_that_is_mounted_over_counts_once() -> None:
    assert parse_mountinfo(VERSION_2 + VERSION_2) == [Hierarchy("/sys/fs/cgroup", 2)]


def test_controllers_are_told_from_names() -> None:
    assert Hierarchy("/x", 1, "cpu,cpuacct").controllers == {"cpu", "cpuacct"}
    assert Hierarchy("/x", 1, "none,name=systemd").controllers == frozenset()

"""A User-Mode Linux kernel for what this machine's kernel may lack: IPVS, ESP. A program runs in it with this machine's files.

The kernel is a program like any other: no virtualisation is needed, and it starts in a second or two. It is Debian's package
`user-mode-linux`, taken from the package mirror that the machine uses and unpacked into a cache, not installed. In it the
machine's file tree is read-only, /tmp and /run are empty memory file systems, and the folder `SHARED` is the caller's.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHARED = "/mnt"
"""Where the caller's folder is, in the kernel."""

PACKAGE = "user-mode-linux"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "swarmtui-tests" / "uml"
POWER_OFF = 0x4321FEDC

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t hostfs -o {folder} none {shared}
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
{shown}
export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1
mkdir -p /run/bin /run/netns
# The kernel has no tables of nftables for IPv4: iptables as it was before.
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s "$(command -v xtables-legacy-multi)" /run/bin/$name
done
echo {shared}/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
modprobe -d {kernel} -a {modules} 2> {shared}/modules
cd {cwd}
{command} > {shared}/output 2>&1 < /dev/null
echo $? > {shared}/status
sync
exec {python} -c 'import ctypes; ctypes.CDLL(None).reboot({off})'
"""


@functools.cache
def lacking() -> str | None:
    """Why there is no such kernel, None when there is; it is fetched the first time."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("depmod", "modprobe", "dpkg-deb", "apt-get", "xtables-legacy-multi"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"the User-Mode Linux kernel needs {program}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return None if (CACHE / "ready").exists() else _fetch()


def run(command: Sequence[str], folder: Path, *, modules: Sequence[str], timeout: float, memory: int = 512) -> int:
    """Run a program in a kernel of its own that has these modules; its exit status, -1 when the kernel died or took too long.

    What it says is in `folder`/output, what the kernel says in `folder`/console. `memory` is in MiB.
    """
    (version,) = (CACHE / "lib" / "modules").iterdir()
    script, loader = folder / "init", folder / "modprobe"
    loader.write_text(f'#!/bin/sh\nexec {shutil.which("modprobe") or "/sbin/modprobe"} -d {CACHE} "$@"\n')
    script.write_text(
        INIT.format(
            folder=folder,
            shared=SHARED,
            shown="\n".join(_shown_again([Path.cwd(), Path(sys.prefix), CACHE])),
            kernel=CACHE,
            modules=shlex.join(modules),
            cwd=shlex.quote(os.getcwd()),
            command=shlex.join(command),
            python=sys.executable,
            off=POWER_OFF,
        )
    )
    for file in (script, loader):
        file.chmod(0o755)
    assert version.is_dir()
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/dev/shm") as own, open(folder / "console", "w") as console:
        kernel = subprocess.Popen(
            [
                str(CACHE / "usr" / "bin" / "linux.uml"),
                f"mem={memory}M",
                f"uml_dir={own}",
                "root=/dev/root",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                f"init={script}",
                "con=null",
                "con0=null,fd:1",
                "console=tty0",
                "quiet",
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": own},
            start_new_session=True,
        )
        try:
            kernel.wait(timeout)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            # Its processes are threads and children of this machine's kernel, all of one session.
            if kernel.poll() is None:
                os.killpg(kernel.pid, 9)
            kernel.wait()
    status = folder / "status"
    return int(status.read_text()) if status.exists() else -1


def _shown_again(folders: Sequence[Path]) -> list[str]:
    """Commands that show those of the folders again that the empty file systems hide."""
    hidden = [folder for folder in folders if folder.is_relative_to("/tmp") or folder.is_relative_to("/run")]
    return [
        f"mkdir -p {shlex.quote(str(each))} && mount -t hostfs -o {each} none {shlex.quote(str(each))}"
        for each in hidden
    ]


def _fetch() -> str | None:
    """Unpack the package into the cache. Why that is not possible, or None."""
    with tempfile.TemporaryDirectory(prefix="uml-") as folder:
        # apt fetches as a user of its own.
        os.chmod(folder, 0o755)
        shutil.chown(folder, "_apt") if _user_exists("_apt") else None
        done = subprocess.run(
            ["apt-get", "download", "-q", PACKAGE], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        found = list(Path(folder).glob("*.deb"))
        if done.returncode != 0 or not found:
            return f"{PACKAGE} cannot be fetched: {done.stderr.strip()[-200:]}"
        subprocess.run(["dpkg-deb", "-x", str(found[0]), str(CACHE)], check=True, capture_output=True)
    target = CACHE / "lib" / "modules"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.move(CACHE / "usr" / "lib" / "uml" / "modules", target)
    (version,) = target.iterdir()
    subprocess.run(["depmod", "-b", str(CACHE), version.name], check=True, capture_output=True)
    (CACHE / "ready").touch()
    return None


def _user_exists(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True

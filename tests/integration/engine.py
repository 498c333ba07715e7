"""A Docker Engine of the tests' own: started by hand, in namespaces of its own, torn down without a trace.

Its first process is `tini` in a new pid and mount namespace; killing it kills engine, shims and containers, and takes every
mount along. It shares the host's network, on a bridge of its own and without a firewall rule, so that a test reaches
containers by their addresses.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

PROGRAMS = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "tini": "tini",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
}

IMAGE = "bb:1"
"""A busybox with `sh` as its command."""

HEALTHY_IMAGE = "bb-health:1"
"""The same with a health check: healthy while /tmp/healthy exists."""

PREFIX = "swt-engine-"

_START_TIMEOUT = 60.0


class EngineMissing(Exception):
    """The machine cannot run an engine; the text says how to make it able to."""


class PrivateEngine:
    """An engine under `folder`, on a bridge and a subnet that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self.bridge = ""
        self.gateway = ""
        self._cgroup = folder.name
        self._init: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._log = folder / "engine.log"
        self._lock = (folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # -- life

    def up(self) -> None:
        """Start everything and wait until the engine answers."""
        require_programs()
        for name in ("data", "containerd", "etc"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._add_bridge()
        inner = " && ".join(
            (
                "mount --make-rshared /",
                "mount -t tmpfs -o mode=755 tmpfs /run",
                f"mkdir -p /etc/docker && mount --bind {self.folder}/etc /etc/docker",
                "mkdir -p /run/containerd",
                f"echo up > {self.folder}/ready",
                f"exec containerd --root {self.folder}/containerd --state /run/containerd "
                "--address /run/containerd/containerd.sock --log-level warn",
            )
        )
        # The death of the tests takes the namespaces along, however they die. It is the death of the thread that counts.
        assert threading.current_thread() is threading.main_thread()
        self._init = self._spawn(
            *("setpriv", "--pdeathsig", "KILL"),
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "tini",
            "--",
            "sh",
            "-c",
            inner,
        )
        _wait(lambda: (self.folder / "ready").exists(), "the engine's namespaces", self._log)
        self.start()

    def start(self) -> None:
        """Start the engine's daemon, containerd and namespaces being there."""
        assert self._init is not None
        self._dockerd = self._spawn(
            "nsenter",
            f"--target={self._namespace_pid()}",
            "--mount",
            "--pid",
            "dockerd",
            "--containerd=/run/containerd/containerd.sock",
            f"--data-root={self.folder}/data",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            "--storage-driver=overlay2",
            f"--bridge={self.bridge}",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            f"--cgroup-parent=/{self._cgroup}",
            "--label=swarmtui.test=yes",
            "--log-level=warn",
            f"--host={self.address}",
        )
        _wait(self.answers, "the Docker Engine", self._log)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the daemon, in order or at once; containerd stays."""
        assert self._dockerd is not None
        # nsenter stands before the daemon and passes no signal on; the daemon is its child.
        pid = _child(self._dockerd.pid)
        os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        self._dockerd.wait(_START_TIMEOUT)
        self._dockerd = None

    def down(self) -> None:
        """Kill all of it, and remove every trace."""
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._namespace_pid(), signal.SIGKILL)
            self._init.wait(_START_TIMEOUT)
        if self._dockerd is not None:
            self._dockerd.wait(_START_TIMEOUT)
        self._lock.close()
        _remove_traces(self.folder)

    def answers(self) -> bool:
        """Whether the engine answers now."""
        try:
            return self.call("GET", "/_ping") == b"OK"
        except OSError:
            return False

    # -- use

    def call(self, method: str, path: str, body: bytes | None = None, **query: str) -> bytes:
        """One request; RuntimeError with the engine's answer when it says no."""
        connection = _UnixConnection(str(self.socket))
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            headers = {"Content-Type": "application/json" if body is None or body[:1] == b"{" else "application/x-tar"}
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return content

    def containers(self) -> list[dict[str, object]]:
        """Every container of the engine."""
        listed: list[dict[str, object]] = json.loads(self.call("GET", "/containers/json", all="1"))
        return listed

    def inspect(self, container: str) -> dict[str, object]:
        """A container in full."""
        shown: dict[str, object] = json.loads(self.call("GET", f"/containers/{container}/json"))
        return shown

    def clean(self) -> None:
        """Remove every container."""
        for container in self.containers():
            self.call("DELETE", f"/containers/{container['Id']}", force="1", v="1")

    def import_image(self, name: str, *changes: str) -> None:
        """Make a busybox image without a registry."""
        repository, _, tag = name.partition(":")
        query = urlencode([("fromSrc", "-"), ("repo", repository), ("tag", tag), *(("changes", c) for c in changes)])
        self.call("POST", f"/images/create?{query}", root_filesystem())

    def execute(self, container: str, *command: str) -> str:
        """What a command prints inside a container (standard output and error together)."""
        body = json.dumps({"AttachStdout": True, "AttachStderr": True, "Cmd": command}).encode()
        created = json.loads(self.call("POST", f"/containers/{container}/exec", body))
        raw = self.call("POST", f"/exec/{created['Id']}/start", b"{}")
        text = b""
        while raw:
            size = int.from_bytes(raw[4:8], "big")
            text, raw = text + raw[8 : 8 + size], raw[8 + size :]
        return text.decode()

    # -- inside

    def _add_bridge(self) -> None:
        """Take the first number whose bridge does not exist yet: making a link is how the kernel gives out names."""
        for number in range(255):
            name = f"swt-{number}"
            made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True)
            if made.returncode == 0:
                self.bridge, self.gateway = name, f"10.213.{number}.1"
                (self.folder / "bridge").write_text(name)
                break
            if "File exists" not in made.stderr:
                raise EngineMissing(f"no bridge can be made here: {made.stderr.strip()}")
        else:
            raise EngineMissing("every bridge from swt-0 to swt-254 exists: remove those of tests that were killed")
        _run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        _run("ip", "link", "set", self.bridge, "up")

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _namespace_pid(self) -> int:
        """The first process of the namespaces, as the host numbers it."""
        assert self._init is not None
        return _child(self._init.pid)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(60)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def require_programs() -> None:
    """EngineMissing that says what to install."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        raise EngineMissing(
            f"these tests need a Docker Engine and its tools; as root on Debian, `./run test` installs them with: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise EngineMissing("these tests start a Docker Engine and so need root: run `./run test` as root")


def root_filesystem() -> bytes:
    """A tar of a root file system: a static busybox and its names."""
    binary = shutil.which("busybox")
    assert binary is not None
    names = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(path: str, content: bytes, mode: int = 0o644) -> None:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))

        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("run", 0o755), ("data", 0o755)):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, mode
            archive.addfile(member)
        add("bin/busybox", Path(binary).read_bytes(), 0o755)
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        add("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        add("etc/group", b"root:x:0:\nnobody:x:65534:\nextra:x:1234:\n")
        add("data/inside", b"from the image\n")
    return buffer.getvalue()


def sweep() -> None:
    """Remove what tests that were killed left behind: a folder whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_traces(folder)


def _remove_traces(folder: Path) -> None:
    """The bridge, cgroups and files of an engine that is dead."""
    bridge = folder / "bridge"
    if bridge.exists():
        subprocess.run(["ip", "link", "del", bridge.read_text()], capture_output=True, check=False)
    for controller in Path("/sys/fs/cgroup").glob(f"*/{folder.name}"):
        for group in sorted(controller.rglob("*"), reverse=True):
            if group.is_dir():
                group.rmdir()
        controller.rmdir()
    shutil.rmtree(folder)


@contextlib.contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """An engine with the test images, for as long as the block lasts."""
    sweep()
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix=PREFIX)))
    try:
        engine.up()
        engine.import_image(IMAGE, 'CMD ["sh"]', "ENV PATH=/bin")
        engine.import_image(
            HEALTHY_IMAGE,
            'CMD ["sh", "-c", "trap exit TERM; touch /tmp/healthy; while :; do sleep 0.1; done"]',
            "ENV PATH=/bin",
            "HEALTHCHECK --interval=500ms --retries=2 CMD test -e /tmp/healthy",
        )
        yield engine
    finally:
        engine.down()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _child(pid: int) -> int:
    """The only child of a process, once it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + _START_TIMEOUT
    while not (found := children.read_text().split()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} has no child")
        time.sleep(0.01)
    return int(found[0])


def _wait(condition: object, what: str, log: Path) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come up:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)

"""The shim of one task: forks the task's first process, keeps its output, reaps, and writes down how it ended.

In its folder it writes `run` once the task runs and `exit` when it has ended, both whole or not at all; `lock` is held for
as long as the shim lives, so that a task is started once whatever the agents do. With a process namespace the shim is its
process 1, else the reaper of all that the task leaves behind; either way nothing of a container outlives its first process,
nor its folder: a task whose records are gone is ended.
"""

from __future__ import annotations

# typeshed knows only the wrapper, `signal`, whose enums would add 0.9 MB to every shim.
import _signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import os
import select
import time

from agent.worker.executors.process.shim import kernel, program, sandbox
from agent.worker.executors.process.shim.logfile import STDERR, STDOUT, LogWriter

CHUNK = 65536
DRAIN_SECONDS = 1.0
"""How long output is waited for once every process of the container is gone: somebody else may hold the pipe."""
READY_SECONDS = 3
"""How long a server of ours may take until it listens, and nobody hears yet that it runs."""
RECORD_BYTES = 1024
"""Size of a record on disk, filled up with spaces."""
SHIM_OOM_ADJUST = b"-998"
"""With root, as container engines do: a host short of memory must not end the keeper of a task before the task."""

_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC


def probe(settings: dict[str, object], answer: int) -> None:
    """Try a whole sandbox in a throw-away process and say whether it can be had."""
    try:
        kernel.unshare(_NAMESPACES)
    except OSError as error:
        os.write(answer, b"refused %s\n" % str(error.strerror).encode())
        return
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.build(str(settings["folder"]), settings["root"])  # type: ignore[arg-type]
            os.write(answer, b"allowed\n")
        except OSError as error:
            os.write(answer, b"refused %s\n" % str(error.strerror).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def launch(settings: dict[str, object], answer: int) -> None:
    """In a fresh fork of the spawner: fork the shim and go, so that the shim belongs to nobody.

    Settings: "folder"; "root" (see `sandbox.build`) or None for no namespaces; "hostname"; "program" (see `program.become`);
    "cgroups"; "log_bytes" and "log_files"; "notices", lines for the head of the log; "announces", whether the program tells
    by the descriptor in TASK_READY_FD when it is ready; "memory", the folder with its secrets, which end with it, or empty;
    "network", the file of the network namespace that it lives in, or empty for the host's.
    """
    folder = os.open(str(settings["folder"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(answer, b"busy\n")
        return
    if {"run", "exit"} & set(os.listdir(folder)):
        os.write(answer, b"exists\n")
        return
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    groups = program.open_groups(settings["cgroups"])  # type: ignore[arg-type]
    if settings["network"]:
        try:
            join_network(str(settings["network"]))
        except OSError as error:
            os.write(answer, b"failed its network cannot be entered: %s\n" % str(error.strerror).encode())
            return
    if settings["root"] is not None:
        kernel.unshare(_NAMESPACES)
    if os.fork() == 0:
        # The lock is on the open file, so it passes to the shim, which holds it until it ends.
        _Shim(settings, folder, proc, groups, answer).run()


def join_network(path: str) -> None:
    """Live in the network namespace that the file names. The file of one that went with a restart of the host is no way
    in: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(descriptor)
    finally:
        os.close(descriptor)


class _Shim:
    def __init__(self, settings: dict[str, object], folder: int, proc: int, groups: list[int], answer: int) -> None:
        self._settings = settings
        self._folder = folder
        self._proc = proc
        self._groups = groups
        self._answer = answer
        self._isolated = settings["root"] is not None
        self._writer = LogWriter(folder, int(settings["log_bytes"]), int(settings["log_files"]))  # type: ignore[call-overload]
        self._task = 0
        self._identity = (0, 0)
        self._records: dict[str, int] = {}
        self._wake = -1
        self._ready = -1
        self._code: int | None = None
        self._finished = 0
        self._memory = str(settings["memory"])

    def run(self) -> None:
        """Start the task, stay until it ended."""
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE):
            _signal.signal(number, _signal.SIG_IGN)
        kernel.set_name("swarmtui-shim")
        pid, start = kernel.identity(self._proc)
        if os.geteuid() == 0:
            adjust_oom_score(SHIM_OOM_ADJUST)
        try:
            streams = self._start()
        except program.Refused as error:
            self._record_exit(error.code, str(error))
            self._reply(f"refused {error.code} {error}")
            return
        started = time.time_ns()
        task, task_start = self._identity
        record = f'{{"shim": {pid}, "shim_start": {start}, "task": {task}, "task_start": {task_start}, "started_at": {started}}}'
        self._write("run", record)
        # Secrets are in there: they are the task's now.
        self._settings.clear()
        self._watch_folder()
        self._await_ready()
        self._reply(f"running {pid} {start} {task} {task_start} {started}")
        self._supervise(streams)
        assert self._code is not None
        if self._memory:
            remove_tree(self._memory)
        self._record_exit(self._code, "")

    def _start(self) -> dict[int, bytes]:
        """Fork the task's first process. Returns its output's pipes once exec succeeded."""
        self._wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (_signal.SIGCHLD, _signal.SIGIO):
            _signal.signal(number, lambda _number, _frame: None)
        for name in ("run", "exit"):
            self._reserve(name)
        if self._isolated:
            try:
                _socket.sethostname(str(self._settings["hostname"]))
                sandbox.build(str(self._settings["folder"]), self._settings["root"])  # type: ignore[arg-type]
            except OSError as error:
                if error.errno in program.TRANSIENT:
                    raise
                raise program.Refused(program.NOT_EXECUTABLE, f"{error.strerror}") from None
        else:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        for notice in self._settings["notices"]:  # type: ignore[attr-defined]
            self._writer.feed(STDERR, f"swarmtui: {notice}\n".encode(), time.time_ns())
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        status, status_end = os.pipe2(os.O_CLOEXEC)
        self._ready, ready_end = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        self._task = os.fork()
        if self._task == 0:
            os.setsid()
            os.write(status_end, b"process %d %d\n" % kernel.identity(self._proc))
            streams = (null, out_end, err_end)
            if self._settings["announces"]:
                os.set_inheritable(ready_end, True)
                self._settings["program"]["env"].append(f"TASK_READY_FD={ready_end}")  # type: ignore[index]
            program.become(self._settings["program"], self._groups, streams, shim, status_end)  # type: ignore[arg-type]
        for descriptor in (out_end, err_end, status_end, ready_end, null, *self._groups):
            os.close(descriptor)
        self._check(status)
        return {out: STDOUT, err: STDERR}

    def _await_ready(self) -> None:
        """Return when the program has said that it is ready, closed the pipe (all but ours do so at once), or takes long."""
        poller = select.poll()
        poller.register(self._ready, select.POLLIN)
        poller.poll(READY_SECONDS * 1000)
        os.close(self._ready)

    def _check(self, status: int) -> None:
        """Read what the first process says until exec closes its end."""
        text = b""
        while data := os.read(status, 4096):
            text += data
        os.close(status)
        lines = text.decode("utf-8", "replace").splitlines()
        if len(lines) == 1:
            _word, pid, start = lines[0].split()
            self._identity = int(pid), int(start)
            return
        os.waitpid(self._task, 0)
        word, _, rest = lines[-1].partition(" ")
        if word == "refused":
            code, _, reason = rest.partition(" ")
            raise program.Refused(int(code), reason)
        raise OSError(errno.EAGAIN, rest)

    def _supervise(self, streams: dict[int, bytes]) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        for descriptor in streams:
            poller.register(descriptor, select.POLLIN)
        while self._code is None:
            for descriptor, _events in poller.poll():
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                    self._end_if_forgotten()
                else:
                    self._pump(descriptor, streams, poller)
        poller.unregister(self._wake)
        self._finished = time.time_ns()
        self._kill_rest()
        deadline = time.monotonic() + DRAIN_SECONDS
        while streams and (left := deadline - time.monotonic()) > 0:
            for descriptor, _events in poller.poll(left * 1000):
                self._pump(descriptor, streams, poller)
        self._writer.end(time.time_ns())

    def _pump(self, descriptor: int, streams: dict[int, bytes], poller: select.poll) -> None:
        data = os.read(descriptor, CHUNK)
        if data:
            self._writer.feed(streams[descriptor], data, time.time_ns())
        else:
            poller.unregister(descriptor)
            os.close(descriptor)
            del streams[descriptor]

    def _watch_folder(self) -> None:
        """Have a signal sent when a file is removed there. (dnotify: inotify allows a user 128 watchers in all.)"""
        try:
            fcntl.fcntl(self._folder, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTDIR, errno.ENOSYS):
                raise

    def _end_if_forgotten(self) -> None:
        """Kill the task when its folder was emptied behind everybody's back: no agent could ever find it again."""
        if self._code is None:
            try:
                # Not listdir, which closes a copy of the descriptor, and with any copy goes the notification.
                os.stat("run", dir_fd=self._folder)
            except FileNotFoundError:
                os.kill(self._task, _signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._task:
                self._code = exit_code(status)

    def _kill_rest(self) -> None:
        """End all that the first process left behind."""
        unkillable = False
        if self._isolated:
            # From process 1 of a namespace, -1 is everybody else in it.
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                return
        else:
            unkillable = kill_descendants(self._proc, os.getpid())
        reap_all(wait=not unkillable)

    def _record_exit(self, code: int, error: str) -> None:
        finished = self._finished or time.time_ns()
        text = error.encode("ascii", "backslashreplace")[:800].decode().replace("\\", "\\\\").replace('"', '\\"')
        self._write("exit", f'{{"code": {code}, "finished_at": {finished}, "error": "{text}"}}')

    def _reserve(self, name: str) -> None:
        """Take room for a record while there is some: a full disk must not keep an end from being written down."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._records[name] = descriptor = os.open(f"{name}.new", flags, 0o600, dir_fd=self._folder)
        os.write(descriptor, b" " * RECORD_BYTES)

    def _write(self, name: str, record: str) -> None:
        """Fill in a record and give it its name, so that it is there whole or not at all."""
        os.pwrite(self._records[name], record.encode().ljust(RECORD_BYTES), 0)
        os.rename(f"{name}.new", name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _reply(self, line: str) -> None:
        tell(self._answer, line)
        # Replaced, not closed: the number must not come to mean another file.
        os.dup2(1, self._answer, inheritable=False)


def tell(answer: int, line: str) -> None:
    """Answer the agent; one that was killed meanwhile has its successor read the record."""
    try:
        os.write(answer, line.encode("utf-8", "backslashreplace") + b"\n")
    except BrokenPipeError:
        return


def remove_tree(folder: str) -> None:
    """Remove a folder and what is in it; others may do so at the same time."""
    try:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)
    except FileNotFoundError:
        return


def adjust_oom_score(score: bytes) -> None:
    """How readily the kernel ends this process when memory runs out; in a user namespace only more readily can be had."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, score)
    except PermissionError:
        return
    finally:
        os.close(descriptor)


def exit_code(status: int) -> int:
    """A wait status as a shell shows it: 128 and the number of the signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_descendants(proc: int, pid: int) -> bool:
    """Kill all processes below `pid`, their reaper. They are stopped first: a fork bomb outruns killing.

    True when there are some that cannot be killed: programs that changed their user, and nobody without privileges can end.
    """
    stopped: set[int] = set()
    unkillable = False
    while found := set(kernel.descendants(proc, pid)) - stopped:
        for process in found:
            unkillable |= not _signal_to(process, _signal.SIGSTOP)
        stopped |= found
    for process in stopped:
        _signal_to(process, _signal.SIGKILL)
    return unkillable


def reap_all(wait: bool) -> None:
    """Reap children until there are none, or until no more have ended if not `wait`."""
    while True:
        try:
            pid, _status = os.waitpid(-1, 0 if wait else os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


def _signal_to(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True

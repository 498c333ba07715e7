"""Between fork and exec: how a forked process becomes a program of the container."""

from __future__ import annotations

# typeshed knows only the wrapper, `signal`, whose enums would add 0.9 MB to every shim.
import _signal  # type: ignore[import-not-found]
import errno
import os
import resource

from agent.worker.executors.process.shim import kernel

NOT_FOUND = 127
NOT_EXECUTABLE = 126

TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
"""Errors that may be gone at the next try."""


class Refused(Exception):
    """The program can never run like this; `code` is the exit code that a shell would give."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def open_groups(paths: list[str]) -> list[int]:
    """Descriptors of control groups' `cgroup.procs`, which a changed root would hide."""
    return [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in paths]


def become(
    settings: dict[str, object], groups: list[int], streams: tuple[int, int, int], parent: int, report: int
) -> None:
    """Replace this process with the program; does not return. What goes wrong is written to `report` as an answer's line.

    Settings: "argv", "env", "cwd", "uid", "gid", "groups", "capabilities" (kept ones, None for all), "no_new_privileges",
    "rlimits" (number, soft, hard), "oom_score_adj". `parent` is the process whose death is this one's too.
    """
    try:
        try:
            _become(settings, groups, streams, parent)
        except Refused as error:
            os.write(report, f"refused {error.code} {error}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            word = "failed" if error.errno in TRANSIENT else f"refused {NOT_EXECUTABLE}"
            os.write(report, f"{word} {error.strerror or error}\n".encode("utf-8", "backslashreplace"))
        except BaseException as error:  # a process that is neither shim nor program must not go on
            os.write(report, f"failed {type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(NOT_EXECUTABLE)


def _become(settings: dict[str, object], groups: list[int], streams: tuple[int, int, int], parent: int) -> None:
    for target, source in enumerate(streams):
        os.dup2(source, target)
    for group in groups:
        os.write(group, b"0")
    for number, soft, hard in settings["rlimits"]:  # type: ignore[attr-defined]
        resource.setrlimit(number, (soft, hard))
    with open("/proc/self/oom_score_adj", "w") as file:
        # The shim's own is not for the task.
        file.write(str(settings["oom_score_adj"]))
    uid, gid, more = int(settings["uid"]), int(settings["gid"]), settings["groups"]  # type: ignore[call-overload]
    if settings["capabilities"] is not None:
        kernel.limit_capabilities(settings["capabilities"])  # type: ignore[arg-type]
    if more is not None:
        _set_groups(more)  # type: ignore[arg-type]
    if (uid, gid) != (os.getuid(), os.getgid()):
        _set_user(uid, gid)
    if settings["no_new_privileges"]:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)
    if os.getppid() != parent:
        # It died before the line above: nobody would ever reap or record what runs from here on.
        os._exit(NOT_EXECUTABLE)
    cwd = str(settings["cwd"])
    try:
        os.chdir(cwd)
    except OSError as error:
        raise Refused(NOT_EXECUTABLE, f'chdir to cwd ("{cwd}") failed: {_lower(error)}') from None
    _reset_signals()
    _execute(list(settings["argv"]), list(settings["env"]))  # type: ignore[call-overload]


def _set_user(uid: int, gid: int) -> None:
    try:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Refused(NOT_EXECUTABLE, f"user {uid}:{gid} does not exist in the agent's user namespace") from None


def _set_groups(groups: list[int]) -> None:
    """Further groups. In a user namespace made without privileges nobody may change them, and those there are mean nothing."""
    try:
        os.setgroups(groups)
    except PermissionError:
        with open("/proc/self/setgroups") as file:
            if file.read().strip() != "deny":
                raise


def _reset_signals() -> None:
    """Defaults for all: what Python or the agent's parent ignores is no business of the program."""
    for number in range(1, _signal.NSIG):
        if number not in (_signal.SIGKILL, _signal.SIGSTOP, 32, 33):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _execute(argv: list[str], env: list[str]) -> None:
    environment = {os.fsencode(key): os.fsencode(value) for key, _, value in (item.partition("=") for item in env)}
    name = argv[0]
    if "/" in name:
        try:
            os.execve(name, argv, environment)
        except OSError as error:
            raise _refusal(name, name, error) from None
    denied: OSError | None = None
    for folder in os.fsdecode(environment.get(b"PATH", b"")).split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            os.execve(path, argv, environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            if error.errno != errno.EACCES:
                raise _refusal(name, path, error) from None
            denied = error
    if denied is not None:
        raise _refusal(name, name, denied)
    raise Refused(NOT_FOUND, f'exec: "{name}": executable file not found in $PATH')


def _refusal(name: str, path: str, error: OSError) -> Exception:
    if error.errno in TRANSIENT:
        return error
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused(NOT_FOUND, f'exec: "{name}": stat {path}: {_lower(error)}')
    return Refused(NOT_EXECUTABLE, f'exec: "{name}": {_lower(error)}')


def _lower(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]

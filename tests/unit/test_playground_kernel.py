"""What /proc tells about processes."""

import os
import subprocess
import sys

from swarmtui.playground import kernel


def test_this_process_is_known() -> None:
    own = os.getpid()
    assert own in kernel.processes()
    assert kernel.parent_of(own) == os.getppid()
    assert kernel.start_time(own) is not None
    assert kernel.inner_pid(own) is not None
    assert not kernel.is_zombie(own)


def test_a_process_that_is_gone_is_nobody() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert kernel.parent_of(child.pid) is None
    assert kernel.start_time(child.pid) is None
    assert kernel.inner_pid(child.pid) is None
    assert not kernel.is_zombie(child.pid)


def test_names_with_brackets_and_blanks_do_not_confuse() -> None:
    script = (
        "import swarmtui.playground.kernel as k, sys; k.call_process(') R 1 (x'); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert kernel.parent_of(child.pid) == os.getpid()
        assert child.pid in kernel.children_of(os.getpid())
        child.communicate()

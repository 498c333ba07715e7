"""Network links, through `ip`: for programs of one thread, which may move between network namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from swarmtui.playground import kernel


def ip(*commands: str, enter: Callable[[], None] | None = None) -> None:
    """Run `ip` with a batch of commands, in this process's network namespace or in the one that `enter` moves to."""
    subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True, preexec_fn=enter
    )


def make_switch(host_link: str, host_address: str, host_pid: int) -> None:
    """Move this process to a network namespace of its own with a bridge in it, to which the host has one link.

    `host_pid` is a process in the host's namespace; `host_address` has the prefix length.
    """
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWNET)
    filtering = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if filtering.exists():
        filtering.write_text("0")
    ip(
        "link set lo up",
        "link add bridge type bridge",
        "link set bridge up",
        f"link add uplink type veth peer name {host_link} netns {host_pid}",
        "link set uplink master bridge up",
    )
    ip(
        f"address add {host_address} dev {host_link}",
        f"link set {host_link} up",
        enter=lambda: kernel.enter_namespace(host, kernel.CLONE_NEWNET),
    )
    os.close(host)


def remove_uplink() -> None:
    """Take the host's link away; the rest goes with this process's namespace."""
    delete_link("uplink")


def plug_in(port: str, pid: int) -> None:
    """Give the network namespace of process `pid` an eth0 whose other end is `port` of the bridge."""
    ip(f"link add {port} type veth peer name eth0 netns {pid}", f"link set {port} master bridge up")


def delete_link(name: str) -> None:
    """Delete a link of this network namespace, and with it its other end.

    The kernel takes the links of a namespace that has ended in its own time; after this they are gone.
    """
    if name in [known for _index, known in socket.if_nameindex()]:
        # It may have gone between the two lines, which is what was wanted.
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)

"""Network namespaces for tasks that are processes of this host: one a task, with an interface on each of its overlays.

The file of a namespace keeps it from the first interface to the last, so a task finds its network before it begins and an
agent finds it again. What engines do for containers is done here for everybody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.network import namespaces
from agent.network.namespaces import run_in

logger = logging.getLogger(__name__)

_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

EEXIST, ENODEV = 17, 19


@dataclass(frozen=True, slots=True)
class Interface:
    """A task's end on one network. `addresses` have their prefix lengths, `gateways` none; `bridge` is a link of the host."""

    bridge: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mac: str
    mtu: int


def host_end(task_id: str, network_index: int) -> str:
    """The name of the host's end of a task's interface: the same at every start, in the 15 bytes that a link may have."""
    return "vt" + hashlib.sha256(f"{task_id} {network_index}".encode()).hexdigest()[:12]


class Sandboxes:
    """The namespaces of this host's tasks, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, task_id: str) -> Path:
        """The file of a task's namespace, whether it is there or not."""
        return self._folder / task_id

    def known(self) -> list[str]:
        """Tasks that have a file here."""
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    async def have(self, task_id: str, interfaces: Sequence[Interface]) -> None:
        """Bring the task's namespace to these interfaces: eth0, eth1 and so on. What is there is left alone. OSError."""
        path = self.path(task_id)
        if not namespaces.stands(path):
            if await run_in(None, lambda: _is_plugged(task_id)):
                # The task runs in a namespace whose file went, with the agent's mounts; it ends with the task.
                logger.warning("the file of task %s's network namespace is gone, its network is left as it is", task_id)
                return
            # The file of a namespace that went with a restart of the host is in the way.
            namespaces.remove(path)
            await run_in(None, lambda: namespaces.make(path))
        await run_in(None, lambda: _plug_in(path, task_id, interfaces))
        await run_in(path, lambda: _set_up(interfaces))

    async def remove(self, task_id: str) -> None:
        """Let go of the namespace; its interfaces go with the last process in it. Idempotent."""
        path = self.path(task_id)
        await run_in(None, lambda: _unplug(task_id))
        if path.exists():
            await run_in(None, lambda: namespaces.remove(path))


def _plug_in(path: Path, task_id: str, interfaces: Sequence[Interface]) -> None:
    """In the host's namespace: a veth pair an interface, one end on the bridge, the other in the namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as ip:
            for number, interface in enumerate(interfaces):
                name = host_end(task_id, number)
                bridge = _index(ip, interface.bridge)
                if not ip.link_lookup(ifname=name):
                    inside = {"ifname": f"eth{number}", "net_ns_fd": descriptor, "mtu": interface.mtu}
                    if interface.mac:
                        inside["address"] = interface.mac
                    _call(ip.link, "add", ifname=name, kind="veth", mtu=interface.mtu, peer=inside)
                _call(ip.link, "set", index=_index(ip, name), master=bridge, state="up")
    finally:
        os.close(descriptor)


def _set_up(interfaces: Sequence[Interface]) -> None:
    """In the task's namespace: addresses, routes, and ports under 1024 for every user, as engines have it."""
    with IPRoute() as ip:
        _call(ip.link, "set", index=_index(ip, "lo"), state="up")
        routed: set[int] = set()
        for number, interface in enumerate(interfaces):
            index = _index(ip, f"eth{number}")
            for address in interface.addresses:
                parsed = ip_interface(address)
                _call(
                    ip.addr,
                    "replace",
                    index=index,
                    address=str(parsed.ip),
                    prefixlen=parsed.network.prefixlen,
                    **({"flags": 0x02} if parsed.version == 6 else {}),
                )
            _call(ip.link, "set", index=index, state="up")
            for gateway in interface.gateways:
                version = ip_interface(gateway).version
                if version not in routed:
                    routed.add(version)
                    any_address = "0.0.0.0/0" if version == 4 else "::/0"
                    _call(ip.route, "replace", dst=any_address, gateway=gateway, oif=index)
    if _UNPRIVILEGED.exists():
        _UNPRIVILEGED.write_text("0")


def _is_plugged(task_id: str) -> bool:
    with IPRoute() as ip:
        return bool(ip.link_lookup(ifname=host_end(task_id, 0)))


def _unplug(task_id: str) -> None:
    """Delete the host's ends: what is sent to a task that ends must not wait for its last process."""
    with IPRoute() as ip:
        for number in range(64):
            found = ip.link_lookup(ifname=host_end(task_id, number))
            if not found:
                return
            try:
                ip.link("del", index=found[0])
            except NetlinkError as error:
                if error.code != ENODEV:
                    raise OSError(error.code, os.strerror(error.code)) from None


def _index(ip: IPRoute, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise OSError(ENODEV, f"there is no link {name}")
    return int(found[0])


def _call(function: object, *arguments: object, **named: object) -> None:
    assert callable(function)
    try:
        function(*arguments, **named)
    except NetlinkError as error:
        if error.code != EEXIST:
            raise OSError(error.code, f"{arguments[0]} {named.get('ifname', '')}: {os.strerror(error.code)}") from None

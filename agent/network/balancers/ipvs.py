"""Balancing by IPVS, in a namespace where everything is a balancer's own.

Connections are shared out by IPVS and translated to the backend (NAT), and leave with the namespace's address as their
source. Marks for services of every port, and that source, are rules of iptables: IPVS has a match there and in no other.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from agent.network import conntrack
from agent.network.balancers.ipvs_plan import Plan, Service, Virtual, after, firewall, plan, steps
from agent.network.balancers.ipvs_table import IpvsTable
from agent.network.interface import VirtualService
from agent.network.namespaces import run_in

SETTINGS = {
    # Without conntrack the source could not be translated.
    "conntrack": "1",
    # Connections to a destination that was taken out end with their next packet.
    "expire_nodest_conn": "1",
    "expire_quiescent_template": "1",
}
"""Under /proc/sys/net/ipv4/vs, in the namespace."""

PROBE = """*mangle
:swarmtui-probe - [0:0]
-A swarmtui-probe -p tcp -j MARK --set-mark 0x1
COMMIT
*nat
:swarmtui-probe - [0:0]
-A swarmtui-probe -m ipvs --ipvs -j MASQUERADE
COMMIT
"""
"""Needs all that the rules need, in chains that nothing leads to: what stands goes on."""
PROBE_BACK = "".join(f"*{table}\n-F swarmtui-probe\n-X swarmtui-probe\nCOMMIT\n" for table in ("mangle", "nat"))


class IpvsBalancer:
    """`Balancer` in the namespace that `namespace` names, which must be a balancer's alone: its rules are all replaced.

    `outward` is the interface that leads to the backends.
    """

    def __init__(self, namespace: Path, outward: str) -> None:
        self._namespace = namespace
        self._outward = outward
        self._changing = asyncio.Lock()
        self._standing: dict[Virtual, Service] | None = None
        self._rules: dict[int, str] = {}

    async def apply(self, desired: frozenset[VirtualService]) -> None:
        """Bring IPVS to the desired set; the first call finds what an earlier agent left. A backend that went takes nothing
        new and leaves with its last connection, or by `forget`.

        ValueError: a service is not one; OSError: the kernel refuses.
        """
        wanted = plan(desired)
        async with self._changing:
            await run_in(self._namespace, lambda: self._bring(wanted))

    async def forget(self, backends: Collection[str], targets: Collection[str] = ()) -> int:
        """End the connections to backends that have gone; the number in conntrack. `targets` are the virtual addresses."""
        async with self._changing:
            return await run_in(self._namespace, lambda: self._drop(frozenset(backends), targets))

    async def close(self, *, remove: bool) -> None:
        """Let go; with `remove` take out all services and rules. Idempotent."""
        if remove:
            await self.apply(frozenset())

    def _bring(self, wanted: Plan) -> None:
        for name, value in SETTINGS.items():
            file = Path("/proc/sys/net/ipv4/vs") / name
            if file.read_text().strip() != value:
                file.write_text(value)
        with IpvsTable() as table:
            standing = table.read() if self._standing is None else self._standing
            # Unknown until all is done: what is refused half-way is read anew the next time.
            self._standing = None
            todo = steps(standing, wanted.state)
            removals = [step for step in todo if step.virtual not in wanted.state]
            for step in todo:
                if step.virtual in wanted.state:
                    table.carry_out(step)
            # New marks only once there is a service for them, and none any more before it goes.
            self._mark(wanted)
            for step in removals:
                table.carry_out(step)
            result = after(standing, wanted.state)
            for virtual, service in result.items():
                gone = service.destinations.keys() - wanted.state[virtual].destinations.keys()
                if gone:
                    idle = [place for place in table.idle(virtual) if place in gone]
                    for place in idle:
                        table.remove(virtual, place)
                    kept = {place: weight for place, weight in service.destinations.items() if place not in idle}
                    result[virtual] = Service(service.scheduler, kept)
            self._standing = result

    def _mark(self, wanted: Plan) -> None:
        for version, program in ((4, "iptables-restore"), (6, "ip6tables-restore")):
            rules = firewall(wanted.marks, self._outward, version)
            in_use = any((virtual.family == 2) == (version == 4) for virtual in wanted.state)
            if rules != self._rules.get(version) and (in_use or version in self._rules):
                restore(program, rules)
                self._rules[version] = rules

    def _drop(self, backends: frozenset[str], targets: Collection[str]) -> int:
        # Taking a destination out ends its connections too, on newer kernels at once: they are counted before.
        ended = conntrack.forget(backends, targets)
        with IpvsTable() as table:
            for virtual, service in table.read().items():
                for place, weight in service.destinations.items():
                    if place[0] in backends and weight == 0:
                        table.remove(virtual, place)
            self._standing = None
        return ended + conntrack.forget(backends, targets)


def restore(program: str, rules: str, keep: bool = False) -> None:
    """Replace tables of the thread's namespace in one step each, or `keep` what is in them. OSError: the program's words."""
    command = [program, "-w", "5", *(["--noflush"] if keep else [])]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"{program}: {done.stderr.strip()}")


def lacks() -> str | None:
    """Why IPVS cannot be used in the thread's namespace, which must be a balancer's own; None when it can."""
    if shutil.which("iptables-restore") is None:
        return "IPVS needs iptables-restore for marks (Debian: apt install iptables)"
    try:
        restore("iptables-restore", PROBE, keep=True)
        restore("iptables-restore", PROBE_BACK, keep=True)
        with IpvsTable() as table:
            table.read()
    except OSError as error:
        return str(error)
    return None

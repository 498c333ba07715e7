"""IPVS, which this machine's kernel may lack: the tests of the balancer's namespace in a User-Mode Linux kernel that has it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import uml

MODULES = [
    *("ip_vs", "ip_vs_rr", "ip_vs_wrr", "veth", "bridge", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink"),
    *("iptable_nat", "iptable_mangle", "ip6table_nat", "ip6table_mangle", "ipv6"),
    *("xt_ipvs", "xt_mark", "xt_MASQUERADE", "xt_tcpudp"),
]
TESTS = [str(Path(__file__).with_name(name)) for name in ("test_balancer_namespace.py", "ipvs_checks.py")]


@pytest.mark.long
@pytest.mark.root
@pytest.mark.timeout(300)
def test_ipvs_in_a_kernel_that_has_it(tmp_path: Path) -> None:
    missing = uml.lacking()
    if missing is not None:
        pytest.skip(missing)
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=60", "--basetemp=/run/tests", *TESTS]
    status = uml.run(command, tmp_path, modules=MODULES, timeout=280)
    output = tmp_path / "output"
    said = output.read_text() if output.exists() else (tmp_path / "console").read_text()
    assert status == 0, said
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None, said
    # Those that look at nftables are skipped there, and no others.
    assert int(passed[1]) >= 14, said

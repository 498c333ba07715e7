"""A node that was cut off from its manager, on a real network that loses every packet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


@pytest.mark.parametrize("cut", [4.0, pytest.param(9.0, marks=pytest.mark.long)])
def test_old_copies_stop_within_a_second_of_coming_back(cut: float, tmp_path: Path) -> None:
    program = Path(__file__).with_name("cut_off_process.py")
    result = subprocess.run(
        [
            *("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
            *(sys.executable, str(program), str(cut), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    took = float(result.stdout)
    print(f"cut for {cut:g} s: old copy stopped {took:.3f} s after the network was back")
    assert took < 1.0

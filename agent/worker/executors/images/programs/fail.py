"""`swarmtui/fail`: runs for AFTER seconds (default 0) and exits with EXIT_CODE (default 1)."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Wait, say so on stderr, and return the exit code asked for."""
    code, after = environment.get("EXIT_CODE", "") or "1", environment.get("AFTER", "") or "0"
    try:
        number, seconds = int(code), float(after)
    except ValueError:
        sys.stderr.write(f"EXIT_CODE={code!r} AFTER={after!r}: numbers are needed\n")
        return 2
    if not 0 <= number <= 255 or not 0 <= seconds < 1e9:
        sys.stderr.write(f"EXIT_CODE={code} AFTER={after}: a code from 0 to 255 and a time of 0 or more are needed\n")
        return 2
    time.sleep(seconds)
    sys.stderr.write(f"ends with exit code {number} after {after} s, as asked for\n")
    return number

"""The agent's command line: `swarmtui-agent` runs one agent in the foreground until a signal."""

from __future__ import annotations

import asyncio
import sys

from agent.node.settings import parse


def main() -> None:
    """Entry point of `swarmtui-agent` and of `python -m agent`."""
    settings = parse()
    # Everything heavy is imported once the command line is known to be right.
    from agent.node.running import run

    sys.exit(asyncio.run(run(settings)))


if __name__ == "__main__":
    main()

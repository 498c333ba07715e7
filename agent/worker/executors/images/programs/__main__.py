"""Runs a program by its name: `python -S -E __main__.py whoami --port 8000`.

Only the module asked for is loaded, and no site packages, so that a task is ready in some 20 ms and stays small.
"""

import os
import sys

if __name__ == "__main__":
    # Started by its path, so that no package has to be installed: the folder above `agent` is the only one that is added.
    sys.path[0] = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 5))
    name, *arguments = sys.argv[1:]
    if name in ("whoami", "web", "page"):
        from agent.worker.executors.images.programs.sites import main
    elif name == "logger":
        from agent.worker.executors.images.programs.logger import main
    elif name == "fail":
        from agent.worker.executors.images.programs.fail import main
    else:
        sys.stderr.write(f"no program of the name {name!r}\n")
        sys.exit(127)
    sys.exit(main([name, *arguments], dict(os.environ)))

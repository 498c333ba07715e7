"""Starts the spawner: `python -S -E __main__.py` with a SOCK_SEQPACKET socket as descriptor 0."""

import os
import sys

if __name__ == "__main__":
    # Started by its path, so that no package has to be installed: the folder above `agent` is the only one that is added.
    sys.path[0] = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 5))
    from agent.worker.executors.process.shim.spawner import serve

    serve(0)

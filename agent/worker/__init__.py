"""What every node runs: the session with a manager, the task state machine, the executors, secrets and configs in memory.

What may enter: assignments, and what becomes of them on this host. Nothing here decides where a task runs. Networks are
reached through the protocol `NetworkAttacher` that this room declares.
"""

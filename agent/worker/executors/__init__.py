"""Who runs containers on a host: the Docker Engine (`docker`) or the agent itself (`process`).

What may enter: adapters that implement `agent.worker.interface.Executor`. They know nothing of managers, sessions or each
other.
"""

"""Tasks as containers of the host's Docker Engine.

What may enter: how a task becomes a container, and what the engine's answers mean for the task. Everything goes through
`engine.Engine`, one aiodocker session on the agent's loop. What the engine is asked is decided in pure functions
(`container`, `template`, `describe`, `outcome`), so that a test can read it without an engine.
"""

from agent.worker.executors.docker.executor import DockerExecutor

__all__ = ["DockerExecutor"]

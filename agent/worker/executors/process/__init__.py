"""The process executor: runs the shipped images as processes of this host, where there is no engine.

What may enter: how a task becomes processes here (`plan`), what is kept of it on disk (`records`), how it is started, found
again, watched and stopped (`container`, `controller`), and what `docker ps` and friends want to know (`inventory`).

Three processes take part. The agent decides. The *spawner*, a child of the agent, is a bare interpreter that forks; it dies
with the agent. The *shim*, forked by the spawner, one a task, outlives both: it owns the task's pipes, stamps its lines,
reaps it and writes down how it ended. A forked shim shares its memory with the spawner and costs some 0.5 MB of its own.

What is killed with -9, and what the (next) agent then reports:

- agent or spawner: shims and tasks go on; the task is reported as it is, running or with its exit code;
- shim: with a process namespace the kernel kills all in it, else the parent-death signal kills the task's first process and
  the agent what is left; exit code 137, "the task's shim was killed";
- the task's first process: the shim kills what is left in the container and writes the exit code, 137;
- everything (a power cut): nothing is left; exit code 137, "the host went down".

A service manager that ends the agent must end the agent alone (systemd: `KillMode=process`), else tasks end with it.

Needs Linux 5.3 (pidfd). With root and Linux 5.12, containers get process, mount, host name and System V namespaces and a root of
their own (`shim.sandbox`); control groups where they can be written to. Without, tasks are plain processes of the agent's
user: same life, same logs, own addresses, but the host's files and no bounds; a notice at the head of the log says what a
service asked for and does not get.

Importing this package imports nothing else: the spawner passes through here.
"""

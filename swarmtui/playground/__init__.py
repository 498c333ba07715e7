"""Local clusters: machines that exist for one session on this machine, and that are gone without a trace after it.

`session` is what the console and the command use. Below it, from the ground up: `kernel`, `cgroups` and `wire` (what the
operating system gives), `addresses`, `templates`, `tier` and `clock` (decisions), `places`, `sweep` and `preparing` (what
sessions leave on disk, live and dead), `links` and `instance_init` (process 1 of an instance), `keeper` (parent of all
instances of a session), `keeping` (the session's end of the keeper's socket), `engine`, `agents` and `booting` (what runs in
an instance), `forming` (how instances become a cluster), and `expiry` (when it all ends). `keeper` and `instance_init` are
programs of their own and import the standard library alone: there is one of the first for a session and one of the second
for an instance.

Nothing here draws, and nothing here imports the agent: agents are started as processes and spoken to through their API.
"""

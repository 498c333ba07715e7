"""The bare interpreter that forks (`spawner`), what it forks (`supervise`, `execute`), and the kernel calls they need.

What may enter: nothing that costs memory, as each task keeps one of these processes. No site packages, none of the
standard library's larger modules; a test lists what is loaded. The environment is the agent's (-E keeps Python from reading
it), the standard streams are /dev/null: what there is to say goes to the task's log or back to the agent.
"""

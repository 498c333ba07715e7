"""Programs of the shipped images, started by `__main__` with the agent's own interpreter and without its site packages.

Each is a function `main(arguments, environment) -> exit code`. They take their address from TASK_ADDRESS, which the process
executor sets; in a real container it is not set and they listen on all addresses.
"""

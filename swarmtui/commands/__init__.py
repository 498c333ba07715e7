"""The command line's commands, a module a group. `swarmtui.cli` loads them when they are called for.

Names of commands and options, columns of tables and texts are the docker CLI's, so that what a person knows of it holds.
"""

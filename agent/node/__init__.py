"""One node: the composition of all rooms, and this node's part in a swarm from init or join to leave.

What may enter: how the rooms are put together and in which order they start and stop. Nothing here decides anything that
a room decides.
"""

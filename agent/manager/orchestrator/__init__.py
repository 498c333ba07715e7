"""Orchestrators: which tasks a service is to have, and how it gets from one spec to the next.

What may enter: services, their tasks by slot, nodes, and the time. Decisions are pure functions over slots as they were
seen; a transaction carries a decision out only where the slot is still as it was seen.
"""

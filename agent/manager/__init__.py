"""What the leader runs: orchestrators, scheduler, allocator, dispatcher, reaper, log broker.

Each control loop has one shape: watch, take a snapshot, decide in pure functions, write one transaction. What may enter:
the store and the sessions of nodes. Nothing here touches a host.
"""

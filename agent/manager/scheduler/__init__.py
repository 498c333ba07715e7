"""The scheduler: which node a task runs on, and why there is none for it.

What may enter: nodes and the tasks on them. Filters say where a task can run, the spread says where it should; both are
pure over `NodeInfo`. Only the loop in `scheduler.py` writes.
"""

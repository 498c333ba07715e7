"""The dispatcher: the leader's side of every node's session.

What may enter: what nodes say (life, descriptions, states of tasks) and what they are to run. What it believes of a node's
life beyond the store (suspicion, leases) is its own knowledge and dies with its leadership.
"""
